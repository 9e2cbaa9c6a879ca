//! Requests and answers: one request under way on each connection, as fast as the server answers.
//!
//! Connections are watched edge-triggered, for both directions at once and from the start, so that
//! no request costs a call of `epoll_ctl`. What has been seen on a connection is remembered by the
//! position in its request and its answer; an edge is spent only when the kernel says "no more".

use std::error::Error;
use std::io::{self, Read, Write};
use std::time::Instant;

use super::{Connector, PATIENCE, ROOM, out_of_patience};
use crate::http;
use crate::measurement::{Measurement, Report};
use crate::options::{Mode, Options};
use crate::poller::{Interest, Poller, token};
use crate::stream::Stream;
use crate::websocket;

/// Asks again and again.
pub fn drive(options: &Options, connector: &Connector) -> Result<Report, Box<dyn Error>> {
    let exchange = Exchange::new(options);
    let poller = Poller::new()?;
    let mut connections = Vec::with_capacity(options.connections);
    for index in 0..options.connections {
        let stream = connector.connect()?;
        poller.add(&stream, index, Interest::IN | Interest::OUT | Interest::ET)?;
        connections.push(Connection::new(stream, &exchange));
    }
    let mut run = Run {
        measurement: Measurement::begin(options),
        buffer: vec![0; ROOM],
    };
    for connection in &mut connections {
        connection.begin(Instant::now());
        connection.turn(&exchange, &mut run)?;
    }
    let mut events = Vec::new();
    loop {
        poller.wait(&mut events, Some(PATIENCE))?;
        if events.is_empty() {
            return Err(out_of_patience());
        }
        for event in &events {
            connections[token(event)].turn(&exchange, &mut run)?;
        }
        if let Some(report) = run.measurement.turn() {
            return Ok(report);
        }
    }
}

/// What is sent, and how the end of its answer is recognised.
struct Exchange {
    request: Vec<u8>,
    /// The answer that must come, or `None` if it is HTTP's, which tells its length.
    answer: Option<Vec<u8>>,
    /// What is sent before the first request, and must be answered.
    opening: &'static [u8],
}

impl Exchange {
    fn new(options: &Options) -> Self {
        let (request, answer, opening): (_, _, &[u8]) = match options.mode {
            Mode::Http => (http::REQUEST.to_vec(), None, b""),
            Mode::WebSocket => {
                let message = message(options.size);
                let answer = websocket::server_frame(&message);
                (
                    websocket::client_frame(&message),
                    Some(answer),
                    websocket::UPGRADE,
                )
            }
            _ => {
                let message = message(options.size);
                (message.clone(), Some(message), b"")
            }
        };
        Self {
            request,
            answer,
            opening,
        }
    }
}

/// Printable, and different at every position that could be confused; it ends in its only newline.
fn message(size: usize) -> Vec<u8> {
    let letters = (b' '..=b'~').cycle().enumerate();
    let mut message: Vec<u8> = letters
        .map(|(position, letter)| if position % 97 == 0 { b'#' } else { letter })
        .take(size - 1)
        .collect();
    message.push(b'\n');
    message
}

/// What all connections share.
struct Run {
    measurement: Measurement,
    buffer: Vec<u8>,
}

struct Connection {
    stream: Stream,
    began: Instant,
    /// The opening has still to be answered: it is the request that is under way.
    opening: bool,
    /// How much of the request is sent.
    sent: usize,
    /// How much of the answer has come.
    received: usize,
    /// Kept only while the answer's length is not known, or the answer is still to be checked.
    answer: Vec<u8>,
    /// How long the answer is, once that is known.
    expected: Option<usize>,
    /// The first answer is compared byte for byte; later ones only by their length.
    checked: bool,
}

impl Connection {
    fn new(stream: Stream, exchange: &Exchange) -> Self {
        Self {
            stream,
            began: Instant::now(),
            opening: !exchange.opening.is_empty(),
            sent: 0,
            received: 0,
            answer: Vec::new(),
            expected: None,
            checked: false,
        }
    }

    fn begin(&mut self, now: Instant) {
        self.began = now;
        self.sent = 0;
        self.received = 0;
        self.expected = None;
        self.answer.clear();
    }

    /// What has to be sent now.
    fn request<'a>(&self, exchange: &'a Exchange) -> &'a [u8] {
        if self.opening {
            exchange.opening
        } else {
            &exchange.request
        }
    }

    /// Sends and receives until the kernel has no more.
    fn turn(&mut self, exchange: &Exchange, run: &mut Run) -> Result<(), Box<dyn Error>> {
        self.stream.flush()?;
        loop {
            let request = self.request(exchange);
            while self.sent < request.len() {
                match self.stream.write(&request[self.sent..]) {
                    Ok(count) => self.sent += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
            let count = match self.stream.read(&mut run.buffer) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let complete = if self.opening {
                self.is_opened(&run.buffer[..count])?
            } else {
                self.receive(&run.buffer[..count], exchange)?
            };
            if complete {
                let now = Instant::now();
                if !self.opening {
                    run.measurement.record(now - self.began);
                }
                self.opening = false;
                self.begin(now);
                self.sent = self.stream.write(&exchange.request).or_else(would_block)?;
                if self.sent == exchange.request.len() {
                    // Nothing can have come yet, and the edge will tell when it does.
                    return Ok(());
                }
            }
        }
    }

    /// Takes a part of the answer to the opening. `true` says that it is complete.
    fn is_opened(&mut self, bytes: &[u8]) -> Result<bool, &'static str> {
        self.answer.extend_from_slice(bytes);
        match http::head_length(&self.answer) {
            None => Ok(false),
            Some(length) if length < self.answer.len() => {
                Err("the server sent more than its agreement to the upgrade")
            }
            Some(_) if websocket::is_accepted(&self.answer) => Ok(true),
            Some(_) => Err("the server refused the upgrade"),
        }
    }

    /// Takes a part of an answer. `true` says that it is complete.
    fn receive(&mut self, bytes: &[u8], exchange: &Exchange) -> Result<bool, Box<dyn Error>> {
        self.received += bytes.len();
        let expected = if let Some(answer) = &exchange.answer {
            if !self.checked {
                self.answer.extend_from_slice(bytes);
            }
            answer.len()
        } else if let Some(length) = self.response_length(bytes)? {
            length
        } else {
            return Ok(false);
        };
        if self.received > expected {
            return Err("the server sent more than the answer".into());
        }
        if self.received < expected {
            return Ok(false);
        }
        if let Some(answer) = &exchange.answer
            && !self.checked
        {
            if self.answer != *answer {
                return Err("the server changed the message".into());
            }
            self.checked = true;
        }
        Ok(true)
    }

    fn response_length(&mut self, bytes: &[u8]) -> Result<Option<usize>, &'static str> {
        if self.expected.is_none() {
            self.expected = if self.answer.is_empty() {
                http::response_length(bytes)?
            } else {
                None
            };
            if self.expected.is_none() {
                self.answer.extend_from_slice(bytes);
                self.expected = http::response_length(&self.answer)?;
            }
        }
        Ok(self.expected)
    }
}

fn would_block(error: io::Error) -> io::Result<usize> {
    if error.kind() == io::ErrorKind::WouldBlock {
        Ok(0)
    } else {
        Err(error)
    }
}
