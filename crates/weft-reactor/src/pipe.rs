//! Reading and writing what is no socket, or need not be one: pipes, FIFOs, terminals.
//!
//! The calls act on borrowed descriptors, which are made non-blocking first ([`set_nonblocking`]): "not now" is
//! `ErrorKind::WouldBlock`. All are repeated when a signal interrupts them. A process that has not left `SIGPIPE` to
//! be ignored, as Python does, gets that signal where nobody can read any more.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use rustix::fs::FileType;
use rustix::io::retry_on_intr;

use crate::socket::MOST_SLICES;
use crate::sys::{self, with_fd};

/// What a descriptor that can be waited for refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A pipe or a FIFO.
    Pipe,
    /// A socket.
    Socket,
    /// A terminal or another character device.
    CharacterDevice,
}

/// What `fd` refers to; `None` where it is nothing that can be waited for, a regular file for one.
pub fn kind(fd: RawFd) -> io::Result<Option<Kind>> {
    let mode = with_fd(fd, |fd| rustix::fs::fstat(fd))?.st_mode;
    Ok(match FileType::from_raw_mode(mode) {
        FileType::Fifo => Some(Kind::Pipe),
        FileType::Socket => Some(Kind::Socket),
        FileType::CharacterDevice => Some(Kind::CharacterDevice),
        _ => None,
    })
}

/// Makes reading and writing report "not now" instead of waiting, for everybody who shares the open file.
pub fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    with_fd(fd, |fd| rustix::io::ioctl_fionbio(fd, true))
}

/// Reads into `buf`; 0 is the end (or an empty buffer).
pub fn read(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    with_fd(fd, |fd| retry_on_intr(|| rustix::io::read(fd, &mut *buf)))
}

/// Reads into memory that need not be initialised, and returns the part that now is; empty at the end.
pub fn read_uninit(fd: RawFd, buf: &mut [MaybeUninit<u8>]) -> io::Result<&mut [u8]> {
    sys::read_uninit(fd, buf)
}

/// Reads at most `most` bytes behind what `buf` holds, and returns how many it has got; 0 is the end.
pub fn read_append(fd: RawFd, buf: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    sys::read_append(fd, buf, most)
}

/// Writes what there is room for of `buf`, and returns how many bytes that were.
pub fn write(fd: RawFd, buf: &[u8]) -> io::Result<usize> {
    with_fd(fd, |fd| retry_on_intr(|| rustix::io::write(fd, buf)))
}

/// Writes what there is room for of `bufs`, and returns how many bytes that were. Slices beyond [`MOST_SLICES`] are
/// left for the next call.
pub fn write_vectored(fd: RawFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let bufs = &bufs[..bufs.len().min(MOST_SLICES)];
    with_fd(fd, |fd| retry_on_intr(|| rustix::io::writev(fd, bufs)))
}

#[cfg(test)]
mod tests;
