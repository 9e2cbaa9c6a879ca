//! Throughput: one side sends without end, the other throws it away. What is counted is MiB.

use std::error::Error;
use std::io::{self, Write};

use super::{Connector, PATIENCE, ROOM, out_of_patience};
use crate::measurement::{Measurement, Report};
use crate::options::Options;
use crate::poller::{Interest, Poller, token};
use crate::stream::Stream;

/// What is sent at once.
const CHUNK: usize = 1024 * 1024;

/// Receives whatever the server sends.
pub fn receive(options: &Options, connector: &Connector) -> Result<Report, Box<dyn Error>> {
    let mut buffer = vec![0; ROOM];
    run(options, connector, Interest::IN, |stream| {
        stream.discard(&mut buffer)
    })
}

/// Sends as much as the server takes.
pub fn send(options: &Options, connector: &Connector) -> Result<Report, Box<dyn Error>> {
    let chunk = vec![b'.'; CHUNK];
    run(options, connector, Interest::OUT, |stream| {
        stream.flush()?;
        if stream.is_flushed() {
            stream.write(&chunk)
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    })
}

/// Has `step` move some bytes wherever it can, until the time is over.
fn run(
    options: &Options,
    connector: &Connector,
    interest: Interest,
    mut step: impl FnMut(&mut Stream) -> io::Result<usize>,
) -> Result<Report, Box<dyn Error>> {
    let poller = Poller::new()?;
    let mut streams = Vec::with_capacity(options.connections);
    for index in 0..options.connections {
        let stream = connector.connect()?;
        poller.add(&stream, index, interest)?;
        streams.push(stream);
    }
    let mut measurement = Measurement::begin(options);
    let mut events = Vec::new();
    loop {
        poller.wait(&mut events, Some(PATIENCE))?;
        if events.is_empty() {
            return Err(out_of_patience());
        }
        for event in &events {
            match step(&mut streams[token(event)]) {
                Ok(0) => return Err("the server closed the connection".into()),
                #[expect(clippy::cast_precision_loss, reason = "lengths are far below 2**52")]
                Ok(count) => measurement.add(count as f64 / (1024.0 * 1024.0)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(report) = measurement.turn() {
            return Ok(report);
        }
    }
}
