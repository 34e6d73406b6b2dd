//! Whose certificates are taken for those of the server, over TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

/// After every date that a certificate can have.
const END_OF_TIME: UnixTime = UnixTime::since_unix_epoch(Duration::MAX);

/// Those who are trusted.
#[derive(Debug)]
pub struct Roots {
    store: Arc<RootCertStore>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Roots {
    /// Those of all these certificates.
    ///
    /// # Errors
    /// What is wrong with the first that is none.
    pub fn of_all(certificates: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store.add(certificate.clone())?;
        }
        Ok(Self {
            store: Arc::new(store),
            certificates,
        })
    }

    /// Those of these certificates that can be read.
    pub fn of_readable(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates.iter().cloned());
        Self {
            store: Arc::new(store),
            certificates,
        }
    }
}

/// Takes a server for the right one if somebody trusted gave its certificate out.
///
/// It also takes one whose certificate is itself among the trusted ones, byte for
/// byte, though it is that of an authority, as `openssl req -x509` makes them. That
/// trusts nobody else: whoever has its key could give out another one for the
/// server.
#[derive(Debug)]
pub struct Trusted {
    roots: Arc<Roots>,
    web: Arc<WebPkiServerVerifier>,
}

impl Trusted {
    /// # Errors
    /// If nobody is trusted.
    pub fn new(roots: Arc<Roots>, provider: Arc<CryptoProvider>) -> io::Result<Self> {
        let builder = WebPkiServerVerifier::builder_with_provider(roots.store.clone(), provider);
        let web = builder.build().map_err(|_| {
            let reason = "the system trusts nobody; ssl_ca_certs names a file of those to trust";
            io::Error::new(io::ErrorKind::InvalidInput, reason)
        })?;
        Ok(Self { roots, web })
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified_at = |time| {
            self.web
                .verify_server_cert(certificate, between, name, ocsp, time)
        };
        let error = match verified_at(now) {
            Err(error) if is_of_an_authority(&error) => error,
            result => return result,
        };
        // Dates are looked at before that is found, so they are good now: but for
        // that order it would be found at the end of time, too.
        let is_valid_now = matches!(
            verified_at(END_OF_TIME),
            Err(Error::InvalidCertificate(
                CertificateError::ExpiredContext { .. }
            ))
        );
        if !is_valid_now || !self.roots.certificates.contains(certificate) {
            return Err(error);
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.web.supported_verify_schemes()
    }
}

fn is_of_an_authority(error: &Error) -> bool {
    let Error::InvalidCertificate(error) = error else {
        return false;
    };
    of_webpki(error) == Some(&webpki::Error::CaUsedAsEndEntity)
}

/// What has no kind of its own among the errors of certificates.
fn of_webpki(error: &CertificateError) -> Option<&webpki::Error> {
    match error {
        CertificateError::Other(OtherError(error)) => error.downcast_ref(),
        _ => None,
    }
}

/// What is wrong with a certificate, in words that go on after its name; nothing
/// where the error has words of its own.
pub fn complaint(error: &CertificateError) -> Option<String> {
    use CertificateError as E;
    use webpki::Error as W;
    let text = match error {
        E::UnknownIssuer => "was given out by nobody who is trusted",
        E::BadEncoding => "cannot be decoded",
        E::BadSignature => "has a wrong signature",
        E::Expired => "expires before it becomes valid",
        E::UnsupportedSignatureAlgorithmContext { .. }
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "has a signature or a key of a kind that is not supported"
        }
        E::Other(rule) => match of_webpki(error) {
            Some(W::CaUsedAsEndEntity) => {
                "is that of an authority (CA:TRUE), and is none of those that are trusted"
            }
            Some(W::EndEntityUsedAsCa) => "was given out by one that is of no authority (CA:FALSE)",
            Some(W::UnsupportedCertVersion) => "is not of version 3 of X.509",
            Some(W::UnsupportedCriticalExtension) => {
                "has an extension that matters (critical) and is not known here"
            }
            Some(W::NameConstraintViolation) => "has a name that its authority may not give out",
            Some(W::PathLenConstraintViolated) => {
                "has more authorities above it than the first of them allows"
            }
            _ => return Some(format!("breaks a rule of certificates ({rule})")),
        },
        _ => return None,
    };
    Some(text.to_owned())
}

/// Takes any server for the right one, as was asked for.
#[derive(Debug)]
pub struct AnyServer(pub Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::server::ResolvesServerCertUsingSni;
    use rustls::sign::CertifiedKey;
    use rustls::version::{TLS12, TLS13};
    use rustls::{
        ClientConfig, ClientConnection, ServerConfig, ServerConnection, SupportedProtocolVersion,
    };

    use super::*;

    /// Of an authority, signed by itself, for localhost, from 2020 to 2120; its key
    /// is that of the seed of ones.
    const ITSELF: &[u8] = b"-----BEGIN CERTIFICATE-----
MIIBATCBtKADAgECAgEBMAUGAytlcDAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwIBcN
MjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMMCWxvY2Fs
aG9zdDAqMAUGAytlcAMhAIqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c
oykwJzAPBgNVHRMBAf8EBTADAQH/MBQGA1UdEQQNMAuCCWxvY2FsaG9zdDAFBgMr
ZXADQQAI8KNyg5Q51ixW5D04eqlGKk+WHsFd+1ox8EqyZKxiqUOiEkRbRFhZzLzt
mgd1WfTuOwxXnrkE0VlYJXWC0tcI
-----END CERTIFICATE-----";

    fn itself() -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(ITSELF).unwrap()
    }

    fn trusted() -> Trusted {
        let roots = Roots::of_all(vec![itself()]).unwrap();
        Trusted::new(Arc::new(roots), Arc::new(ring::default_provider())).unwrap()
    }

    fn looked_at(name: &str, year: u64) -> Result<ServerCertVerified, Error> {
        let now = UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_556_952));
        let name = ServerName::try_from(name).unwrap();
        trusted().verify_server_cert(&itself(), &[], &name, &[], now)
    }

    fn fault(error: Error) -> CertificateError {
        match error {
            Error::InvalidCertificate(error) => error,
            error => panic!("{error}"),
        }
    }

    #[test]
    fn a_trusted_certificate_is_looked_at_as_any_other() {
        assert!(looked_at("localhost", 2030).is_ok());
        let name = fault(looked_at("elsewhere.example", 2030).unwrap_err());
        assert!(matches!(
            name,
            CertificateError::NotValidForNameContext { .. }
        ));
        let early = fault(looked_at("localhost", 2019).unwrap_err());
        assert!(matches!(early, CertificateError::NotValidYetContext { .. }));
        let late = fault(looked_at("localhost", 2121).unwrap_err());
        assert!(matches!(late, CertificateError::ExpiredContext { .. }));
    }

    /// A handshake with who shows the certificate, and has the key of a seed.
    fn shaken_hands(
        version: &'static SupportedProtocolVersion,
        seed: [u8; 32],
    ) -> Result<(), Error> {
        let provider = Arc::new(ring::default_provider());
        // PKCS #8 of an Ed25519 key.
        let mut key = b"\x30\x2e\x02\x01\0\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
        key.extend(seed);
        let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(key));
        let mut shown = ResolvesServerCertUsingSni::new();
        let certified = CertifiedKey::new(vec![itself()], key.unwrap());
        shown.add("localhost", certified).unwrap();
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trusted()))
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() {
            let mut sent = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut sent).unwrap();
            }
            let mut sent = &*sent;
            while !sent.is_empty() {
                server.read_tls(&mut sent).unwrap();
                server.process_new_packets().unwrap();
            }
            let mut answered = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut answered).unwrap();
            }
            let mut answered = &*answered;
            while !answered.is_empty() {
                client.read_tls(&mut answered).unwrap();
                client.process_new_packets()?;
            }
        }
        Ok(())
    }

    #[test]
    fn who_shows_a_trusted_certificate_has_its_key() {
        for version in [&TLS12, &TLS13] {
            assert!(shaken_hands(version, [1; 32]).is_ok());
            let error = fault(shaken_hands(version, [2; 32]).unwrap_err());
            assert_eq!(error, CertificateError::BadSignature);
        }
    }

    #[test]
    fn every_complaint_is_a_sentence() {
        let of = |rule| CertificateError::Other(OtherError(Arc::new(rule)));
        for error in [
            CertificateError::UnknownIssuer,
            CertificateError::BadEncoding,
            of(webpki::Error::CaUsedAsEndEntity),
            of(webpki::Error::UnsupportedCertVersion),
            of(webpki::Error::MaximumPathDepthExceeded),
        ] {
            let complaint = complaint(&error).unwrap();
            assert!(complaint.contains(' '), "{complaint}");
            assert!(!complaint.contains("Other"), "{complaint}");
        }
    }
}
