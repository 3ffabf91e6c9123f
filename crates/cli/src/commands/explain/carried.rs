//! What the flow carries, from the options to the facts that rules look at.

use tollgate_l7::{HttpEvent, Request, RequestReader};
use tollgate_policy::{HttpFacts, HttpUnsaid, L7Query, TlsFacts, TlsUnsaid};

use crate::exit::Failure;

/// What stands for a host that was not given; RFC 2606 keeps it from being anyone's.
const NO_HOST: &str = "host.invalid";

/// Options that say what the flow carries. A value that is not given is not known; a flag that is
/// not given says no.
#[derive(Debug, Default, clap::Args)]
pub struct CarriedArgs {
    /// The request: 'METHOD host/path?query'
    #[arg(long, value_name = "REQUEST")]
    http: Option<String>,
    /// A gRPC call; its host is not known unless it stands in front
    #[arg(long, value_name = "[HOST/]SERVICE/METHOD", conflicts_with = "http")]
    grpc: Option<String>,
    /// A header field of the request, 'Name: value'; 'Name:' says that there is none, 'Name;' that
    /// it is empty. Fields not given are not known
    #[arg(short = 'H', long, value_name = "FIELD")]
    header: Vec<String>,
    /// The request asks to go on in another protocol, such as websocket
    #[arg(long, value_name = "PROTOCOL", requires = "http")]
    upgrade: Option<String>,
    /// The server name of a TLS ClientHello; empty: none is sent
    #[arg(long, value_name = "NAME", conflicts_with_all = ["http", "grpc"])]
    sni: Option<String>,
    /// A protocol that the ClientHello offers, such as h2; empty: none is offered
    #[arg(long, value_name = "PROTOCOL", conflicts_with_all = ["http", "grpc"])]
    alpn: Vec<String>,
    /// The highest version that the ClientHello offers: 1.0, 1.1, 1.2 or 1.3
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["http", "grpc"])]
    tls_version: Option<String>,
    /// The ClientHello has an encrypted one inside
    #[arg(long, conflicts_with_all = ["http", "grpc"])]
    ech: bool,
    /// The ClientHello comes in QUIC, over UDP
    #[arg(long, conflicts_with_all = ["http", "grpc"])]
    pub quic: bool,
}

/// What the flow carries.
pub enum Carried {
    /// Nothing was said of it.
    Unknown,
    Request(Box<Asked>),
    Hello(Hello),
    /// A request that is refused whatever the policy says.
    Refused(Refusal),
}

/// A request as the engine reads it.
pub struct Asked {
    request: Request,
    grpc: Option<(String, String)>,
    host_unsaid: bool,
    absent: Vec<String>,
}

/// A ClientHello.
pub struct Hello {
    sni: Option<String>,
    alpn: Vec<String>,
    version: Option<u16>,
    ech: bool,
    quic: bool,
    unsaid: TlsUnsaid,
}

/// Why a request is refused whatever the policy says.
#[derive(Debug)]
pub struct Refusal {
    pub reason: &'static str,
    pub detail: &'static str,
}

impl CarriedArgs {
    /// Reads the options; `over_udp`: the flow is UDP, so that a ClientHello comes in QUIC.
    pub fn carried(&self, over_udp: bool) -> Result<Carried, Failure> {
        let fields = Fields::read(&self.header)?;
        if let Some(text) = &self.http {
            return self.request(text, fields).map(Carried::from);
        }
        if let Some(text) = &self.grpc {
            return call(text, fields).map(Carried::from);
        }
        if !self.header.is_empty() {
            return Err(Failure::usage("--header needs a request")
                .hint("give --http 'METHOD host/path' or --grpc SERVICE/METHOD"));
        }
        match self.hello_said() {
            true => self.hello(over_udp).map(Carried::Hello),
            false => Ok(Carried::Unknown),
        }
    }

    /// Whether the options describe what only TCP carries in the clear.
    pub fn needs_tcp(&self) -> bool {
        self.http.is_some() || self.grpc.is_some()
    }

    fn hello_said(&self) -> bool {
        let values = self.sni.is_some() || !self.alpn.is_empty() || self.tls_version.is_some();
        values || self.ech || self.quic
    }

    fn hello(&self, over_udp: bool) -> Result<Hello, Failure> {
        let version = self.tls_version.as_deref().map(version).transpose()?;
        let not_empty = |text: &&String| !text.is_empty();
        Ok(Hello {
            sni: self.sni.iter().find(not_empty).cloned(),
            alpn: self.alpn.iter().filter(not_empty).cloned().collect(),
            version,
            ech: self.ech,
            quic: self.quic || over_udp,
            unsaid: TlsUnsaid {
                sni: self.sni.is_none(),
                alpn: self.alpn.is_empty(),
                version: version.is_none(),
            },
        })
    }

    fn request(&self, text: &str, mut fields: Fields) -> Result<Result<Asked, Refusal>, Failure> {
        let bad = || {
            Failure::usage(format!("--http {text:?}: not 'METHOD host/path'"))
                .hint("such as 'GET api.example.com/v1/items?page=2'")
        };
        let (method, rest) = text.trim().split_once(' ').ok_or_else(bad)?;
        let rest = rest.trim();
        let rest = rest.strip_prefix("http://").unwrap_or(rest);
        let cut = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(cut);
        let target = match (method, path) {
            ("CONNECT", _) => host.to_owned(),
            (_, "") => "/".to_owned(),
            (_, path) if path.starts_with('?') => format!("/{path}"),
            (_, path) => path.to_owned(),
        };
        // A blank or line break in it would make another request than the one that was meant.
        if method.is_empty() || text.contains(['\r', '\n']) || target.contains(' ') {
            return Err(bad());
        }
        fields.add_unless_given("Host", host);
        if let Some(protocol) = &self.upgrade {
            fields.add_unless_given("Connection", "Upgrade");
            fields.add_unless_given("Upgrade", checked("--upgrade", protocol)?);
        }
        let read = read(method, &target, &fields).ok_or_else(bad)?;
        Ok(read.map(|request| Asked {
            request,
            grpc: None,
            host_unsaid: false,
            absent: fields.absent,
        }))
    }
}

impl From<Result<Asked, Refusal>> for Carried {
    fn from(read: Result<Asked, Refusal>) -> Self {
        match read {
            Ok(asked) => Self::Request(Box::new(asked)),
            Err(refusal) => Self::Refused(refusal),
        }
    }
}

impl Carried {
    /// The facts for the policy.
    pub fn query(&self) -> Option<L7Query<'_>> {
        match self {
            Self::Unknown | Self::Refused(_) => None,
            Self::Request(asked) => Some(asked.query()),
            Self::Hello(hello) => Some(hello.query()),
        }
    }
}

impl Asked {
    fn query(&self) -> L7Query<'_> {
        let request = &self.request;
        let facts = HttpFacts {
            method: &request.method,
            host: if self.host_unsaid { "" } else { &request.host },
            path: &request.path.normal,
            query: request.query.as_deref(),
            path_ambiguous: request.path.ambiguous.is_some(),
            headers: &request.headers,
            grpc: self.grpc.as_ref().map(|(s, m)| (s.as_str(), m.as_str())),
            upgrade: request.connect || request.upgrade.is_some(),
        };
        let unsaid = HttpUnsaid {
            host: self.host_unsaid,
            headers_but: Some(&self.absent),
        };
        L7Query::Http(facts, unsaid)
    }
}

impl Hello {
    fn query(&self) -> L7Query<'_> {
        let facts = TlsFacts {
            sni: self.sni.as_deref(),
            alpn: &self.alpn,
            version: self.version,
            ech: self.ech,
            quic: self.quic,
        };
        L7Query::Tls(facts, self.unsaid)
    }
}

/// Header fields as the options give them, in curl's words.
#[derive(Default)]
struct Fields {
    lines: Vec<(String, String)>,
    absent: Vec<String>,
}

impl Fields {
    fn read(options: &[String]) -> Result<Self, Failure> {
        let mut fields = Self::default();
        for option in options {
            let text = checked("--header", option)?;
            if let Some((name, value)) = text.split_once(':') {
                match value.trim() {
                    "" => fields.absent.push(name.to_owned()),
                    value => fields.lines.push((name.to_owned(), value.to_owned())),
                }
            } else if let Some(name) = text.strip_suffix(';') {
                fields.lines.push((name.to_owned(), String::new()));
            } else {
                return Err(
                    Failure::usage(format!("--header {text:?}: not 'Name: value'"))
                        .hint("'Name:' says that there is no such field, 'Name;' that it is empty"),
                );
            }
        }
        Ok(fields)
    }

    fn value(&self, name: &str) -> Option<&str> {
        let found = self
            .lines
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Adds a field unless it was given, as one that is there or as one that is not.
    fn add_unless_given(&mut self, name: &str, value: &str) {
        let absent = self.absent.iter().any(|n| n.eq_ignore_ascii_case(name));
        if self.value(name).is_none() && !absent {
            self.lines.insert(0, (name.to_owned(), value.to_owned()));
        }
    }
}

fn checked<'a>(option: &str, text: &'a str) -> Result<&'a str, Failure> {
    match text.contains(['\r', '\n']) {
        true => Err(Failure::usage(format!(
            "{option} {text:?}: has a line break"
        ))),
        false => Ok(text),
    }
}

/// Reads the request with the engine's own reader, so that the answer is the engine's. `None`:
/// what was given makes no head.
fn read(method: &str, target: &str, fields: &Fields) -> Option<Result<Request, Refusal>> {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    for (name, value) in &fields.lines {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    let mut reader = RequestReader::new();
    reader.keep_headers(true);
    match reader.push(head.as_bytes()).event {
        HttpEvent::Request(request) => Some(Ok(request)),
        HttpEvent::Refused(refusal) => Some(Err(Refusal {
            reason: refusal.reason,
            detail: refusal.detail,
        })),
        HttpEvent::NeedMore | HttpEvent::BodyEnd => None,
    }
}

/// A gRPC call is a POST of `/service/method`.
fn call(text: &str, mut fields: Fields) -> Result<Result<Asked, Refusal>, Failure> {
    let bad = || {
        Failure::usage(format!("--grpc {text:?}: not SERVICE/METHOD"))
            .hint("such as shop.v1.Catalog/GetItem, or api.example.com/shop.v1.Catalog/GetItem")
    };
    let text = text.trim().trim_start_matches('/');
    let (service, method) = text.rsplit_once('/').ok_or_else(bad)?;
    let (host, service) = match service.rsplit_once('/') {
        Some((host, service)) => (Some(host), service),
        None => (fields.value("Host"), service),
    };
    let plain = |name: &str, dots: bool| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (dots && b == b'.');
        !name.is_empty() && name.bytes().all(allowed)
    };
    if !plain(service, true) || !plain(method, false) {
        return Err(bad());
    }
    let host_unsaid = host.is_none();
    let host = checked("--grpc", host.unwrap_or(NO_HOST))?.to_owned();
    fields
        .lines
        .retain(|(name, _)| !name.eq_ignore_ascii_case("Host"));
    fields.add_unless_given("Host", &host);
    fields.add_unless_given("Content-Type", "application/grpc");
    let target = format!("/{service}/{method}");
    let read = read("POST", &target, &fields).ok_or_else(bad)?;
    Ok(read.map(|request| Asked {
        request,
        grpc: Some((service.to_owned(), method.to_owned())),
        host_unsaid,
        absent: fields.absent,
    }))
}

fn version(text: &str) -> Result<u16, Failure> {
    // RFC 8446, section 4.2.1.
    match text {
        "1.0" => Ok(0x0301),
        "1.1" => Ok(0x0302),
        "1.2" => Ok(0x0303),
        "1.3" => Ok(0x0304),
        _ => Err(Failure::usage(format!("--tls-version {text}: unknown"))
            .hint("1.0, 1.1, 1.2 or 1.3: the highest that the client offers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Code;

    fn http(text: &str, headers: &[&str]) -> Result<Result<Asked, Refusal>, Failure> {
        let headers: Vec<_> = headers.iter().map(|h| (*h).to_owned()).collect();
        CarriedArgs::default().request(text, Fields::read(&headers)?)
    }

    #[test]
    fn requests_are_read_as_the_engine_reads_them() {
        for (text, method, host, target) in [
            ("GET a.example/x?y=1", "GET", "a.example", "/x?y=1"),
            ("GET a.example", "GET", "a.example", "/"),
            ("PUT http://A.example:8080/x", "PUT", "a.example", "/x"),
            ("GET a.example?q", "GET", "a.example", "/?q"),
            (
                "CONNECT a.example:443",
                "CONNECT",
                "a.example",
                "a.example:443",
            ),
        ] {
            let Ok(Ok(asked)) = http(text, &[]) else {
                panic!("{text}")
            };
            let request = asked.request;
            let read = (
                request.method.as_str(),
                request.host.as_str(),
                request.target.as_str(),
            );
            assert_eq!(read, (method, host, target), "{text}");
        }
        for text in ["", "GET", "a.example/x", "GET a/b c", "GET a/\r\nX: y"] {
            assert_eq!(
                http(text, &[]).err().map(|f| f.code()),
                Some(Code::Usage),
                "{text:?}"
            );
        }
        let Ok(Err(refusal)) = http("GET a_\u{1}b/", &[]) else {
            panic!("refused")
        };
        assert!(refusal.reason.starts_with("http-"), "{}", refusal.reason);
    }

    #[test]
    fn header_fields_are_given_as_to_curl() {
        let given = ["X-A: 1", "X-B:", "X-C;", "host: b.example"];
        let Ok(Ok(asked)) = http("GET a.example/", &given) else {
            panic!("read")
        };
        assert_eq!(asked.request.host, "b.example");
        let header = |name: &str| {
            let found = asked.request.headers.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(header("X-A"), Some("1"));
        assert_eq!(header("X-B"), None);
        assert_eq!(header("X-C"), Some(""));
        assert_eq!(asked.absent, ["X-B"]);
        assert!(http("GET a/", &["X-A"]).is_err());
        assert!(http("GET a/", &["X-A: 1\r\nX-B: 2"]).is_err());
    }

    #[test]
    fn calls_have_a_host_only_if_it_was_given() {
        let call = |text: &str, header: Option<&str>| {
            let header: Vec<_> = header.map(str::to_owned).into_iter().collect();
            call(text, Fields::read(&header).ok()?).ok()?.ok()
        };
        let plain = call("shop.v1.Cat/Get", None).expect("read");
        assert!(plain.host_unsaid);
        assert_eq!(plain.request.target, "/shop.v1.Cat/Get");
        let with = call("a.example:50051/shop.v1.Cat/Get", None).expect("read");
        assert!(!with.host_unsaid);
        assert_eq!(with.request.host, "a.example");
        let field = call("Cat/Get", Some("Host: b.example")).expect("read");
        assert_eq!(
            (field.host_unsaid, &*field.request.host),
            (false, "b.example")
        );
        for text in ["Get", "Cat/", "Cat/Get x", "Cat/Get?x"] {
            assert!(call(text, None).is_none(), "{text}");
        }
    }
}
