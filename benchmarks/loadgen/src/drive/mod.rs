//! The client: it puts as much load on a server as that can take, and counts.

mod bulk;
mod exchange;
mod greet;

use std::error::Error;
use std::io;
use std::time::Duration;

use crate::measurement::Report;
use crate::options::{Mode, Options};
use crate::stream::Stream;
use crate::tls::Tls;

/// A server that does nothing for this long has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Room for what is received at once.
const ROOM: usize = 256 * 1024;

/// Drives a server and tells what it did.
pub fn drive(options: &Options) -> Result<Report, Box<dyn Error>> {
    let connector = Connector {
        options,
        tls: match &options.authority {
            Some(authority) => Some(Tls::client(authority)?),
            None => None,
        },
    };
    match options.mode {
        Mode::Echo | Mode::Http | Mode::WebSocket => exchange::drive(options, &connector),
        Mode::Source | Mode::File => bulk::receive(options, &connector),
        Mode::Sink => bulk::send(options, &connector),
        Mode::Greet => greet::drive(options, &connector),
    }
}

/// Makes connections.
struct Connector<'a> {
    options: &'a Options,
    tls: Option<Tls>,
}

impl Connector<'_> {
    fn connect(&self) -> io::Result<Stream> {
        let session = self.tls.as_ref().map(Tls::session).transpose()?;
        Ok(Stream::new(self.options.address.connect()?, session))
    }
}

fn out_of_patience() -> Box<dyn Error> {
    format!("no answer within {} s", PATIENCE.as_secs()).into()
}
