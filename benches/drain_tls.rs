//! A contender of `tls.py`: the bare client over TLS, by rustls, on one thread.
//!
//! Run as `drain_tls HOST PORT CA STREAM ENTRIES`. As the other contenders it prints
//! `ready`, waits for a line, reads everything once, and prints what that took as JSON.

mod drain;

use std::io::{Read, Write, stdin};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

fn connect(host: &str, port: &str, ca: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca).expect("a file with a certificate");
    roots.add(ca).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions that ring knows")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).expect("a host");
    let session = ClientConnection::new(Arc::new(config), name).expect("a configuration");
    let socket = TcpStream::connect((host, port.parse().expect("a port"))).expect("a server");
    socket.set_nodelay(true).expect("an open socket");
    let mut stream = StreamOwned::new(session, socket);
    stream.write_all(b"PING\r\n").expect("a handshake");
    stream.read_exact(&mut [0; 7]).expect("an answer");
    stream
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, ca, stream, entries] = words.as_slice() else {
        panic!("drain_tls HOST PORT CA STREAM ENTRIES");
    };
    let pages = drain::pages(stream, entries.parse().expect("a number"));
    let total = std::env::var("RESP_BYTES").expect("RESP_BYTES");
    let total = total.parse().expect("a number");
    let socket = connect(host, port, ca);
    println!("ready");
    stdin().read_line(&mut String::new()).expect("a line");
    let begun = Instant::now();
    drain::drain(socket, &pages, Some(total));
    println!("{{\"wall\": {}}}", begun.elapsed().as_secs_f64());
}
