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

/// A connected socket, and what lies over it.
#[derive(Debug)]
pub enum Transport {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Tls(TcpStream, Box<Session>),
}

/// The same, belonging to no runtime.
#[derive(Debug)]
pub enum Idle {
    Tcp(std::net::TcpStream),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixStream),
    Tls(std::net::TcpStream, Box<Session>),
}

impl Transport {
    /// Connects to a Unix socket.
    #[cfg(unix)]
    pub async fn of_socket(path: &str) -> io::Result<Self> {
        UnixStream::connect(path).await.map(Self::Unix)
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
        match self {
            Self::Tcp(socket) => (&*SockRef::from(&*socket)).read(buffer),
            #[cfg(unix)]
            Self::Unix(socket) => (&*SockRef::from(&*socket)).read(buffer),
            Self::Tls(socket, session) => session.read(&SockRef::from(&*socket), buffer),
        }
    }

    /// Reads what is there; waits until something is.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => {
                let read = || (&*SockRef::from(&*socket)).read(buffer);
                socket.async_io(Interest::READABLE, read).await
            }
            #[cfg(unix)]
            Self::Unix(socket) => {
                let read = || (&*SockRef::from(&*socket)).read(buffer);
                socket.async_io(Interest::READABLE, read).await
            }
            Self::Tls(socket, session) => {
                let read = || session.read(&SockRef::from(&*socket), buffer);
                socket.async_io(Interest::READABLE, read).await
            }
        }
    }

    /// Writes what the socket takes at once; how many bytes were taken.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if it takes nothing.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => (&*SockRef::from(&*socket)).write(bytes),
            #[cfg(unix)]
            Self::Unix(socket) => (&*SockRef::from(&*socket)).write(bytes),
            Self::Tls(socket, session) => session.write(&SockRef::from(&*socket), bytes),
        }
    }

    /// Writes some bytes; how many were taken.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => {
                let write = || (&*SockRef::from(&*socket)).write(bytes);
                socket.async_io(Interest::WRITABLE, write).await
            }
            #[cfg(unix)]
            Self::Unix(socket) => {
                let write = || (&*SockRef::from(&*socket)).write(bytes);
                socket.async_io(Interest::WRITABLE, write).await
            }
            Self::Tls(socket, session) => {
                let write = || session.write(&SockRef::from(&*socket), bytes);
                socket.async_io(Interest::WRITABLE, write).await
            }
        }
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
            self.ready(interest).await?;
        }
    }

    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Tcp(socket) | Self::Tls(socket, _) => socket.ready(interest).await,
            #[cfg(unix)]
            Self::Unix(socket) => socket.ready(interest).await,
        }
    }

    fn try_read_ready(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => {
                let read = || (&*SockRef::from(&*socket)).read(buffer);
                socket.try_io(Interest::READABLE, read)
            }
            #[cfg(unix)]
            Self::Unix(socket) => {
                let read = || (&*SockRef::from(&*socket)).read(buffer);
                socket.try_io(Interest::READABLE, read)
            }
            Self::Tls(socket, session) => {
                let read = || session.read(&SockRef::from(&*socket), buffer);
                socket.try_io(Interest::READABLE, read)
            }
        }
    }

    fn try_write_ready(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => {
                let write = || (&*SockRef::from(&*socket)).write(bytes);
                socket.try_io(Interest::WRITABLE, write)
            }
            #[cfg(unix)]
            Self::Unix(socket) => {
                let write = || (&*SockRef::from(&*socket)).write(bytes);
                socket.try_io(Interest::WRITABLE, write)
            }
            Self::Tls(socket, session) => {
                let write = || session.write(&SockRef::from(&*socket), bytes);
                socket.try_io(Interest::WRITABLE, write)
            }
        }
    }

    /// Whether bytes that were taken have not been sent.
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Tls(_, session) => session.is_unsent(),
            _ => false,
        }
    }

    /// Sends what was taken and not sent.
    pub async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(socket, session) => {
                let send = || session.send(&SockRef::from(&*socket));
                socket.async_io(Interest::WRITABLE, send).await
            }
            _ => Ok(()),
        }
    }

    /// Takes it out of its runtime.
    pub fn into_idle(self) -> io::Result<Idle> {
        Ok(match self {
            Self::Tcp(socket) => Idle::Tcp(socket.into_std()?),
            #[cfg(unix)]
            Self::Unix(socket) => Idle::Unix(socket.into_std()?),
            Self::Tls(socket, session) => Idle::Tls(socket.into_std()?, session),
        })
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
        Ok(match self {
            Self::Tcp(socket) => Transport::Tcp(TcpStream::from_std(socket)?),
            #[cfg(unix)]
            Self::Unix(socket) => Transport::Unix(UnixStream::from_std(socket)?),
            Self::Tls(socket, session) => Transport::Tls(TcpStream::from_std(socket)?, session),
        })
    }

    /// Whether the peer has neither closed the connection nor sent what nobody
    /// asked for.
    pub fn is_quiet(&self) -> bool {
        let socket = match self {
            Self::Tcp(socket) | Self::Tls(socket, _) => SockRef::from(socket),
            #[cfg(unix)]
            Self::Unix(socket) => SockRef::from(socket),
        };
        match socket.peek(&mut [std::mem::MaybeUninit::uninit()]) {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}
