//! The load generator and the limit server of Weft's benchmarks.
//!
//! ```text
//! loadgen serve --address tcp:127.0.0.1:0|udp:…|unix:… --mode MODE
//!               [--certificate PEM --key PEM] [--cpu N]
//! loadgen drive --address tcp:127.0.0.1:PORT --mode MODE --connections N --size BYTES
//!               --seconds T [--warmup T] [--authority PEM] [--process ID] [--cpu N]
//! ```
//!
//! `serve` is the physical limit that event loops are compared with: one thread, one epoll, no
//! allocation per request. It prints `listening ADDRESS` and ends when its standard input closes.
//! `drive` puts load on a server and prints one line of JSON. The modes are those of
//! [`options::Mode`]: echo, http and websocket keep one request under way on each connection,
//! source, file and sink move bytes, greet makes connections. With a certificate, or the authority
//! that signed it, all of it goes through TLS.

mod address;
mod drive;
mod histogram;
mod http;
mod measurement;
mod options;
mod poller;
mod serve;
mod socket;
mod stream;
mod tls;
mod websocket;

use std::process::ExitCode;

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};

use options::{Command, Options};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    if let Some(cpu) = options.cpu {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set)?;
    }
    match options.command {
        Command::Serve => {
            // The benchmarks stop servers between their turns; a stopped one sees no end of input.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            serve::serve(&options)?;
        }
        Command::Drive => println!("{}", drive::drive(&options)?),
    }
    Ok(())
}
