//! TLS over a socket, by rustls.
//!
//! A [`Session`] reads from and writes to a socket that does not block, and keeps
//! what is under way, so that it can stop anywhere.

use std::fs;
use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Error};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::trust::{AnyServer, Roots, Trusted, complaint};
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
            return Err(in_words(error));
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
    let verifier: Arc<dyn ServerCertVerifier> = match (options.trusts_anyone, &options.ca_certs) {
        (true, _) => Arc::new(AnyServer(provider)),
        (false, Some(file)) => Arc::new(Trusted::new(Arc::new(roots_of(file)?), provider)?),
        (false, None) => Arc::new(Trusted::new(system_roots(), provider)?),
    };
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some((certificate, key)) = &options.certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let config = builder.with_client_auth_cert(certificates(certificate)?, key_of(key)?);
    config.map_err(|error| match error {
        Error::InconsistentKeys(_) => no_good(certificate, &format!("is not of the key in {key}")),
        error => no_good(certificate, &error.to_string()),
    })
}

/// An error of the protocol; with the certificate as what it is about, if it is.
fn in_words(error: Error) -> io::Error {
    let complaint = match &error {
        Error::InvalidCertificate(error) => complaint(error),
        _ => None,
    };
    let kind = io::ErrorKind::InvalidData;
    match complaint {
        Some(complaint) => io::Error::new(kind, format!("the server's certificate {complaint}")),
        None => io::Error::new(kind, error),
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(ring::default_provider()))
        .clone()
}

/// Those whom the system trusts. They are read once for each process.
fn system_roots() -> Arc<Roots> {
    static ROOTS: OnceLock<Arc<Roots>> = OnceLock::new();
    let read = || {
        Arc::new(Roots::of_readable(
            rustls_native_certs::load_native_certs().certs,
        ))
    };
    ROOTS.get_or_init(read).clone()
}

fn roots_of(file: &str) -> io::Result<Roots> {
    Roots::of_all(certificates(file)?).map_err(|error| {
        let reason = match &error {
            Error::InvalidCertificate(wrong) => complaint(wrong),
            _ => None,
        };
        let reason = reason.map(|reason| format!("a certificate in it {reason}"));
        no_good(file, &reason.unwrap_or_else(|| error.to_string()))
    })
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

fn key_of(file: &str) -> io::Result<PrivateKeyDer<'static>> {
    let text = contents(file)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match is_encrypted(&text) {
        true => no_good(
            file,
            "the key in it is encrypted; a key with a passphrase is not supported",
        ),
        false => no_good(file, &format!("has no key: {error}")),
    })
}

/// Whether a file has a key with a passphrase, of PKCS #8 or of the older form.
fn is_encrypted(text: &[u8]) -> bool {
    let has = |words: &str| memchr::memmem::find(text, words.as_bytes()).is_some();
    has("-----BEGIN ENCRYPTED PRIVATE KEY-----") || has("Proc-Type: 4,ENCRYPTED")
}

fn contents(file: &str) -> io::Result<Vec<u8>> {
    fs::read(file).map_err(|error| no_good(file, &error.to_string()))
}

fn no_good(file: &str, reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{file}: {reason}"))
}
