//! The limit: what one thread that does nothing else can serve.
//!
//! Every connection is watched level-triggered. While an answer cannot be sent whole, the
//! connection is watched for room to write only, and nothing more is read from it.

use std::io::{self, Read, Write};
use std::net::UdpSocket;

use crate::address::{Listener, Stream};
use crate::http;
use crate::options::{Mode, Options};
use crate::poller::{Interest, Poller, token};

/// Reads are at most this long; a message of 100 KiB fits.
const READ: usize = 256 * 1024;

const INPUT: usize = usize::MAX;
const LISTENER: usize = usize::MAX - 1;

/// Serves until the standard input closes.
pub fn serve(options: &Options) -> io::Result<()> {
    let listener = options.address.listen()?;
    let poller = Poller::new()?;
    poller.add(&listener, LISTENER, Interest::IN)?;
    // A regular file or /dev/null cannot be watched: then only a signal ends the server.
    let _unwatchable = poller.add(io::stdin(), INPUT, Interest::IN);
    println!("listening {}", listener.address()?);

    let mut connections = Connections::default();
    let mut buffer = vec![0; READ];
    let mut events = Vec::new();
    loop {
        poller.wait(&mut events, None)?;
        for event in &events {
            match token(event) {
                INPUT => {
                    if io::stdin().read(&mut buffer)? == 0 {
                        return Ok(());
                    }
                }
                LISTENER => {
                    let outcome = match &listener {
                        Listener::Udp(socket) => echo_datagrams(socket, &mut buffer),
                        _ => connections.accept_all(&poller, &listener),
                    };
                    match outcome {
                        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                            return Err(error);
                        }
                        _ => {}
                    }
                }
                index => {
                    let Some(connection) = connections.slots[index].as_mut() else {
                        continue;
                    };
                    // A connection that fails is the client's affair: it is dropped.
                    if !connection
                        .turn(&poller, index, options.mode, &mut buffer)
                        .unwrap_or(false)
                    {
                        connections.remove(index);
                    }
                }
            }
        }
    }
}

/// Sends back every datagram that is there; one that does not go is lost, as datagrams are.
fn echo_datagrams(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        let (count, peer) = socket.recv_from(buffer)?;
        socket.send_to(&buffer[..count], peer)?;
    }
}

/// The open connections, each at the index that is its token.
#[derive(Default)]
struct Connections {
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
}

impl Connections {
    /// Accepts until the kernel has no more, which is an error by the name of `WouldBlock`.
    fn accept_all(&mut self, poller: &Poller, listener: &Listener) -> io::Result<()> {
        loop {
            self.insert(poller, listener.accept()?)?;
        }
    }

    fn insert(&mut self, poller: &Poller, stream: Stream) -> io::Result<()> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        poller.add(&stream, index, Interest::IN)?;
        self.slots[index] = Some(Connection {
            stream,
            unsent: Vec::new(),
            head: Vec::new(),
            writing: false,
        });
        Ok(())
    }

    fn remove(&mut self, index: usize) {
        self.slots[index] = None;
        self.free.push(index);
    }
}

struct Connection {
    stream: Stream,
    /// What the socket had no room for.
    unsent: Vec<u8>,
    /// The start of a request whose end has not come yet.
    head: Vec<u8>,
    /// Watched for room to write, not for something to read.
    writing: bool,
}

impl Connection {
    /// Does what can be done now. `false` says that the peer has closed.
    fn turn(
        &mut self,
        poller: &Poller,
        index: usize,
        mode: Mode,
        buffer: &mut [u8],
    ) -> io::Result<bool> {
        if self.writing {
            let unsent = std::mem::take(&mut self.unsent);
            self.send(&unsent)?;
        } else {
            let count = match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            match mode {
                Mode::Echo => self.send(&buffer[..count])?,
                Mode::Http => self.answer(&buffer[..count])?,
            }
        }
        let writing = !self.unsent.is_empty();
        if writing != self.writing {
            let interest = if writing { Interest::OUT } else { Interest::IN };
            poller.modify(&self.stream, index, interest)?;
            self.writing = writing;
        }
        Ok(true)
    }

    /// Answers every request that is complete.
    fn answer(&mut self, received: &[u8]) -> io::Result<()> {
        if self.head.is_empty() && http::head_length(received) == Some(received.len()) {
            return self.send(http::RESPONSE);
        }
        self.head.extend_from_slice(received);
        while let Some(length) = http::head_length(&self.head) {
            self.head.drain(..length);
            self.send(http::RESPONSE)?;
        }
        Ok(())
    }

    /// Sends, and keeps what does not go.
    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.unsent.is_empty() {
            while !bytes.is_empty() {
                match self.stream.write(bytes) {
                    Ok(count) => bytes = &bytes[count..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }
}
