//! The rate of new connections: each is made, gets one byte, is closed by the server, and is
//! followed by the next.
//!
//! The server closes first, so that it is the server's end that the kernel remembers for a minute,
//! and no port of this end is used up.

use std::error::Error;
use std::io::{self, Read};
use std::time::Instant;

use super::{Connector, PATIENCE, ROOM, out_of_patience};
use crate::measurement::{Measurement, Report};
use crate::options::Options;
use crate::poller::{Interest, Poller, token};
use crate::stream::Stream;

/// Connects again and again.
pub fn drive(options: &Options, connector: &Connector) -> Result<Report, Box<dyn Error>> {
    let poller = Poller::new()?;
    let mut buffer = vec![0; ROOM];
    let mut guests = Vec::with_capacity(options.connections);
    for index in 0..options.connections {
        guests.push(Guest::connect(connector, &poller, index)?);
    }
    let mut measurement = Measurement::begin(options);
    let mut events = Vec::new();
    loop {
        poller.wait(&mut events, Some(PATIENCE))?;
        if events.is_empty() {
            return Err(out_of_patience());
        }
        for event in &events {
            let index = token(event);
            if guests[index].turn(&mut buffer, &mut measurement)? {
                guests[index] = Guest::connect(connector, &poller, index)?;
            }
        }
        if let Some(report) = measurement.turn() {
            return Ok(report);
        }
    }
}

struct Guest {
    stream: Stream,
    began: Instant,
    /// The byte has come, and only the end is missing.
    greeted: bool,
}

impl Guest {
    fn connect(connector: &Connector, poller: &Poller, index: usize) -> io::Result<Self> {
        let began = Instant::now();
        let mut stream = connector.connect()?;
        // A handshake begins with the client.
        io::Write::flush(&mut stream)?;
        poller.add(&stream, index, Interest::IN)?;
        Ok(Self {
            stream,
            began,
            greeted: false,
        })
    }

    /// Takes what has come. `true` says that the connection is over.
    fn turn(
        &mut self,
        buffer: &mut [u8],
        measurement: &mut Measurement,
    ) -> Result<bool, Box<dyn Error>> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) if self.greeted => {
                    self.stream.say_goodbye()?;
                    return Ok(true);
                }
                Ok(1) if !self.greeted => {
                    self.greeted = true;
                    measurement.record(self.began.elapsed());
                }
                Ok(0) => return Err("the server closed a connection without a byte".into()),
                Ok(_) => return Err("the server sent more than a byte".into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
