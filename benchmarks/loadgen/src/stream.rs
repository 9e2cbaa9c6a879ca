//! A connection: a socket, and TLS over it where the options say so.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use crate::socket::Socket;
use crate::tls::Session;

/// A connection that never blocks. What TLS has encrypted and the socket had no room for waits in
/// it until [`Stream::flush`] is called again.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    session: Option<Box<Session>>,
}

impl Stream {
    /// A connection over a socket, which TLS begins to shake hands on if there is a session.
    pub fn new(socket: Socket, session: Option<Session>) -> Self {
        Self {
            socket,
            session: session.map(Box::new),
        }
    }

    /// Whether the peers have still to agree on their keys.
    pub fn is_handshaking(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.is_handshaking())
    }

    /// Whether something waits for room in the socket.
    pub fn is_flushed(&self) -> bool {
        self.session
            .as_ref()
            .is_none_or(|session| session.is_flushed())
    }

    /// Tells the peer that nothing more will come, where a protocol has words for it.
    pub fn say_goodbye(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            session.say_goodbye();
        }
        self.flush()
    }

    /// Whether the connection is a socket and nothing else.
    pub fn is_plain(&self) -> bool {
        self.session.is_none()
    }

    /// Takes what has come without looking at it. `buffer` limits how much that is.
    pub fn discard(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.session {
            None => self.socket.discard(buffer),
            Some(_) => self.read(buffer),
        }
    }

    /// Sends a part of a file from `offset` on, and moves that. No TLS can be in the way.
    pub fn send_file(&self, file: impl AsFd, offset: &mut u64, count: usize) -> io::Result<usize> {
        if self.session.is_some() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.socket.send_file(file, offset, count)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.session {
            None => self.socket.read(buffer),
            Some(session) => session.read(&mut self.socket, buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.session {
            None => self.socket.write(bytes),
            Some(session) => session.write(&mut self.socket, bytes),
        }
    }

    /// Sends what waits, as far as there is room for it.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.session {
            None => Ok(()),
            Some(session) => session.flush(&mut self.socket),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
