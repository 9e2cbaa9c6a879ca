//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::address::Address;

/// What the program is asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The server that a loop's server is measured against.
    Serve,
    /// The client that puts load on a server.
    Drive,
}

/// What travels over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The server sends back what it gets. A message ends in a newline, the only one in it, so
    /// that servers that read lines and servers that read blocks can be driven alike.
    Echo,
    /// HTTP/1.1 GET requests over connections that stay open.
    Http,
    /// Binary messages of a WebSocket, which the server sends back.
    WebSocket,
    /// The server sends without end, and the client throws it away.
    Source,
    /// The same, from a file: what `sendfile` is for.
    File,
    /// The client sends without end, and the server throws it away.
    Sink,
    /// The server sends one byte on each connection and closes it.
    Greet,
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "echo" => Self::Echo,
            "http" => Self::Http,
            "websocket" => Self::WebSocket,
            "source" => Self::Source,
            "file" => Self::File,
            "sink" => Self::Sink,
            "greet" => Self::Greet,
            _ => return Err(()),
        })
    }
}

/// Everything that the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Server or client.
    pub command: Command,
    /// Where to listen, or to connect.
    pub address: Address,
    /// What travels.
    pub mode: Mode,
    /// How many connections the client keeps busy.
    pub connections: usize,
    /// Length of a message in bytes.
    pub size: usize,
    /// How long the client measures.
    pub measured: Duration,
    /// How long the client drives the server before it measures.
    pub warmup: Duration,
    /// The CPU to stay on.
    pub cpu: Option<usize>,
    /// The server's process, whose processor time the client reads.
    pub process: Option<u32>,
    /// The certificate of the authority that a client trusts: with it, it speaks TLS.
    pub authority: Option<PathBuf>,
    /// The certificate that a server shows: with it, and its key, it speaks TLS.
    pub certificate: Option<PathBuf>,
    /// The key of the certificate.
    pub key: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments that follow the program's name.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let command = match arguments.next().as_deref() {
            Some("serve") => Command::Serve,
            Some("drive") => Command::Drive,
            _ => return Err("the first argument is `serve` or `drive`".into()),
        };
        let mut address = None;
        let mut mode = Mode::Echo;
        let mut connections = 1;
        let mut size = 1024;
        let mut measured = Duration::from_secs(1);
        let mut warmup = Duration::from_millis(100);
        let mut cpu = None;
        let mut process = None;
        let (mut authority, mut certificate, mut key) = (None, None, None);
        while let Some(flag) = arguments.next() {
            let value = arguments
                .next()
                .ok_or_else(|| format!("{flag} needs a value"))?;
            let wrong = || format!("{flag} cannot be {value:?}");
            match flag.as_str() {
                "--address" => address = Some(value.parse().map_err(|_| wrong())?),
                "--mode" => mode = value.parse().map_err(|()| wrong())?,
                "--connections" => connections = value.parse().map_err(|_| wrong())?,
                "--size" => size = value.parse().map_err(|_| wrong())?,
                "--seconds" => measured = seconds(&value).ok_or_else(wrong)?,
                "--warmup" => warmup = seconds(&value).ok_or_else(wrong)?,
                "--cpu" => cpu = Some(value.parse().map_err(|_| wrong())?),
                "--process" => process = Some(value.parse().map_err(|_| wrong())?),
                "--authority" => authority = Some(value.into()),
                "--certificate" => certificate = Some(value.into()),
                "--key" => key = Some(value.into()),
                _ => return Err(format!("unknown option {flag}")),
            }
        }
        if connections == 0 || size == 0 {
            return Err("--connections and --size are at least 1".into());
        }
        if certificate.is_some() != key.is_some() {
            return Err("--certificate and --key come together".into());
        }
        let address = address.ok_or("--address is missing")?;
        Ok(Self {
            command,
            address,
            mode,
            connections,
            size,
            measured,
            warmup,
            cpu,
            process,
            authority,
            certificate,
            key,
        })
    }
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn reads_every_option() {
        let options = parse(
            "drive --address tcp:127.0.0.1:80 --mode http --connections 50 --size 9 \
             --seconds 0.5 --warmup 0 --cpu 1 --process 7 --authority a.pem",
        )
        .unwrap();
        assert_eq!(options.command, Command::Drive);
        assert_eq!(options.mode, Mode::Http);
        assert_eq!(
            (options.connections, options.size, options.cpu),
            (50, 9, Some(1))
        );
        assert_eq!(options.measured, Duration::from_millis(500));
        assert_eq!(options.warmup, Duration::ZERO);
        assert_eq!(options.process, Some(7));
        assert_eq!(options.authority, Some("a.pem".into()));
    }

    #[test]
    fn names_what_is_wrong() {
        for (line, expected) in [
            ("", "serve"),
            ("serve", "--address"),
            ("drive --address tcp:127.0.0.1:80 --size", "--size"),
            ("drive --address tcp:127.0.0.1:80 --seconds -1", "--seconds"),
            (
                "drive --address tcp:127.0.0.1:80 --connections 0",
                "--connections",
            ),
            ("drive --address tcp:127.0.0.1:80 --speed 3", "--speed"),
            ("drive --address tcp:127.0.0.1:80 --mode talk", "--mode"),
            (
                "serve --address tcp:127.0.0.1:0 --key k.pem",
                "--certificate",
            ),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line:?} gave {error:?}");
        }
    }
}
