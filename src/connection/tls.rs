//! TLS over a socket, by rustls.
//!
//! A [`Session`] reads from and writes to a socket that does not block, and keeps
//! what is under way, so that it can stop anywhere.

use std::fs;
use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::address::TlsOptions;

/// One side of a TLS connection.
#[derive(Debug)]
pub struct Session(ClientConnection);

impl Session {
    /// Introduces this side over a connected socket, and looks at the certificate
    /// of the other.
    ///
    /// # Errors
    /// What is wrong with a file, with the certificate, or with the line.
    pub async fn begin(socket: &TcpStream, host: &str, options: &TlsOptions) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let config = Arc::new(config(options)?);
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut session = Self(connection);
        while session.0.is_handshaking() || session.is_unsent() {
            if session.is_unsent() {
                let send = || session.send(&SockRef::from(socket));
                socket.async_io(Interest::WRITABLE, send).await?;
            } else {
                let receive = || session.receive(&SockRef::from(socket));
                socket.async_io(Interest::READABLE, receive).await?;
            }
        }
        Ok(session)
    }

    /// Reads what the socket has.
    pub fn read(&mut self, socket: &SockRef<'_>, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.receive(socket)?,
                result => return result,
            }
        }
    }

    /// Takes one read of the socket in.
    fn receive(&mut self, socket: &SockRef<'_>) -> io::Result<()> {
        if self.0.read_tls(&mut &**socket)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Err(error) = self.0.process_new_packets() {
            // The other side learns why, if it can.
            let _ = self.send(socket);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        // An answer that the protocol demands; the next write sends what is left.
        match self.send(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result,
        }
    }

    /// Takes bytes to send, and sends what the socket takes.
    pub fn write(&mut self, socket: &SockRef<'_>, bytes: &[u8]) -> io::Result<usize> {
        // What was taken before goes first, so that little is kept.
        self.send(socket)?;
        let taken = self.0.writer().write(bytes)?;
        match self.send(socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Whether bytes that were taken have not been sent.
    pub fn is_unsent(&self) -> bool {
        self.0.wants_write()
    }

    /// Sends what was taken and not sent.
    pub fn send(&mut self, socket: &SockRef<'_>) -> io::Result<()> {
        while self.0.wants_write() {
            self.0.write_tls(&mut &**socket)?;
        }
        Ok(())
    }
}

fn config(options: &TlsOptions) -> io::Result<ClientConfig> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match (options.trusts_anyone, &options.ca_certs) {
        (true, _) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider))),
        (false, Some(file)) => builder.with_root_certificates(roots_of(file)?),
        (false, None) => builder.with_root_certificates(system_roots()),
    };
    let Some((certificate, key)) = &options.certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let key = PrivateKeyDer::from_pem_slice(&contents(key)?)
        .map_err(|error| no_good(key, &format!("has no key: {error}")))?;
    let chain = certificates(certificate)?;
    let config = builder.with_client_auth_cert(chain, key);
    config.map_err(|error| no_good(certificate, &error.to_string()))
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(ring::default_provider()))
        .clone()
}

/// Those whom the system trusts. They are read once for each process.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    ROOTS.get_or_init(read).clone()
}

fn roots_of(file: &str) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        let added = roots.add(certificate);
        added.map_err(|error| no_good(file, &error.to_string()))?;
    }
    Ok(roots)
}

fn certificates(file: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let text = contents(file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(no_good(file, "has no certificate")),
        Err(error) => Err(no_good(file, &error.to_string())),
    }
}

fn contents(file: &str) -> io::Result<Vec<u8>> {
    fs::read(file).map_err(|error| no_good(file, &error.to_string()))
}

fn no_good(file: &str, reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{file}: {reason}"))
}

/// Takes any server for the right one, as was asked for.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
