//! One connection of the limit server, whatever it serves.

use std::io::{self, Read, Write};

use super::{CHUNK, Service};
use crate::http;
use crate::options::Mode;
use crate::poller::{Interest, Poller};
use crate::stream::Stream;
use crate::websocket;

/// What every client gets from a server that greets.
const GREETING: &[u8] = b".";

/// A client, and what is under way between it and the server.
pub struct Connection {
    stream: Stream,
    /// What the socket had no room for.
    unsent: Vec<u8>,
    /// The start of a request whose end has not come yet.
    head: Vec<u8>,
    /// How much of the chunk, or of the file, that is being sent has gone.
    position: usize,
    /// The greeting, or the agreement to an upgrade, is sent.
    opened: bool,
    /// Watched for room to write, not for something to read.
    writing: bool,
}

impl Connection {
    /// A connection that was just accepted, and is watched for something to read.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            unsent: Vec::new(),
            head: Vec::new(),
            position: 0,
            opened: false,
            writing: false,
        }
    }

    /// Does what can be done now. `false` says that the connection is over.
    pub fn turn(
        &mut self,
        poller: &Poller,
        index: usize,
        service: &mut Service,
    ) -> io::Result<bool> {
        let open = if self.writing {
            self.stream.flush()?;
            if !self.unsent.is_empty() {
                let unsent = std::mem::take(&mut self.unsent);
                self.send(&unsent)?;
            }
            self.give(service)?
        } else {
            match service.mode {
                Mode::Greet => self.greet(service)?,
                Mode::Source | Mode::File => self.give(service)?,
                _ => self.receive(service)?,
            }
        };
        let endless = matches!(service.mode, Mode::Source | Mode::File);
        let writing = endless || !self.unsent.is_empty() || !self.stream.is_flushed();
        if writing != self.writing {
            let interest = if writing { Interest::OUT } else { Interest::IN };
            poller.modify(&self.stream, index, interest)?;
            self.writing = writing;
        }
        Ok(open)
    }

    /// Reads once and answers.
    fn receive(&mut self, service: &mut Service) -> io::Result<bool> {
        let count = match self.stream.read(&mut service.buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        let received = &service.buffer[..count];
        match service.mode {
            Mode::Echo => self.send(received)?,
            Mode::Http => self.answer(received)?,
            Mode::WebSocket => self.echo_messages(received)?,
            Mode::Sink | Mode::Source | Mode::File | Mode::Greet => {}
        }
        Ok(true)
    }

    /// Answers every HTTP request that is complete.
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

    /// Sends back every message that is complete, once the upgrade is agreed on.
    fn echo_messages(&mut self, received: &[u8]) -> io::Result<()> {
        self.head.extend_from_slice(received);
        if !self.opened {
            let Some(length) = http::head_length(&self.head) else {
                return Ok(());
            };
            self.head.drain(..length);
            self.opened = true;
            self.send(websocket::ACCEPTED)?;
        }
        while let Some((message, length)) = websocket::parse_client_frame(&self.head) {
            self.head.drain(..length);
            self.send(&websocket::server_frame(&message))?;
        }
        Ok(())
    }

    /// Sends what a source sends, as far as there is room for it now.
    fn give(&mut self, service: &Service) -> io::Result<bool> {
        let sent = match (&service.file, service.mode) {
            (Some(file), Mode::File) => {
                let mut offset = self.position as u64;
                self.stream
                    .send_file(file, &mut offset, CHUNK - self.position)
            }
            (_, Mode::Source) => self.stream.write(&service.chunk[self.position..]),
            _ => return Ok(true),
        };
        match sent {
            Ok(count) => self.position = (self.position + count) % CHUNK,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Greets whoever has come, once there are keys to do so, and closes. Over TLS the client has
    /// the last word.
    fn greet(&mut self, service: &mut Service) -> io::Result<bool> {
        if self.stream.is_plain() {
            self.send(GREETING)?;
            return Ok(false);
        }
        let ended = match self.stream.read(&mut service.buffer) {
            Ok(count) => count == 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => return Err(error),
        };
        if !self.opened && !self.stream.is_handshaking() {
            self.opened = true;
            self.send(GREETING)?;
            self.stream.say_goodbye()?;
        }
        Ok(!ended)
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
