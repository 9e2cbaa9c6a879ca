//! Socket calls on borrowed descriptors. None of them blocks, none raises `SIGPIPE`, all are
//! repeated when a signal interrupts them; "not now" is `ErrorKind::WouldBlock`.
//!
//! Receiving and sending do not block even if the descriptor does: a program may share the open file
//! with a duplicate that it has set to blocking, and that must not stop the loop.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{OwnedFd, RawFd};

use rustix::io::retry_on_intr;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny,
    SocketFlags,
};

use crate::sys::{self, with_fd};

const RECEIVE: RecvFlags = RecvFlags::DONTWAIT;
const SEND: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

/// How many slices the kernel takes in one call (`IOV_MAX`).
pub const MOST_SLICES: usize = 1024;

/// Receives into `buf`; 0 is the end of the stream (or an empty buffer).
pub fn recv(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    with_fd(fd, |fd| {
        retry_on_intr(|| net::recv(fd, &mut *buf, RECEIVE).map(|(received, _)| received))
    })
}

/// Receives into memory that need not be initialised, and returns the part that now is; empty at the
/// end of the stream.
pub fn recv_uninit(fd: RawFd, buf: &mut [MaybeUninit<u8>]) -> io::Result<&mut [u8]> {
    sys::recv_uninit(fd, buf, RECEIVE)
}

/// Receives at most `most` bytes behind what `buf` holds, and returns how many it has got; 0 is the end
/// of the stream.
pub fn recv_append(fd: RawFd, buf: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    sys::recv_append(fd, buf, most, RECEIVE)
}

/// Whether a receive would bring something, be it the end of the stream or an error (which is returned, and taken from
/// the socket as the receive would have).
pub fn is_readable(fd: RawFd) -> io::Result<bool> {
    let peek = RECEIVE.union(RecvFlags::PEEK);
    match with_fd(fd, |fd| {
        retry_on_intr(|| net::recv(fd, &mut [0_u8; 1], peek))
    }) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends what the socket takes of `buf`, and returns how many bytes that were.
pub fn send(fd: RawFd, buf: &[u8]) -> io::Result<usize> {
    with_fd(fd, |fd| retry_on_intr(|| net::send(fd, buf, SEND)))
}

/// Sends what the socket takes of `bufs`, and returns how many bytes that were. Slices beyond
/// [`MOST_SLICES`] are left for the next call.
pub fn send_vectored(fd: RawFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let bufs = &bufs[..bufs.len().min(MOST_SLICES)];
    with_fd(fd, |fd| {
        retry_on_intr(|| net::sendmsg(fd, bufs, &mut SendAncillaryBuffer::default(), SEND))
    })
}

/// Who sent a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A socket without a name, or the peer of a connection.
    Unnamed,
    /// A socket of IPv4 or IPv6.
    Inet(SocketAddr),
    /// A Unix socket: the bytes of its name, up to the kernel's idea of its length. The first one of
    /// an abstract name is 0; a path may end in one.
    Unix(Vec<u8>),
    /// A socket of another family.
    Other,
}

impl Sender {
    fn of(address: Option<&SocketAddrAny>) -> Self {
        let Some(address) = address else {
            return Self::Unnamed;
        };
        match address.address_family() {
            AddressFamily::INET => SocketAddrV4::try_from(address.clone())
                .map_or(Self::Other, |address| Self::Inet(address.into())),
            AddressFamily::INET6 => SocketAddrV6::try_from(address.clone())
                .map_or(Self::Other, |address| Self::Inet(address.into())),
            AddressFamily::UNIX => Self::Unix(sys::after_family(address).to_vec()),
            AddressFamily::UNSPEC => Self::Unnamed,
            _ => Self::Other,
        }
    }
}

/// Receives one datagram into `buf`, which it is cut to; its length may be 0.
pub fn recv_from(fd: RawFd, buf: &mut [u8]) -> io::Result<(usize, Sender)> {
    with_fd(fd, |fd| {
        retry_on_intr(|| {
            net::recvfrom(fd, &mut *buf, RECEIVE)
                .map(|(received, _, address)| (received, Sender::of(address.as_ref())))
        })
    })
}

/// Sends `buf` as one datagram to `address`.
pub fn send_to(fd: RawFd, buf: &[u8], address: &SocketAddr) -> io::Result<usize> {
    with_fd(fd, |fd| {
        retry_on_intr(|| net::sendto(fd, buf, SEND, address))
    })
}

/// Accepts one connection, non-blocking and close-on-exec from the start, and says whose it is. The listening
/// descriptor itself must be non-blocking, or this waits for a client.
pub fn accept(fd: RawFd) -> io::Result<(OwnedFd, Sender)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    with_fd(fd, |fd| {
        retry_on_intr(|| {
            net::acceptfrom_with(fd, flags)
                .map(|(connection, peer)| (connection, Sender::of(peer.as_ref())))
        })
    })
}

/// The address that a socket is bound to.
pub fn local_name(fd: RawFd) -> io::Result<Sender> {
    with_fd(fd, |fd| {
        net::getsockname(fd).map(|address| Sender::of(Some(&address)))
    })
}

/// The address that a socket is connected to.
pub fn peer_name(fd: RawFd) -> io::Result<Sender> {
    with_fd(fd, |fd| {
        let address = net::getpeername(fd)?;
        Ok(address.map_or(Sender::Unix(Vec::new()), |address| {
            Sender::of(Some(&address))
        }))
    })
}

/// Has the kernel send what is written at once, however little it is (`TCP_NODELAY`).
pub fn set_nodelay(fd: RawFd) -> io::Result<()> {
    with_fd(fd, |fd| net::sockopt::set_tcp_nodelay(fd, true))
}

/// Says to the peer that nothing more will be sent.
pub fn shutdown_write(fd: RawFd) -> io::Result<()> {
    with_fd(fd, |fd| {
        retry_on_intr(|| net::shutdown(fd, Shutdown::Write))
    })
}

/// Takes the socket's pending error (`SO_ERROR`), which is how a connection attempt ends: without
/// one, it has succeeded. The outer error is that of asking.
pub fn take_error(fd: RawFd) -> io::Result<Option<io::Error>> {
    let pending = with_fd(fd, |fd| retry_on_intr(|| net::sockopt::socket_error(fd)))?;
    Ok(pending.err().map(io::Error::from))
}

#[cfg(test)]
mod tests;
