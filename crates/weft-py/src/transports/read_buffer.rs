//! What has arrived and has not been read.

use std::cell::RefCell;
use std::io;
use std::os::fd::RawFd;

use weft_reactor::{pipe, socket};

/// A buffer that has been emptied keeps at most so much memory for what comes next …
const KEPT: usize = 4 * 1024;
/// … and gives more to whichever buffer of its thread needs it next, up to so many bytes in all: idle connections hold
/// none, and busy ones do not have the system map and clear new memory for each large message.
const MOST_SPARE: usize = 4 * 1024 * 1024;

thread_local! {
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare { memory: Vec::new(), size: 0 }) };
}

/// Memory that buffers have given away; empty vectors, `size` bytes in all.
struct Spare {
    memory: Vec<Vec<u8>>,
    size: usize,
}

/// Gives memory away.
fn give(mut bytes: Vec<u8>) {
    bytes.clear();
    // A thread that ends has no use for it.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.size + bytes.capacity() <= MOST_SPARE {
            spare.size += bytes.capacity();
            spare.memory.push(bytes);
        }
    });
}

/// Takes what was given last; no memory where there is none.
fn take() -> Vec<u8> {
    let taken = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        let bytes = spare.memory.pop().unwrap_or_default();
        spare.size -= bytes.capacity();
        bytes
    });
    taken.unwrap_or_default()
}

/// Bytes in the order of their arrival, taken from the front.
///
/// Invariant: `start` is at most the length of `bytes`. What is before it has been read.
#[derive(Debug, Default)]
pub struct ReadBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl ReadBuffer {
    /// What is unread.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many bytes are unread.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Appends `data`.
    #[inline]
    pub fn extend(&mut self, data: &[u8]) {
        self.make_room(data.len());
        self.bytes.extend_from_slice(data);
    }

    /// Receives at most `most` bytes; 0 is the end of the stream.
    ///
    /// # Errors
    /// What the system call reports, `WouldBlock` included.
    pub fn receive(&mut self, fd: RawFd, most: usize) -> io::Result<usize> {
        self.make_room(most);
        socket::recv_append(fd, &mut self.bytes, most)
    }

    /// Reads at most `most` bytes from what need not be a socket; 0 is the end.
    ///
    /// # Errors
    /// What the system call reports, `WouldBlock` included.
    pub fn read(&mut self, fd: RawFd, most: usize) -> io::Result<usize> {
        self.make_room(most);
        pipe::read_append(fd, &mut self.bytes, most)
    }

    /// Drops the first `count` bytes, or all where there are fewer.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        self.start += count.min(self.len());
        if self.start == self.bytes.len() {
            self.start = 0;
            if self.bytes.capacity() > KEPT {
                give(std::mem::take(&mut self.bytes));
            } else {
                self.bytes.clear();
            }
        }
    }

    /// Moves what is unread to the front where `additional` bytes do not fit behind it. It moves only what is at most as
    /// long as what has been read, so that a byte is moved once on average; else the memory grows.
    #[inline]
    fn make_room(&mut self, additional: usize) {
        if self.bytes.capacity() == 0 && additional > KEPT {
            self.bytes = take();
        }
        if self.bytes.capacity() - self.bytes.len() < additional && self.start >= self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}
