//! TLS over a socket that does not block: a session of rustls for each connection.
//!
//! No session is ever resumed, so that every connection makes a full handshake.

use std::error::Error;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};

use crate::socket::Socket;

/// How much is taken from a socket at once.
const READ: usize = 64 * 1024;

/// The name that the certificate must be for.
const NAME: &str = "localhost";

/// What the sessions of one program have in common.
#[derive(Clone, Debug)]
pub enum Tls {
    /// They trust one authority.
    Client(Arc<ClientConfig>),
    /// They show one certificate.
    Server(Arc<ServerConfig>),
}

impl Tls {
    /// For a client that trusts the authority whose certificate is in a file of PEM.
    pub fn client(authority: &Path) -> Result<Self, Box<dyn Error>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(authority)? {
            roots.add(certificate?)?;
        }
        let mut configuration = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        configuration.resumption = Resumption::disabled();
        Ok(Self::Client(Arc::new(configuration)))
    }

    /// For a server whose certificates and key are in files of PEM.
    pub fn server(certificate: &Path, key: &Path) -> Result<Self, Box<dyn Error>> {
        let chain: Vec<_> =
            CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
        let mut configuration = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
        configuration.session_storage = Arc::new(NoServerSessionStorage {});
        configuration.send_tls13_tickets = 0;
        Ok(Self::Server(Arc::new(configuration)))
    }

    /// The state of one connection.
    pub fn session(&self) -> io::Result<Session> {
        let connection = match self {
            Self::Client(configuration) => {
                let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
                ClientConnection::new(configuration.clone(), name).map(Connection::Client)
            }
            Self::Server(configuration) => {
                ServerConnection::new(configuration.clone()).map(Connection::Server)
            }
        };
        let mut connection = connection.map_err(io::Error::other)?;
        // Whoever writes waits until everything is sent before it writes again.
        connection.set_buffer_limit(None);
        Ok(Session {
            connection,
            received: vec![0; READ].into_boxed_slice(),
            ended: false,
        })
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// One connection's keys, and room for what comes from its socket.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    received: Box<[u8]>,
    /// The peer will send nothing more.
    ended: bool,
}

impl Session {
    /// Whether the keys are still to be agreed on.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether all that was encrypted is sent.
    pub fn is_flushed(&self) -> bool {
        !self.connection.wants_write()
    }

    /// Says that nothing more will be sent; the next flush sends it.
    pub fn say_goodbye(&mut self) {
        self.connection.send_close_notify();
    }

    /// Takes from the socket once and decrypts all of it, so that nothing stays behind where no
    /// poller sees it: `buffer` must have room for twice `READ`.
    pub fn read(&mut self, socket: &mut Socket, buffer: &mut [u8]) -> io::Result<usize> {
        debug_assert!(buffer.len() >= 2 * READ);
        while !self.ended {
            let count = socket.read(&mut self.received)?;
            let mut rest = &self.received[..count];
            let mut filled = 0;
            loop {
                self.connection.read_tls(&mut rest)?;
                self.connection
                    .process_new_packets()
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                filled += decrypted(&mut self.connection, &mut buffer[filled..], &mut self.ended)?;
                if self.ended || rest.is_empty() {
                    break;
                }
            }
            // A handshake answers by itself.
            self.flush(socket)?;
            if filled > 0 {
                return Ok(filled);
            }
        }
        Ok(0)
    }

    /// Encrypts everything, and sends as much of it as there is room for.
    pub fn write(&mut self, socket: &mut Socket, bytes: &[u8]) -> io::Result<usize> {
        let count = self.connection.writer().write(bytes)?;
        self.flush(socket)?;
        Ok(count)
    }

    /// Sends as much of what is encrypted as there is room for.
    pub fn flush(&mut self, socket: &mut Socket) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Moves what is decrypted into `buffer`; finds out whether it was the last.
fn decrypted(
    connection: &mut Connection,
    buffer: &mut [u8],
    ended: &mut bool,
) -> io::Result<usize> {
    let mut filled = 0;
    loop {
        match connection.reader().read(&mut buffer[filled..]) {
            Ok(0) => *ended = true,
            Ok(count) => {
                filled += count;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The peer has closed its socket without a word, as many do.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => *ended = true,
            Err(error) => return Err(error),
        }
        return Ok(filled);
    }
}
