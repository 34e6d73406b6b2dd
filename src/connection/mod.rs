//! Bytes to and from one server, and the way to it: a [`Route`] finds the server
//! that has a key, where sentinels or a cluster's servers know it.
//!
//! A [`Connection`] is one TCP connection with its introduction done (user,
//! database, name), a deadline on every wait, and keepalive on, so that a dead
//! peer is noticed. It does not know what the bytes mean, except for the short
//! control commands of [`Connection::query`], which redis-rs decodes.
//!
//! A method that sends or receives may be cancelled (its future dropped) at any
//! point and called again: what was sent or received so far is kept in the
//! connection.

mod asking;
mod backoff;
mod handshake;
mod kept;
mod known;
mod map;
mod route;
mod sentinels;
mod slots;
mod tls;
mod topology;
mod transport;
mod trust;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use redis::{Cmd, Value};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_util::codec::Decoder;

pub use backoff::Backoff;
pub use route::Route;
pub(crate) use slots::Redirect;
pub use slots::{RedirectKind, Slot};
pub use topology::Topology;

use crate::address::{Address, Endpoint};
use crate::error::{Error, Result};
use crate::resp::{Payload, Token, Tokenizer};
use tls::Session;
use transport::{Transport, is_not_now};

/// Size of the read buffer. Large, to take what a loopback or a fast network
/// delivers in few calls; small enough to stay in the second-level cache.
const INBOX_LEN: usize = 96 * 1024;

/// Attempts to make a connection to a server that takes it and then cuts it.
const CONNECT_ATTEMPTS: usize = 3;

/// How long [`Connection::received_soon`] looks for bytes before it sleeps.
/// To fall asleep and be woken takes about as long as a server on the same
/// machine or the same rack takes for a short command.
const PATIENCE: Duration = Duration::from_micros(150);

/// How much longer than it may block a server may be silent.
const BLOCK_SLACK: Duration = Duration::from_secs(5);

/// Silence after which the kernel asks whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// One connection to one server.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    address: Arc<Address>,
    inbox: Inbox,
    /// Bytes to send, and how many of them have been sent.
    outbox: Vec<u8>,
    sent: usize,
    /// Whether a control command is under way.
    in_query: bool,
    /// Whether each command is preceded by `ASKING`, as its key is on its way here
    /// from another server of the cluster, and each reply by the one to that.
    is_asking: bool,
    /// Whether it may look out for bytes, with nothing else done on its thread.
    looks_out: bool,
}

/// What came of an attempt to read without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    Some,
    NotNow,
    /// The peer has closed the connection.
    AtEnd,
}

/// Bytes received and not consumed.
struct Inbox {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inbox({}..{})", self.start, self.end)
    }
}

impl Inbox {
    fn new() -> Self {
        Self {
            buffer: vec![0; INBOX_LEN].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// So many bytes have been read into the buffer, which was empty.
    fn fill(&mut self, received: usize) {
        self.start = 0;
        self.end = received;
    }
}

impl Connection {
    /// A connection to `address`: one kept from earlier, or a new one.
    pub async fn open(address: &Arc<Address>) -> Result<Self> {
        if let Some(kept) = kept::take(address) {
            return Ok(kept);
        }
        Self::connect(address).await
    }

    /// A new connection to `address`. One that is cut before it was used is
    /// made again, twice at the most.
    ///
    /// # Errors
    /// [`Error::Connection`] or [`Error::Timeout`] if the server cannot be
    /// reached in time, [`Error::Authentication`] if it refuses the user,
    /// [`Error::Response`] if it refuses the database.
    pub async fn connect(address: &Arc<Address>) -> Result<Self> {
        let deadline = address.access.connect_timeout;
        let connecting = async {
            for _ in 1..CONNECT_ATTEMPTS {
                match Self::introduced(address).await {
                    Err(error) if error.is_cut() => {}
                    result => return result,
                }
            }
            Self::introduced(address).await
        };
        match timeout(deadline, connecting).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout {
                peer: address.peer(),
                reason: format!("no connection within {deadline:?}"),
            }),
        }
    }

    async fn introduced(address: &Arc<Address>) -> Result<Self> {
        let mut connection = Self {
            transport: connect_transport(address).await?,
            address: address.clone(),
            inbox: Inbox::new(),
            outbox: Vec::new(),
            sent: 0,
            in_query: false,
            is_asking: false,
            looks_out: true,
        };
        handshake::introduce(&mut connection).await?;
        Ok(connection)
    }

    /// Keeps the connection for the next one who wants this address. No reply
    /// may be due.
    pub fn keep(self) {
        let is_quiet = self.inbox.is_empty() && self.sent == self.outbox.len();
        if is_quiet && !self.in_query && !self.is_asking {
            kept::give(self);
        }
    }

    /// Whether a control command was begun and its future dropped: what comes
    /// next is the reply to that, so that the connection is of no more use.
    pub fn is_spoiled(&self) -> bool {
        self.in_query
    }

    /// The address that was connected to.
    pub fn address(&self) -> &Arc<Address> {
        &self.address
    }

    /// Asks from now on for keys that are on their way here from another server of
    /// the cluster: a line that says OK precedes each reply then.
    pub(crate) fn ask(&mut self) {
        self.is_asking = true;
    }

    /// Does so no longer. No reply may be due.
    pub(crate) fn ask_no_more(&mut self) {
        self.is_asking = false;
    }

    /// Others have something to do on the same thread: from now on it sleeps until
    /// bytes come.
    pub fn share_the_thread(&mut self) {
        self.looks_out = false;
    }

    /// Whether a line that says OK precedes each reply.
    pub fn is_asking(&self) -> bool {
        self.is_asking
    }

    /// Adds a command to what [`flush`](Self::flush) will send.
    pub fn queue(&mut self, cmd: &Cmd) {
        if self.is_asking {
            redis::cmd("ASKING").write_packed_command(&mut self.outbox);
        }
        cmd.write_packed_command(&mut self.outbox);
    }

    /// Sends what is queued.
    pub async fn flush(&mut self) -> Result<()> {
        self.flush_at_once()?;
        let patience = self.address.access.socket_timeout;
        while self.sent < self.outbox.len() {
            let writing = self.transport.write(&self.outbox[self.sent..]);
            let written = timeout(patience, writing).await;
            self.sent += self.in_time(written, patience)?;
        }
        if self.transport.is_unsent() {
            let sent = timeout(patience, self.transport.flush()).await;
            self.in_time(sent, patience)?;
        }
        self.outbox.clear();
        self.sent = 0;
        Ok(())
    }

    /// What [`exchange`](Self::exchange) and [`flush`](Self::flush) will send, to add
    /// to.
    pub(crate) fn outbox(&mut self) -> &mut Vec<u8> {
        if self.sent == self.outbox.len() {
            self.outbox.clear();
            self.sent = 0;
        }
        &mut self.outbox
    }

    /// How many bytes have not been sent.
    pub(crate) fn unsent(&self) -> usize {
        self.outbox.len() - self.sent
    }

    /// Takes the last so many of the bytes back that have not been sent.
    pub(crate) fn take_back(&mut self, bytes: usize) {
        let left = self.outbox.len() - bytes.min(self.unsent());
        self.outbox.truncate(left);
    }

    /// Sends some of what is queued, or receives what comes, whatever can be done
    /// first, so that neither side waits for the other to read.
    pub(crate) async fn exchange(&mut self) -> Result<()> {
        if !self.inbox.is_empty() {
            return Ok(());
        }
        let patience = self.address.access.socket_timeout;
        let bytes = &self.outbox[self.sent..];
        let exchanging = self.transport.exchange(bytes, &mut self.inbox.buffer);
        let exchanged = timeout(patience, exchanging).await;
        let exchanged = self.in_time(exchanged, patience)?;
        self.sent += exchanged.written.unwrap_or(0);
        match exchanged.read {
            Some(0) => Err(self.broken(&io::ErrorKind::UnexpectedEof.into())),
            Some(received) => {
                self.inbox.fill(received);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Bytes that have come and were not consumed, if there are any.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.inbox.buffer[self.inbox.start..self.inbox.end]
    }

    /// An error of bytes that are no reply.
    pub(crate) fn malformed(&self, reason: &str) -> Error {
        Error::Protocol {
            context: self.address.peer(),
            reason: self.address.redact(reason),
        }
    }

    /// Sends what the socket takes at once, which is nearly always everything,
    /// without asking the runtime whether it may.
    pub(crate) fn flush_at_once(&mut self) -> Result<()> {
        if self.sent == self.outbox.len() {
            return Ok(());
        }
        match self.transport.try_write(&self.outbox[self.sent..]) {
            Ok(written) => self.sent += written,
            Err(error) if is_not_now(&error) => {}
            Err(error) => return Err(self.broken(&error)),
        }
        Ok(())
    }

    /// As [`received`](Self::received), for the reply to a short command: looks
    /// for the bytes for a moment before it sleeps.
    pub async fn received_soon(&mut self) -> Result<&[u8]> {
        self.look_out()?;
        self.received().await
    }

    fn look_out(&mut self) -> Result<()> {
        let begun = Instant::now();
        while self.looks_out && self.inbox.is_empty() && begun.elapsed() < PATIENCE {
            match self.fill_at_once()? {
                // The end of the connection is seen again below.
                Filled::AtEnd => break,
                Filled::Some => {}
                // The server may be waiting for this very core.
                Filled::NotNow => std::thread::yield_now(),
            }
        }
        Ok(())
    }

    /// Bytes that have come and were not consumed; none, if none are there now.
    pub fn received_now(&mut self) -> Result<&[u8]> {
        if self.inbox.is_empty() && self.fill_at_once()? == Filled::AtEnd {
            return Err(self.broken(&io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(&self.inbox.buffer[self.inbox.start..self.inbox.end])
    }

    /// Fills the inbox, which is empty, with what is there now.
    fn fill_at_once(&mut self) -> Result<Filled> {
        let received = self.transport.try_read(&mut self.inbox.buffer);
        match received {
            Ok(0) => Ok(Filled::AtEnd),
            Ok(received) => {
                self.inbox.fill(received);
                Ok(Filled::Some)
            }
            Err(error) if is_not_now(&error) => Ok(Filled::NotNow),
            Err(error) => Err(self.broken(&error)),
        }
    }

    /// Bytes that have come and were not consumed; waits for some if there are
    /// none.
    pub async fn received(&mut self) -> Result<&[u8]> {
        self.received_within(self.address.access.socket_timeout)
            .await
    }

    /// As [`received`](Self::received), for the reply to a command that blocks
    /// for as long as `block`, to which a little is added.
    pub async fn received_after_block(&mut self, block: Duration) -> Result<&[u8]> {
        let patience = block + BLOCK_SLACK.min(self.address.access.socket_timeout);
        self.received_within(patience).await
    }

    async fn received_within(&mut self, patience: Duration) -> Result<&[u8]> {
        if self.inbox.is_empty() {
            let reading = self.transport.read(&mut self.inbox.buffer);
            let received = timeout(patience, reading).await;
            let received = self.in_time(received, patience)?;
            if received == 0 {
                return Err(self.broken(&io::ErrorKind::UnexpectedEof.into()));
            }
            self.inbox.fill(received);
        }
        Ok(&self.inbox.buffer[self.inbox.start..self.inbox.end])
    }

    /// Marks the first `len` of the received bytes as consumed.
    pub fn consume(&mut self, len: usize) {
        self.inbox.start = (self.inbox.start + len).min(self.inbox.end);
    }

    /// Runs one control command and waits for its reply, which may be an error
    /// of the server's ([`Value::ServerError`]).
    ///
    /// Unlike the other methods it does not go on where it was cancelled: the
    /// connection [is spoiled](Self::is_spoiled) then.
    pub async fn query(&mut self, cmd: &Cmd) -> Result<Value> {
        Ok(self.query_all(std::slice::from_ref(cmd)).await?.remove(0))
    }

    /// Sends control commands at once and waits for all their replies.
    pub async fn query_all(&mut self, cmds: &[Cmd]) -> Result<Vec<Value>> {
        self.in_query = true;
        cmds.iter().for_each(|cmd| self.queue(cmd));
        self.flush().await?;
        let mut replies = Vec::with_capacity(cmds.len());
        for _ in cmds {
            replies.push(self.reply().await?);
        }
        self.in_query = false;
        Ok(replies)
    }

    /// The next reply, decoded by redis-rs. Must not be cancelled.
    pub(crate) async fn reply(&mut self) -> Result<Value> {
        let mut codec = redis::ValueCodec::default();
        let mut bytes = BytesMut::new();
        self.look_out()?;
        if self.is_asking {
            let line = self.line().await?;
            if let Some(text) = line.strip_prefix('-') {
                return Err(Error::from_reply(
                    self.address.peer(),
                    text,
                    &self.address.access,
                ));
            }
        }
        loop {
            let received = self.received().await?;
            let before = bytes.len();
            bytes.extend_from_slice(received);
            let taken = bytes.len() - before;
            let value = codec.decode(&mut bytes);
            let value = value.map_err(|error| self.malformed(&error.to_string()))?;
            // What the codec left belongs to the next reply.
            let left = if value.is_some() { bytes.len() } else { 0 };
            self.consume(taken - left.min(taken));
            if let Some(value) = value {
                return Ok(value);
            }
        }
    }

    /// The next reply, which is one line. Must not be cancelled.
    async fn line(&mut self) -> Result<String> {
        let mut tokens = Tokenizer::new();
        loop {
            let received = self.received().await?;
            if tokens.is_between_tokens() && !matches!(received.first(), Some(b'+' | b'-')) {
                return Err(self.not_redis());
            }
            let mut input = received;
            let line = match tokens.next(&mut input, Payload::Skip) {
                Ok(Some(Token::Simple(text))) => {
                    Some(format!("+{}", String::from_utf8_lossy(text)))
                }
                Ok(Some(Token::Error(text))) => Some(format!("-{}", String::from_utf8_lossy(text))),
                Ok(None) => None,
                Ok(Some(_)) | Err(_) => return Err(self.not_redis()),
            };
            let taken = received.len() - input.len();
            self.consume(taken);
            if let Some(line) = line {
                return Ok(line);
            }
        }
    }

    fn not_redis(&self) -> Error {
        Error::Protocol {
            context: self.address.peer(),
            reason: "the peer does not answer as Redis does".into(),
        }
    }

    /// What came of I/O that had so long to end.
    fn in_time<T>(&self, result: Result<io::Result<T>, Elapsed>, patience: Duration) -> Result<T> {
        match result {
            Ok(done) => done.map_err(|error| self.broken(&error)),
            Err(_) => Err(self.silent(patience)),
        }
    }

    fn broken(&self, error: &io::Error) -> Error {
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
            _ => format!("the connection broke: {error}"),
        };
        Error::Connection {
            peer: self.address.peer(),
            reason,
            kind: error.kind(),
        }
    }

    /// The error that it is if nothing came for so long.
    pub(crate) fn silent(&self, patience: Duration) -> Error {
        Error::Timeout {
            peer: self.address.peer(),
            reason: format!("the server was silent for {patience:?}"),
        }
    }
}

/// Connects, and gets TLS under way where it is wanted.
async fn connect_transport(address: &Address) -> Result<Transport> {
    let failed = |error: io::Error| Error::Connection {
        peer: address.peer(),
        reason: format!("cannot connect: {error}"),
        kind: error.kind(),
    };
    match &address.endpoint {
        Endpoint::Unix(path) => Transport::of_socket(path).await,
        Endpoint::Tcp { host, port } => {
            let socket = connect_socket(host, *port).await.map_err(failed)?;
            let Some(options) = &address.access.tls else {
                return Ok(Transport::of_tcp(socket, None));
            };
            let begun = Session::begin(&socket, host, options).await;
            let named = |error: io::Error| io::Error::new(error.kind(), format!("TLS: {error}"));
            begun
                .map(|session| Transport::of_tcp(socket, Some(Box::new(session))))
                .map_err(named)
        }
    }
    .map_err(failed)
}

/// Connects to the first of the host's addresses that answers.
async fn connect_socket(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the host name has no address");
    for candidate in lookup_host((host, port)).await? {
        match TcpStream::connect(candidate).await {
            Ok(socket) => {
                prepare(&socket)?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// The server's own words of an error reply.
pub(crate) fn error_text(value: &Value) -> Option<String> {
    let Value::ServerError(error) = value else {
        return None;
    };
    Some(match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    })
}
