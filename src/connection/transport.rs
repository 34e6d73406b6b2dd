//! A stream of bytes to a server: over TCP, a Unix socket, or TLS.
//!
//! What was received or sent so far is kept here, so that a future of
//! [`read`](Transport::read) or [`flush`](Transport::flush) may be dropped.

use std::io::{self, Read, Write};

use socket2::SockRef;
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::tls::Session;

/// A connected socket.
#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// The same, belonging to no runtime.
#[derive(Debug)]
enum IdleSocket {
    Tcp(std::net::TcpStream),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixStream),
}

/// A connected socket, and what lies over it.
#[derive(Debug)]
pub struct Transport {
    socket: Socket,
    session: Option<Box<Session>>,
}

/// The same, belonging to no runtime.
#[derive(Debug)]
pub struct Idle {
    socket: IdleSocket,
    session: Option<Box<Session>>,
}

impl Socket {
    fn raw(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(socket) => SockRef::from(socket),
            #[cfg(unix)]
            Self::Unix(socket) => SockRef::from(socket),
        }
    }

    /// Does something as soon as the socket is ready for it.
    async fn when<T>(
        &self,
        interest: Interest,
        act: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        match self {
            Self::Tcp(socket) => socket.async_io(interest, act).await,
            #[cfg(unix)]
            Self::Unix(socket) => socket.async_io(interest, act).await,
        }
    }

    /// Does something if the socket is thought to be ready for it.
    fn now<T>(&self, interest: Interest, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Tcp(socket) => socket.try_io(interest, act),
            #[cfg(unix)]
            Self::Unix(socket) => socket.try_io(interest, act),
        }
    }

    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Tcp(socket) => socket.ready(interest).await,
            #[cfg(unix)]
            Self::Unix(socket) => socket.ready(interest).await,
        }
    }

    fn into_idle(self) -> io::Result<IdleSocket> {
        Ok(match self {
            Self::Tcp(socket) => IdleSocket::Tcp(socket.into_std()?),
            #[cfg(unix)]
            Self::Unix(socket) => IdleSocket::Unix(socket.into_std()?),
        })
    }
}

impl IdleSocket {
    fn raw(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(socket) => SockRef::from(socket),
            #[cfg(unix)]
            Self::Unix(socket) => SockRef::from(socket),
        }
    }

    fn into_socket(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(socket) => Socket::Tcp(TcpStream::from_std(socket)?),
            #[cfg(unix)]
            Self::Unix(socket) => Socket::Unix(UnixStream::from_std(socket)?),
        })
    }
}

fn read_now(
    socket: &Socket,
    session: &mut Option<Box<Session>>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    match session {
        None => (&*socket.raw()).read(buffer),
        Some(session) => session.read(&socket.raw(), buffer),
    }
}

fn write_now(
    socket: &Socket,
    session: &mut Option<Box<Session>>,
    bytes: &[u8],
) -> io::Result<usize> {
    match session {
        None => (&*socket.raw()).write(bytes),
        Some(session) => session.write(&socket.raw(), bytes),
    }
}

impl Transport {
    /// Over TCP.
    pub fn of_tcp(socket: TcpStream, session: Option<Box<Session>>) -> Self {
        let socket = Socket::Tcp(socket);
        Self { socket, session }
    }

    /// Connects to a Unix socket.
    #[cfg(unix)]
    pub async fn of_socket(path: &str) -> io::Result<Self> {
        let socket = Socket::Unix(UnixStream::connect(path).await?);
        let session = None;
        Ok(Self { socket, session })
    }

    /// There are none: no URL names one.
    #[cfg(not(unix))]
    pub async fn of_socket(_: &str) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Reads what is there, without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if nothing is.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_now(&self.socket, &mut self.session, buffer)
    }

    /// Reads what is there; waits until something is.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { socket, session } = self;
        let read = || read_now(socket, session, buffer);
        socket.when(Interest::READABLE, read).await
    }

    /// Writes what the socket takes at once; how many bytes were taken.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if it takes nothing.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_now(&self.socket, &mut self.session, bytes)
    }

    /// Writes some bytes; how many were taken.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { socket, session } = self;
        let write = || write_now(socket, session, bytes);
        socket.when(Interest::WRITABLE, write).await
    }

    /// Writes some bytes, or reads what is there, or both: whatever can be done first;
    /// waits until something can.
    pub async fn exchange(&mut self, bytes: &[u8], buffer: &mut [u8]) -> io::Result<Exchanged> {
        let wants_to_write = !bytes.is_empty() || self.is_unsent();
        let interest = match wants_to_write {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        loop {
            let mut read = or_not_now(self.try_read_ready(buffer))?;
            let written = match wants_to_write {
                true => or_not_now(self.try_write_ready(bytes)),
                false => Ok(None),
            };
            if written.is_err() && read.is_none() {
                // What came before the peer went away is there all the same.
                read = self.try_read(buffer).ok().filter(|&read| read > 0);
            }
            if read.is_some() {
                let written = written.unwrap_or(None);
                return Ok(Exchanged { written, read });
            }
            let written = written?;
            if written.is_some() {
                return Ok(Exchanged { written, read });
            }
            self.socket.ready(interest).await?;
        }
    }

    fn try_read_ready(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { socket, session } = self;
        let read = || read_now(socket, session, buffer);
        socket.now(Interest::READABLE, read)
    }

    fn try_write_ready(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { socket, session } = self;
        let write = || write_now(socket, session, bytes);
        socket.now(Interest::WRITABLE, write)
    }

    /// Whether bytes that were taken have not been sent.
    pub fn is_unsent(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.is_unsent())
    }

    /// Sends what was taken and not sent.
    pub async fn flush(&mut self) -> io::Result<()> {
        let Self { socket, session } = self;
        let Some(session) = session else {
            return Ok(());
        };
        let send = || session.send(&socket.raw());
        socket.when(Interest::WRITABLE, send).await
    }

    /// Takes it out of its runtime.
    pub fn into_idle(self) -> io::Result<Idle> {
        let (socket, session) = (self.socket.into_idle()?, self.session);
        Ok(Idle { socket, session })
    }
}

/// What [`Transport::exchange`] came to; nothing, where a side was not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchanged {
    pub written: Option<usize>,
    pub read: Option<usize>,
}

/// Nothing, of what would have had to wait.
fn or_not_now(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_not_now(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a socket that does not block would have to.
pub fn is_not_now(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted)
}

impl Idle {
    /// Puts it into the runtime at hand.
    pub fn into_transport(self) -> io::Result<Transport> {
        let (socket, session) = (self.socket.into_socket()?, self.session);
        Ok(Transport { socket, session })
    }

    /// Whether the peer has neither closed the connection nor sent what nobody
    /// asked for.
    pub fn is_quiet(&self) -> bool {
        let socket = self.socket.raw();
        match socket.peek(&mut [std::mem::MaybeUninit::uninit()]) {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}
