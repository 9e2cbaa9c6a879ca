//! Addresses and listeners, of TCP, of UDP and of Unix sockets alike.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;

use crate::socket::Socket;

/// `tcp:HOST:PORT`, `udp:HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port; port 0 lets the kernel choose when listening.
    Tcp(SocketAddr),
    /// The same for datagrams.
    Udp(SocketAddr),
    /// A path in the file system.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("tcp:") {
            return rest
                .parse()
                .map(Self::Tcp)
                .map_err(|error| format!("{rest}: {error}"));
        }
        if let Some(rest) = text.strip_prefix("udp:") {
            return rest
                .parse()
                .map(Self::Udp)
                .map_err(|error| format!("{rest}: {error}"));
        }
        match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => Err(format!(
                "{text} is none of tcp:HOST:PORT, udp:HOST:PORT and unix:PATH"
            )),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Opens a listener that does not block.
    pub fn listen(&self) -> io::Result<Listener> {
        match self {
            Self::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Listener::Tcp(listener))
            }
            Self::Udp(address) => {
                let socket = UdpSocket::bind(address)?;
                socket.set_nonblocking(true)?;
                Ok(Listener::Udp(socket))
            }
            Self::Unix(path) => {
                let listener = UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                Ok(Listener::Unix(listener))
            }
        }
    }

    /// Connects, waiting for it, and returns a socket that does not block.
    pub fn connect(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(address) => Socket::from_tcp(TcpStream::connect(address)?),
            Self::Udp(address) => Socket::udp(*address),
            Self::Unix(path) => Socket::from_unix(UnixStream::connect(path)?),
        }
    }
}

/// A socket that accepts connections, or gets everybody's datagrams.
#[derive(Debug)]
pub enum Listener {
    /// Of TCP.
    Tcp(TcpListener),
    /// Of UDP, which has no connections to accept.
    Udp(UdpSocket),
    /// Of the Unix domain.
    Unix(UnixListener),
}

impl Listener {
    /// The next connection, or `WouldBlock`.
    pub fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => Socket::from_tcp(listener.accept()?.0),
            Self::Udp(_) => Err(io::ErrorKind::Unsupported.into()),
            Self::Unix(listener) => Socket::from_unix(listener.accept()?.0),
        }
    }

    /// The address that was bound, with the port that the kernel chose.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Udp(socket) => socket.local_addr().map(Address::Udp),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address
                    .as_pathname()
                    .ok_or(io::ErrorKind::AddrNotAvailable)?;
                Ok(Address::Unix(path.to_owned()))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_a_round_trip() {
        for text in [
            "tcp:127.0.0.1:8080",
            "tcp:[::1]:1",
            "udp:127.0.0.1:53",
            "unix:/run/x y.sock",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "127.0.0.1:80",
            "tcp:localhost",
            "unix:",
            "udp:localhost",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_listener_tells_its_port() {
        let listener = "tcp:127.0.0.1:0"
            .parse::<Address>()
            .unwrap()
            .listen()
            .unwrap();
        let address = listener.address().unwrap();
        assert!(matches!(address, Address::Tcp(bound) if bound.port() != 0));
        let _client = address.connect().unwrap();
        assert!(listener.accept().is_ok());
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }
}
