//! The unsafe code of the crate: lending a raw descriptor to a system call, and seeing the bytes
//! that the kernel has written.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::Errno;
use rustix::net::SocketAddrAny;

/// Lends `fd` to `call`, which makes one system call (or repeats it), and returns its result.
///
/// A negative number is `EBADF` without asking the kernel.
pub(crate) fn with_fd<R>(
    fd: RawFd,
    call: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<R>,
) -> io::Result<R> {
    if fd < 0 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: `fd` is not -1. The borrow ends with this call, during which the one thread that
    // owns the descriptors is in here and closes none. Should the number be stale all the same, the
    // kernel answers EBADF, or acts on another descriptor of this process, as it would for any
    // caller of the same function of Python's `os` module; no memory of ours depends on it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(call(borrowed)?)
}

/// Receives into `buf`; see [`crate::socket::recv_uninit`].
pub(crate) fn recv_uninit(
    fd: RawFd,
    buf: &mut [MaybeUninit<u8>],
    flags: rustix::net::RecvFlags,
) -> io::Result<&mut [u8]> {
    let len = with_fd(fd, |fd| {
        rustix::io::retry_on_intr(|| {
            rustix::net::recv(fd, &mut *buf, flags).map(|((written, _), _)| written.len())
        })
    })?;
    // SAFETY: rustix has handed out exactly so many bytes as initialised.
    Ok(unsafe { written(&mut buf[..len]) })
}

/// Reads into `buf`; see [`crate::pipe::read_uninit`].
pub(crate) fn read_uninit(fd: RawFd, buf: &mut [MaybeUninit<u8>]) -> io::Result<&mut [u8]> {
    let len = with_fd(fd, |fd| {
        rustix::io::retry_on_intr(|| {
            rustix::io::read(fd, &mut *buf).map(|(written, _)| written.len())
        })
    })?;
    // SAFETY: rustix has handed out exactly so many bytes as initialised.
    Ok(unsafe { written(&mut buf[..len]) })
}

/// The bytes that a system call has put into the whole of `received`.
///
/// # Safety
/// It has: every byte is initialised.
unsafe fn written(received: &mut [MaybeUninit<u8>]) -> &mut [u8] {
    // SAFETY: the caller's word. `MaybeUninit<u8>` has the layout of `u8`, and the exclusive borrow is passed on.
    unsafe { std::slice::from_raw_parts_mut(received.as_mut_ptr().cast(), received.len()) }
}

/// Receives behind what `buf` holds; see [`crate::socket::recv_append`].
pub(crate) fn recv_append(
    fd: RawFd,
    buf: &mut Vec<u8>,
    most: usize,
    flags: rustix::net::RecvFlags,
) -> io::Result<usize> {
    append(buf, most, |room| {
        recv_uninit(fd, room, flags).map(|received| received.len())
    })
}

/// Reads behind what `buf` holds; see [`crate::pipe::read_append`].
pub(crate) fn read_append(fd: RawFd, buf: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    append(buf, most, |room| {
        read_uninit(fd, room).map(|received| received.len())
    })
}

/// Has `fill`, one of the calls above, initialise spare capacity of `buf` from its beginning on, and takes it in.
fn append(
    buf: &mut Vec<u8>,
    most: usize,
    fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<usize>,
) -> io::Result<usize> {
    buf.reserve(most);
    let filled = fill(&mut buf.spare_capacity_mut()[..most])?;
    // SAFETY: so many bytes of the spare capacity, from its beginning on, have just been initialised.
    unsafe { buf.set_len(buf.len() + filled) }
    Ok(filled)
}

/// The bytes of a socket address that follow its family.
pub(crate) fn after_family(address: &SocketAddrAny) -> &[u8] {
    let length = address.addr_len() as usize;
    // SAFETY: an address is initialised up to its length, and borrowed here for as long as the slice.
    let bytes = unsafe { std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), length) };
    bytes.get(size_of::<u16>()..).unwrap_or_default()
}
