//! What has been written but not sent.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::RawFd;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyBytesMethods};
use weft_reactor::{pipe, socket};

use crate::ffi::Reference;
use crate::ffi::bytes::contents;

/// A piece of data to send.
#[derive(Debug)]
enum Piece {
    /// `bytes`, which nobody can change, from an offset on.
    Shared(Reference, usize),
    /// A copy of something that could change, from an offset on.
    Copied(Box<[u8]>, usize),
}

impl Piece {
    fn remaining<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match self {
            Self::Shared(bytes, offset) => &contents(bytes.bind(py))[*offset..],
            Self::Copied(data, offset) => &data[*offset..],
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Shared(_, offset) | Self::Copied(_, offset) => *offset += count,
        }
    }
}

/// A queue of pieces, sent in order. No piece is empty.
#[derive(Debug, Default)]
pub struct WriteBuffer {
    pieces: VecDeque<Piece>,
    size: usize,
}

impl WriteBuffer {
    /// The number of bytes that wait.
    pub fn len(&self) -> usize {
        self.size
    }

    /// Whether everything has been sent.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Whether one system call can take another piece beside all those that wait.
    pub fn fits_one_call(&self) -> bool {
        self.pieces.len() < socket::MOST_SLICES
    }

    /// Appends `bytes` from `offset` on, by reference.
    pub fn push_shared(&mut self, bytes: Bound<'_, PyBytes>, offset: usize) {
        let length = bytes.as_bytes().len() - offset;
        if length > 0 {
            self.size += length;
            self.pieces
                .push_back(Piece::Shared(bytes.into_any().into(), offset));
        }
    }

    /// Appends a copy of `data`.
    pub fn push_copy(&mut self, data: &[u8]) {
        if !data.is_empty() {
            self.size += data.len();
            self.pieces.push_back(Piece::Copied(data.into(), 0));
        }
    }

    /// Takes everything out; the caller drops it after its borrow has ended.
    #[must_use]
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Sends what one system call takes. Returns what was sent whole, to be dropped after the borrow has ended.
    ///
    /// # Errors
    /// What the call reports, `WouldBlock` included.
    pub fn send(&mut self, py: Python<'_>, fd: RawFd) -> io::Result<Self> {
        self.send_by(py, |slices| match slices {
            [single] => socket::send(fd, single),
            several => socket::send_vectored(fd, several),
        })
    }

    /// Writes what one system call takes to what need not be a socket, as [`send`](Self::send).
    ///
    /// # Errors
    /// What the call reports, `WouldBlock` included.
    pub fn write(&mut self, py: Python<'_>, fd: RawFd) -> io::Result<Self> {
        self.send_by(py, |slices| match slices {
            [single] => pipe::write(fd, single),
            several => pipe::write_vectored(fd, several),
        })
    }

    fn send_by(
        &mut self,
        py: Python<'_>,
        call: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<Self> {
        let mut sent = {
            let slices: Vec<_> = self
                .pieces
                .iter()
                .take(socket::MOST_SLICES)
                .map(|piece| IoSlice::new(piece.remaining(py)))
                .collect();
            call(&slices)?
        };
        self.size -= sent;
        let mut done = Self::default();
        while sent > 0 {
            let Some(first) = self.pieces.front_mut() else {
                break;
            };
            let length = first.remaining(py).len();
            if sent < length {
                first.advance(sent);
                break;
            }
            sent -= length;
            done.pieces.extend(self.pieces.pop_front());
        }
        Ok(done)
    }
}
