//! The limit: what one thread that does nothing else can serve.
//!
//! Every connection is watched level-triggered. While an answer cannot be sent whole, the
//! connection is watched for room to write only, and nothing more is read from it.

mod connection;

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::UdpSocket;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::address::Listener;
use crate::options::{Mode, Options};
use crate::poller::{Interest, Poller, token};
use crate::stream::Stream;
use crate::tls::Tls;
use connection::Connection;

/// Reads are at most this long; a message of 100 KiB fits.
const READ: usize = 256 * 1024;

/// What a source sends at once, and the length of a file that is sent.
const CHUNK: usize = 64 * 1024 * 1024;

const INPUT: usize = usize::MAX;
const LISTENER: usize = usize::MAX - 1;

/// Serves until the standard input closes.
pub fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let listener = options.address.listen()?;
    let poller = Poller::new()?;
    poller.add(&listener, LISTENER, Interest::IN)?;
    // A regular file or /dev/null cannot be watched: then only a signal ends the server.
    let _unwatchable = poller.add(io::stdin(), INPUT, Interest::IN);
    let mut service = Service::new(options)?;
    println!("listening {}", listener.address()?);

    let mut connections = Connections::default();
    let mut events = Vec::new();
    loop {
        poller.wait(&mut events, None)?;
        for event in &events {
            match token(event) {
                INPUT => {
                    if io::stdin().read(&mut service.buffer)? == 0 {
                        return Ok(());
                    }
                }
                LISTENER => {
                    let outcome = match &listener {
                        Listener::Udp(socket) => echo_datagrams(socket, &mut service.buffer),
                        _ => connections.accept_all(&poller, &listener, &mut service),
                    };
                    match outcome {
                        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                            return Err(error.into());
                        }
                        _ => {}
                    }
                }
                index => connections.turn(&poller, index, &mut service),
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

/// What all connections share.
struct Service {
    mode: Mode,
    tls: Option<Tls>,
    /// Where they receive.
    buffer: Vec<u8>,
    /// What a source sends.
    chunk: Vec<u8>,
    /// The same in a file.
    file: Option<File>,
}

impl Service {
    fn new(options: &Options) -> Result<Self, Box<dyn Error>> {
        let tls = match (&options.certificate, &options.key) {
            (Some(certificate), Some(key)) => Some(Tls::server(certificate, key)?),
            _ => None,
        };
        let mut chunk = match options.mode {
            Mode::Source | Mode::File => vec![b'.'; CHUNK],
            _ => Vec::new(),
        };
        let mut file = None;
        if options.mode == Mode::File {
            let mut memory = File::from(memfd_create("sent", MemfdFlags::CLOEXEC)?);
            memory.write_all(&std::mem::take(&mut chunk))?;
            file = Some(memory);
        }
        Ok(Self {
            mode: options.mode,
            tls,
            buffer: vec![0; READ],
            chunk,
            file,
        })
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
    fn accept_all(
        &mut self,
        poller: &Poller,
        listener: &Listener,
        service: &mut Service,
    ) -> io::Result<()> {
        loop {
            let session = service.tls.as_ref().map(Tls::session).transpose()?;
            let stream = Stream::new(listener.accept()?, session);
            let index = self.insert(poller, stream)?;
            // What a server has to say before anybody asked, it says now.
            if matches!(service.mode, Mode::Greet | Mode::Source | Mode::File) {
                self.turn(poller, index, service);
            }
        }
    }

    fn insert(&mut self, poller: &Poller, stream: Stream) -> io::Result<usize> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        poller.add(&stream, index, Interest::IN)?;
        self.slots[index] = Some(Connection::new(stream));
        Ok(index)
    }

    /// Has a connection do what it can. One that fails is the client's affair: it is dropped.
    fn turn(&mut self, poller: &Poller, index: usize, service: &mut Service) {
        let Some(connection) = self.slots[index].as_mut() else {
            return;
        };
        if !connection.turn(poller, index, service).unwrap_or(false) {
            self.slots[index] = None;
            self.free.push(index);
        }
    }
}
