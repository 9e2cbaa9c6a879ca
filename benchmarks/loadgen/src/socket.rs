//! Sockets that never block, of any of the families.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::sendfile;
use rustix::net::{RecvFlags, recv};

/// A connected socket that never blocks.
#[derive(Debug)]
pub enum Socket {
    /// Of TCP, with Nagle's algorithm off.
    Tcp(TcpStream),
    /// Of UDP, connected: each message is one datagram.
    Udp(UdpSocket),
    /// Of the Unix domain.
    Unix(UnixStream),
}

impl Socket {
    /// Of a connection that TCP has made.
    pub fn from_tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    /// A datagram socket that only `address` can send to.
    pub fn udp(address: SocketAddr) -> io::Result<Self> {
        let unspecified = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(unspecified)?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self::Udp(socket))
    }

    /// Of a connection in the Unix domain.
    pub fn from_unix(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::Unix(stream))
    }

    /// Takes what has come without looking at it, which with TCP costs no copy. The length of
    /// `buffer` limits it.
    pub fn discard(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => Ok(recv(stream, buffer, RecvFlags::TRUNC)?.1),
            Self::Udp(_) | Self::Unix(_) => self.read(buffer),
        }
    }

    /// Sends a part of a file from `offset` on, and moves that.
    pub fn send_file(&self, file: impl AsFd, offset: &mut u64, count: usize) -> io::Result<usize> {
        Ok(sendfile(self, file, Some(offset), count)?)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Udp(socket) => socket.recv(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Udp(socket) => socket.send(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    // What TLS relies on: the one that `Write` has would send a single record at a time.
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(parts),
            Self::Udp(_) => Err(io::ErrorKind::Unsupported.into()),
            Self::Unix(stream) => stream.write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
