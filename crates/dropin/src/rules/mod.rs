//! Suricata's rule language, as far as layer-7 policy is written in it.
//!
//! A rule that is not understood is an error with its place, because to leave it out would allow something
//! that nobody asked for. Of a pass rule it would deny something: that can be told apart
//! ([`parse_known`]), for callers to whom a file that is refused is worse.
//! Syntax: Suricata 7's "Suricata Rules" chapter of its user guide.

mod lex;
mod parse;

use std::fmt;

pub use parse::{Parsed, parse, parse_known};

/// A rule file of that many bytes is not one.
pub const FILE_BYTES_MAX: usize = 16 << 20;

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets it pass; beats every other action (`action-order` of Suricata).
    Pass,
    /// Drops it and resets the connection.
    Reject,
    /// Drops it.
    Drop,
    /// Reports it.
    Alert,
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Every IP packet.
    Ip,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// HTTP, found by its bytes.
    Http,
    /// TLS, found by its bytes.
    Tls,
}

/// The part of a transaction that a content is looked for in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffer {
    /// `http.uri`: path and query in normal form.
    HttpUri,
    /// `http.method`.
    HttpMethod,
    /// `http.host`: lower case, without port.
    HttpHost,
    /// `tls.sni`.
    TlsSni,
}

/// How a content is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Where.
    pub buffer: Buffer,
    /// The bytes, escapes undone.
    pub bytes: Vec<u8>,
    /// At the buffer's start.
    pub startswith: bool,
    /// At its end.
    pub endswith: bool,
    /// Without regard to case.
    pub nocase: bool,
}

/// Which packets of a flow a rule looks at (`flow`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowOption {
    /// Those of the client.
    pub to_server: bool,
    /// Those of the server.
    pub to_client: bool,
    /// Those of connections that both sides have spoken in.
    pub established: bool,
}

/// What a rule does with a bit of the flow (`flowbits`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowBit {
    /// Sets it.
    Set(String),
    /// Matches only if it is set.
    IsSet(String),
    /// Matches only if it is not.
    IsNotSet(String),
}

/// What narrows a rule down besides contents. Each is a way to say "what no pass rule has let through, as
/// soon as that is known".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `app-layer-protocol: !NAME`: another protocol was recognised.
    NotProtocol(Protocol),
    /// `app-layer-protocol: failed`: none was.
    NoProtocol,
    /// `flow.bytes_toserver: >N`.
    BytesToServer(u64),
    /// `flow.age: >N`, in seconds.
    Age(u64),
    /// The protocol has a hook, at which a request's head or a ClientHello is complete.
    HeadComplete,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it begins in its file, from 1.
    pub line: usize,
    /// What it does.
    pub action: Action,
    /// What it is about.
    pub protocol: Protocol,
    /// Its message.
    pub msg: String,
    /// Signature number.
    pub sid: u32,
    /// Group number; 1 unless it says so.
    pub gid: u32,
    /// Revision; 0 unless it says so.
    pub rev: u32,
    /// Packets of a flow.
    pub flow: FlowOption,
    /// VLAN (`vlan.id`), in the outermost tag.
    pub vlan: Option<u16>,
    /// Bits of the flow.
    pub flowbits: Vec<FlowBit>,
    /// Is not reported when it matches (`noalert`).
    pub noalert: bool,
    /// Everything that must be found; all of it.
    pub contents: Vec<Content>,
    /// What else must be so; all of it.
    pub conditions: Vec<Condition>,
}

/// Why a rule file was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct RuleError {
    /// The line that the rule begins in, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file is too long.
    #[error("the file has more than {FILE_BYTES_MAX} bytes")]
    TooLong,
    /// It is no text.
    #[error("bytes that are not UTF-8")]
    NotText,
    /// The part before the options is no rule's.
    #[error("a rule reads `action protocol source port -> destination port (options)`, not {0:?}")]
    Header(String),
    /// An action that is not known here.
    #[error(
        "action {0:?} is not known here; known are pass, reject, rejectsrc, rejectboth, drop and alert"
    )]
    Action(String),
    /// A protocol that is not known here.
    #[error(
        "protocol {0:?} is not known here; known are ip, tcp, udp, http, http1, tls, http1:request_headers and tls:client_hello_done"
    )]
    Protocol(String),
    /// Addresses or ports other than `any`.
    #[error("{0:?}: addresses and ports other than `any` are not known here")]
    Address(String),
    /// The options do not end.
    #[error("the options have no end: {0}")]
    Unclosed(&'static str),
    /// An option that is not known here.
    #[error("option {0:?} is not known here")]
    Option(String),
    /// An option's value makes no sense.
    #[error("{option}: {value:?} {what}")]
    Value {
        /// Which option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An option is there that needs another one before it.
    #[error("{option}: needs {needs} before it")]
    Order {
        /// Which option.
        option: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// A keyword of one protocol in the rule of another.
    #[error("{keyword} in a rule about {protocol:?}")]
    OtherProtocol {
        /// The keyword.
        keyword: Buffer,
        /// The rule's protocol.
        protocol: Protocol,
    },
    /// There is no signature number.
    #[error("a rule needs a sid")]
    NoSid,
    /// The number is there twice.
    #[error("sid {sid} is that of the rule in line {other} as well")]
    SameSid {
        /// The number.
        sid: u32,
        /// Where else.
        other: usize,
    },
}

impl fmt::Display for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HttpUri => "http.uri",
            Self::HttpMethod => "http.method",
            Self::HttpHost => "http.host",
            Self::TlsSni => "tls.sni",
        })
    }
}
