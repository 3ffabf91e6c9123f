//! A blocking connection, plain or TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use crate::error::{LabError, Result};

/// Size of all bulk buffers: at 50 Gbit/s some 6000 system calls a second.
pub const BUFFER: usize = 1 << 20;
/// Ciphertext read at a time; rustls itself reads at most one record a call.
const TLS_READ: usize = 256 << 10;
/// A peer that says nothing for so long is taken for stuck.
pub const IDLE: Duration = Duration::from_secs(10);

/// A TCP socket whose reads are buffered, so that TLS records do not cost a system call each.
pub struct Socket {
    tcp: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Socket {
    fn new(tcp: TcpStream) -> Socket {
        Socket {
            tcp,
            buffer: vec![0; TLS_READ],
            start: 0,
            end: 0,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end {
            self.end = self.tcp.read(&mut self.buffer)?;
            self.start = 0;
        }
        let n = out.len().min(self.end - self.start);
        out[..n].copy_from_slice(&self.buffer[self.start..self.start + n]);
        self.start += n;
        Ok(n)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.tcp.write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection to read from and write to.
pub enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS, as client.
    Client(Box<rustls::StreamOwned<ClientConnection, Socket>>),
    /// TLS, as server.
    Server(Box<rustls::StreamOwned<ServerConnection, Socket>>),
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(s) => s.read(out),
            Stream::Client(s) => s.read(out),
            Stream::Server(s) => s.read(out),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(s) => s.write(bytes),
            Stream::Client(s) => s.write(bytes),
            Stream::Server(s) => s.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(s) => s.flush(),
            Stream::Client(s) => s.flush(),
            Stream::Server(s) => s.flush(),
        }
    }
}

/// Opens a TCP connection without Nagle's delay and with time limits.
///
/// # Errors
/// It is refused, reset or not answered.
pub fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let failed = |e: io::Error| LabError::Traffic(format!("connecting to {addr}: {e}"));
    let tcp = TcpStream::connect_timeout(&addr, IDLE).map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    tcp.set_read_timeout(Some(IDLE)).map_err(failed)?;
    tcp.set_write_timeout(Some(IDLE)).map_err(failed)?;
    Ok(tcp)
}

/// Makes a connected socket a stream, with TLS towards `host` if a configuration is given.
///
/// # Errors
/// The host is no server name.
pub fn client(tcp: TcpStream, host: &str, tls: Option<&Arc<ClientConfig>>) -> Result<Stream> {
    let Some(config) = tls else {
        return Ok(Stream::Plain(tcp));
    };
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|e| LabError::Usage(format!("--host {host:?}: {e}")))?;
    let mut connection = ClientConnection::new(config.clone(), name)?;
    connection.set_buffer_limit(Some(BUFFER));
    Ok(Stream::Client(Box::new(rustls::StreamOwned::new(
        connection,
        Socket::new(tcp),
    ))))
}

/// Makes an accepted socket a stream.
///
/// # Errors
/// TLS cannot be set up.
pub fn server(tcp: TcpStream, tls: Option<&Arc<ServerConfig>>) -> Result<Stream> {
    let Some(config) = tls else {
        return Ok(Stream::Plain(tcp));
    };
    let mut connection = ServerConnection::new(config.clone())?;
    connection.set_buffer_limit(Some(BUFFER));
    Ok(Stream::Server(Box::new(rustls::StreamOwned::new(
        connection,
        Socket::new(tcp),
    ))))
}

/// A client configuration that trusts one CA; TLS 1.2 and 1.3, no session resumption.
///
/// # Errors
/// The CA file cannot be read.
pub fn client_config(ca: &Path) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let cert = CertificateDer::from_pem_file(ca);
    roots.add(cert.map_err(|e| LabError::Traffic(format!("{}: {e}", ca.display())))?)?;
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// A server configuration with one certificate.
///
/// # Errors
/// A file cannot be read, or key and certificate do not fit.
pub fn server_config(cert: &Path, key: &Path) -> Result<ServerConfig> {
    let bad = |path: &Path, e| LabError::Traffic(format!("{}: {e}", path.display()));
    let chain =
        CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|e| bad(cert, e))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(key, e))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(builder.with_no_client_auth().with_single_cert(chain, key)?)
}
