use std::fs::File;
use std::io::{ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::*;

fn pipe() -> (OwnedFd, OwnedFd) {
    let (reading, writing) = rustix::pipe::pipe().expect("a pipe");
    set_nonblocking(reading.as_raw_fd()).expect("non-blocking");
    set_nonblocking(writing.as_raw_fd()).expect("non-blocking");
    (reading, writing)
}

#[test]
fn kinds() {
    let (reading, writing) = pipe();
    assert_eq!(kind(reading.as_raw_fd()).unwrap(), Some(Kind::Pipe));
    assert_eq!(kind(writing.as_raw_fd()).unwrap(), Some(Kind::Pipe));
    let (socket, _peer) = UnixStream::pair().unwrap();
    assert_eq!(kind(socket.as_raw_fd()).unwrap(), Some(Kind::Socket));
    let null = File::open("/dev/null").unwrap();
    assert_eq!(kind(null.as_raw_fd()).unwrap(), Some(Kind::CharacterDevice));
    let file = File::open("/proc/self/exe").unwrap();
    assert_eq!(kind(file.as_raw_fd()).unwrap(), None);
    assert!(kind(-1).is_err());
}

#[test]
fn what_is_written_is_read() {
    let (reading, writing) = pipe();
    let (reading, writing) = (reading.as_raw_fd(), writing.as_raw_fd());
    let nothing = read(reading, &mut [0; 4]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    assert_eq!(write(writing, b"one").unwrap(), 3);
    let pieces = [
        IoSlice::new(b" two"),
        IoSlice::new(b""),
        IoSlice::new(b" three"),
    ];
    assert_eq!(write_vectored(writing, &pieces).unwrap(), 10);
    let mut start = [0; 3];
    assert_eq!(read(reading, &mut start).unwrap(), 3);
    assert_eq!(&start, b"one");
    let mut memory = [MaybeUninit::uninit(); 4];
    assert_eq!(read_uninit(reading, &mut memory).unwrap(), b" two");
    let mut all = b"rest:".to_vec();
    assert_eq!(read_append(reading, &mut all, 100).unwrap(), 6);
    assert_eq!(all, b"rest: three");
}

#[test]
fn more_slices_than_one_call_takes() {
    let (reading, writing) = pipe();
    let pieces = vec![IoSlice::new(b"x"); MOST_SLICES + 10];
    let written = write_vectored(writing.as_raw_fd(), &pieces).unwrap();
    assert_eq!(written, MOST_SLICES);
    let mut all = Vec::new();
    assert_eq!(
        read_append(reading.as_raw_fd(), &mut all, 1 << 16).unwrap(),
        MOST_SLICES
    );
}

#[test]
fn a_full_pipe_and_its_ends() {
    let (reading, writing) = pipe();
    let block = vec![b'x'; 1 << 20];
    let taken = write(writing.as_raw_fd(), &block).unwrap();
    assert!(taken < block.len());
    let full = write(writing.as_raw_fd(), &block).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    drop(writing);
    let mut all = Vec::new();
    while read_append(reading.as_raw_fd(), &mut all, 1 << 20).unwrap() > 0 {}
    assert_eq!(all.len(), taken);
    assert_eq!(read(reading.as_raw_fd(), &mut [0; 1]).unwrap(), 0);

    let (reading, writing) = pipe();
    drop(reading);
    // Rust's runtime ignores SIGPIPE, as Python's does.
    let broken = write(writing.as_raw_fd(), b"x").unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::BrokenPipe);
}
