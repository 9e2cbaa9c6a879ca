//! The client: one request under way on each connection, as fast as the server answers.
//!
//! Connections are watched edge-triggered, for both directions at once and from the start, so that
//! no request costs a call of `epoll_ctl`. What has been seen on a connection is remembered by the
//! position in its request and its answer; an edge is spent only when the kernel says "no more".

use std::error::Error;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use crate::address::Stream;
use crate::histogram::Histogram;
use crate::http;
use crate::options::{Mode, Options};
use crate::poller::{Interest, Poller, token};

/// A server that answers nothing for this long has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Drives a server and describes what it did in one line of JSON.
pub fn drive(options: &Options) -> Result<String, Box<dyn Error>> {
    let exchange = Exchange::new(options);
    let poller = Poller::new()?;
    let mut connections = Vec::with_capacity(options.connections);
    for index in 0..options.connections {
        let stream = options.address.connect()?;
        poller.add(&stream, index, Interest::IN | Interest::OUT | Interest::ET)?;
        connections.push(Connection::new(stream));
    }

    let mut run = Run {
        histogram: Histogram::default(),
        buffer: vec![0; (options.size + 1).max(64 * 1024)],
    };
    let beginning = Instant::now();
    for connection in &mut connections {
        connection.begin(beginning);
        connection.turn(&exchange, &mut run)?;
    }
    let mut events = Vec::new();
    let mut measuring: Option<Instant> = None;
    let mut unmeasured = 0;
    let finished = loop {
        poller.wait(&mut events, Some(PATIENCE))?;
        if events.is_empty() {
            return Err(format!("no answer within {} s", PATIENCE.as_secs()).into());
        }
        for event in &events {
            connections[token(event)].turn(&exchange, &mut run)?;
        }
        let now = Instant::now();
        match measuring {
            None if now - beginning >= options.warmup => {
                unmeasured = run.histogram.total();
                run.histogram = Histogram::default();
                measuring = Some(now);
            }
            Some(start) if now - start >= options.measured => break now - start,
            _ => {}
        }
    };

    let microseconds = |per_mille| run.histogram.quantile(per_mille).as_secs_f64() * 1e6;
    let requests = run.histogram.total();
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2**52")]
    let rate = requests as f64 / finished.as_secs_f64();
    Ok(format!(
        "{{\"all_requests\": {}, \"requests_per_second\": {rate:.1}, \"p50_us\": {:.2}, \
         \"p99_us\": {:.2}, \"max_us\": {:.2}}}",
        requests + unmeasured,
        microseconds(500),
        microseconds(990),
        microseconds(1000),
    ))
}

/// What is sent, and how the end of its answer is recognised.
struct Exchange {
    request: Vec<u8>,
    mode: Mode,
}

impl Exchange {
    fn new(options: &Options) -> Self {
        let request = match options.mode {
            Mode::Http => http::REQUEST.to_vec(),
            Mode::Echo => {
                // Printable, and different at every position that could be confused.
                let letters = (b' '..=b'~').cycle().enumerate();
                let mut message: Vec<u8> = letters
                    .map(|(position, letter)| if position % 97 == 0 { b'#' } else { letter })
                    .take(options.size - 1)
                    .collect();
                message.push(b'\n');
                message
            }
        };
        Self {
            request,
            mode: options.mode,
        }
    }
}

/// What all connections share.
struct Run {
    histogram: Histogram,
    buffer: Vec<u8>,
}

struct Connection {
    stream: Stream,
    began: Instant,
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
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            began: Instant::now(),
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

    /// Sends and receives until the kernel has no more.
    fn turn(&mut self, exchange: &Exchange, run: &mut Run) -> Result<(), Box<dyn Error>> {
        loop {
            while self.sent < exchange.request.len() {
                match self.stream.write(&exchange.request[self.sent..]) {
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
            if self.receive(&run.buffer[..count], exchange)? {
                let now = Instant::now();
                run.histogram.record(now - self.began);
                self.begin(now);
                self.sent = self.stream.write(&exchange.request).or_else(would_block)?;
                if self.sent == exchange.request.len() {
                    // Nothing can have come yet, and the edge will tell when it does.
                    return Ok(());
                }
            }
        }
    }

    /// Takes a part of an answer. `true` says that it is complete.
    fn receive(&mut self, bytes: &[u8], exchange: &Exchange) -> Result<bool, Box<dyn Error>> {
        self.received += bytes.len();
        let expected = match exchange.mode {
            Mode::Echo => {
                if !self.checked {
                    self.answer.extend_from_slice(bytes);
                }
                exchange.request.len()
            }
            Mode::Http => match self.response_length(bytes)? {
                Some(length) => length,
                None => return Ok(false),
            },
        };
        if self.received > expected {
            return Err("the server sent more than the answer".into());
        }
        if self.received < expected {
            return Ok(false);
        }
        if exchange.mode == Mode::Echo && !self.checked {
            if self.answer != exchange.request {
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
