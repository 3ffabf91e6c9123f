//! Probes against a web server somewhere else: what its own protocol allows, and no more.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};

use super::netns::within;
use super::tcp::{refused, waits};
use super::{Grown, Moved, Probe, ProbeError, ProbePlan, Trouble, counters, result};
use crate::case::{Direction, ProbeKind, ProbeResult, Transport};

/// Where Debian and most others keep the certificates of public authorities.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Longest response head that is read.
const HEAD_MAX: usize = 32 << 10;
/// Bytes read and written at a time.
const CHUNK: usize = 64 << 10;
/// Body of a small upload.
const SMALL: u64 = 64;

/// A web server and what may be asked of it.
#[derive(Clone, Debug)]
pub struct Web {
    /// `http://` or `https://`. A large object shows most: a bulk download reads as much as the plan's burst, no more.
    pub url: String,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// Bodies may be sent to it (`PUT`). What it answers does not matter.
    pub upload: bool,
}

/// Whose certificates are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// The system's authorities.
    #[default]
    System,
    /// Those in a file of PEM certificates.
    Authority(PathBuf),
    /// Anybody's: a probe tells nothing secret, and may have to go to a server with a certificate of its own.
    Anyone,
}

/// A URL in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl Target {
    fn parse(url: &str) -> Result<Self, ProbeError> {
        let wrong = |why| ProbeError::Url {
            url: url.to_owned(),
            why,
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("no scheme"))?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(wrong("only http and https can be probed")),
        };
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(split).unwrap_or((rest, ""));
        if url.bytes().any(|b| b.is_ascii_control() || b == b' ') || authority.contains('@') {
            return Err(wrong("it has spaces or a user name"));
        }
        let default = if tls { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (
                host,
                port.parse().map_err(|_| wrong("the port is no number"))?,
            ),
            _ => (authority, default),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong("no host"));
        }
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            path: match path.starts_with('/') {
                true => path.to_owned(),
                false => format!("/{path}"),
            },
        })
    }

    /// `Host` field.
    fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// A connection with or without TLS.
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Sends what of a plan can be sent to a web server: small requests and bulk transfers over TCP.
pub(super) fn run(plan: &ProbePlan, web: &Web) -> Result<Vec<ProbeResult>, ProbeError> {
    let target = Target::parse(&web.url)?;
    let tls = target.tls.then(|| client_config(&web.trust)).transpose()?;
    let addresses = within(&plan.endpoint, || {
        (target.host.as_str(), target.port).to_socket_addrs()
    })?;
    let probes = plan.probes();
    let possible = probes.into_iter().filter(|probe| {
        let kind = matches!(probe.kind, ProbeKind::Small | ProbeKind::Gso);
        let allowed = probe.direction == Direction::Inbound || web.upload;
        probe.transport == Transport::Tcp && kind && allowed
    });
    let mut results = Vec::new();
    for probe in possible {
        let before = counters::read(&plan.endpoint)?;
        let moved = match &addresses {
            Err(e) => Err(Trouble::NotRun(format!("looking up {}: {e}", target.host))),
            Ok(_) => {
                let all = addresses.iter().flat_map(|a| a.clone());
                match all.into_iter().find(|a| a.is_ipv6() == probe.ipv6) {
                    Some(address) => {
                        let call = Call {
                            plan,
                            target: &target,
                            tls: tls.clone(),
                            address,
                        };
                        within(&plan.endpoint, || call.make(probe))?
                    }
                    None => Err(no_address(&target.host, probe.ipv6)),
                }
            }
        };
        let own = counters::grown(&before, &counters::read(&plan.endpoint)?);
        // The far side's counters are not ours to read.
        let grown = match probe.direction {
            Direction::Outbound => Grown {
                sender: own,
                ..Grown::default()
            },
            Direction::Inbound => Grown {
                receiver: own,
                ..Grown::default()
            },
        };
        results.push(result(probe, moved, grown));
    }
    Ok(results)
}

fn no_address(host: &str, ipv6: bool) -> Trouble {
    let family = if ipv6 { "IPv6" } else { "IPv4" };
    Trouble::NotRun(format!("{host} has no {family} address"))
}

/// One request.
struct Call<'a> {
    plan: &'a ProbePlan,
    target: &'a Target,
    tls: Option<Arc<ClientConfig>>,
    address: SocketAddr,
}

impl Call<'_> {
    fn make(&self, probe: Probe) -> Result<Moved, Trouble> {
        let begin = Instant::now();
        let mut moved = Moved::default();
        let done = self.try_make(probe, begin, &mut moved);
        moved.took = begin.elapsed();
        match done {
            Ok(()) => {
                moved.complete = true;
                Ok(moved)
            }
            Err(Trouble::Failed(why)) => {
                moved.fault = Some(why);
                Ok(moved)
            }
            Err(other) => Err(other),
        }
    }

    fn try_make(&self, probe: Probe, begin: Instant, moved: &mut Moved) -> Result<(), Trouble> {
        let each = self.plan.limits.each;
        let tcp = TcpStream::connect_timeout(&self.address, each);
        let tcp = tcp.map_err(|e| refused(&e, self.address, each))?;
        // One call may use up what is left; the loops look at the clock between calls.
        let options = tcp
            .set_read_timeout(Some(each))
            .and_then(|()| tcp.set_write_timeout(Some(each)));
        options.map_err(|e| Trouble::NotRun(format!("setting socket options: {e}")))?;
        let mut stream = self.dress(tcp)?;
        let burst = self.plan.limits.burst;
        let (method, upload, range) = match (probe.kind, probe.direction) {
            (ProbeKind::Small, Direction::Inbound) => ("HEAD", 0, 1),
            (_, Direction::Inbound) => ("GET", 0, burst),
            (ProbeKind::Small, Direction::Outbound) => ("PUT", SMALL, 0),
            (_, Direction::Outbound) => ("PUT", burst, 0),
        };
        let fields = match range {
            0 => format!("Content-Length: {upload}\r\n"),
            n => format!("Range: bytes=0-{}\r\n", n - 1),
        };
        let head = format!(
            "{method} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: tollgate-doctor\r\nAccept-Encoding: identity\r\n{fields}Connection: close\r\n\r\n",
            self.target.path,
            self.target.authority(),
        );
        stream
            .write_all(head.as_bytes())
            .map_err(|e| self.stuck("sending the request", &e, moved))?;
        self.put(&mut stream, upload, begin, moved)?;
        let body = self.response(&mut stream, moved)?;
        moved.received = body;
        if probe.direction == Direction::Inbound && probe.kind == ProbeKind::Gso {
            self.get(&mut stream, burst, begin, moved)?;
        }
        Ok(())
    }

    fn dress(&self, tcp: TcpStream) -> Result<Stream, Trouble> {
        let Some(config) = &self.tls else {
            return Ok(Stream::Plain(tcp));
        };
        let name = ServerName::try_from(self.target.host.clone());
        let name = name.map_err(|e| Trouble::NotRun(format!("{}: {e}", self.target.host)))?;
        let connection = ClientConnection::new(Arc::clone(config), name)
            .map_err(|e| Trouble::NotRun(format!("TLS: {e}")))?;
        let mut stream = StreamOwned::new(connection, tcp);
        while stream.conn.is_handshaking() {
            match stream.conn.complete_io(&mut stream.sock) {
                Ok(_) => {}
                Err(e) if waits(&e) => {
                    return Err(Trouble::Failed(
                        "the connection was made, but the TLS handshake stands still: its certificates are the first \
                         large packets"
                            .to_owned(),
                    ));
                }
                Err(e) => return Err(Trouble::NotRun(format!("TLS: {e}"))),
            }
        }
        Ok(Stream::Tls(Box::new(stream)))
    }

    fn put(
        &self,
        stream: &mut Stream,
        bytes: u64,
        begin: Instant,
        moved: &mut Moved,
    ) -> Result<(), Trouble> {
        let zeros = vec![0; CHUNK];
        while moved.sent < bytes {
            self.look_at_clock(begin, moved)?;
            let n = usize::try_from(bytes - moved.sent)
                .unwrap_or(CHUNK)
                .min(CHUNK);
            let chunk = zeros.get(..n).unwrap_or_default();
            stream
                .write_all(chunk)
                .map_err(|e| self.stuck("sending", &e, moved))?;
            moved.sent += n as u64;
        }
        Ok(())
    }

    /// Reads a response head; returns how much of the body came with it.
    fn response(&self, stream: &mut Stream, moved: &Moved) -> Result<u64, Trouble> {
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; CHUNK]);
        while bytes.len() < HEAD_MAX {
            let n = stream
                .read(&mut buffer)
                .map_err(|e| self.stuck("waiting for the answer", &e, moved))?;
            if n == 0 {
                break;
            }
            bytes.extend_from_slice(buffer.get(..n).unwrap_or_default());
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                return Ok((bytes.len() - end - 4) as u64);
            }
        }
        Err(Trouble::NotRun(
            "the server's answer is not HTTP".to_owned(),
        ))
    }

    /// Reads as much of a body as the bound allows.
    fn get(
        &self,
        stream: &mut Stream,
        bytes: u64,
        begin: Instant,
        moved: &mut Moved,
    ) -> Result<(), Trouble> {
        let mut buffer = vec![0; CHUNK];
        while moved.received < bytes {
            self.look_at_clock(begin, moved)?;
            match stream.read(&mut buffer) {
                // The object is smaller than the bound; or a server that ends TLS without a word.
                Ok(0) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(n) => moved.received += n as u64,
                Err(e) => return Err(self.stuck("reading the body", &e, moved)),
            }
        }
        Ok(())
    }

    /// Ends a transfer that goes on too long: slow by itself is no fault.
    fn look_at_clock(&self, begin: Instant, moved: &Moved) -> Result<(), Trouble> {
        let (limit, took) = (self.plan.limits.each, begin.elapsed());
        if took < limit * 2 {
            return Ok(());
        }
        let bytes = moved.received.max(moved.sent);
        Err(Trouble::NotRun(format!(
            "only {bytes} bytes in {:.0} s; the way is slow, or the server",
            took.as_secs_f64()
        )))
    }

    fn stuck(&self, doing: &str, error: &io::Error, moved: &Moved) -> Trouble {
        let bytes = moved.received.max(moved.sent);
        Trouble::Failed(match waits(error) {
            true => format!(
                "{doing}: nothing moved for {:.0} s, after {bytes} bytes",
                self.plan.limits.each.as_secs_f64()
            ),
            false => format!("{doing}: {error}, after {bytes} bytes"),
        })
    }
}

fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, ProbeError> {
    let file = match trust {
        Trust::System => PathBuf::from(SYSTEM_CERTIFICATES),
        Trust::Authority(file) => file.clone(),
        Trust::Anyone => {
            let config = ClientConfig::builder()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anyone))
                .with_no_client_auth();
            return Ok(Arc::new(config));
        }
    };
    let fail = |why: String| ProbeError::Certificates {
        path: file.clone(),
        why,
    };
    let pem = fs::read(&file).map_err(|e| fail(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(fail("there are none in it".to_owned()));
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    Ok(Arc::new(config.with_no_client_auth()))
}

/// Believes every certificate.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, tls, host, port, path, authority) in [
            ("http://a.example", false, "a.example", 80, "/", "a.example"),
            (
                "https://a.example/x?y",
                true,
                "a.example",
                443,
                "/x?y",
                "a.example",
            ),
            (
                "https://a.example:8443?y",
                true,
                "a.example",
                8443,
                "/?y",
                "a.example:8443",
            ),
            (
                "http://[2001:db8::1]/x",
                false,
                "2001:db8::1",
                80,
                "/x",
                "[2001:db8::1]",
            ),
            (
                "http://[2001:db8::1]:81/",
                false,
                "2001:db8::1",
                81,
                "/",
                "[2001:db8::1]:81",
            ),
        ] {
            let target = Target::parse(url).unwrap();
            let expected = Target {
                tls,
                host: host.to_owned(),
                port,
                path: path.to_owned(),
            };
            assert_eq!(target, expected, "{url}");
            assert_eq!(target.authority(), authority);
        }
        for bad in [
            "",
            "a.example",
            "ftp://a",
            "http://",
            "http://a:b/",
            "http://u@a/",
            "http://a/\r\nX: y",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let trust = Trust::Authority("/etc/hostname".into());
        let error = client_config(&trust).unwrap_err();
        assert!(error.to_string().contains("/etc/hostname"), "{error}");
        assert!(client_config(&Trust::Anyone).is_ok());
    }
}
