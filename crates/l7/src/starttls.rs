//! TLS that starts inside another protocol: what the client says before its ClientHello.
//!
//! The client asks for TLS, the server agrees, the ClientHello follows. Until the server has
//! agreed the client must be silent: what it sends too early is plain text to the server and, for
//! whoever believes that TLS has begun, part of TLS (CVE-2011-0411, CVE-2021-23214).

pub(crate) mod ldap;
pub(crate) mod mysql;
pub(crate) mod postgres;
pub(crate) mod smtp;

use crate::refusal::{Refusal, STARTTLS_INJECTION};

/// Longest answer of a server to the request for TLS that is waited for, in bytes. Real ones are a
/// byte or a short line.
pub const ANSWER_MAX: usize = 4096;

/// The protocols in which TLS may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StarttlsProtocol {
    /// SMTP and LMTP (RFC 3207).
    Smtp,
    /// PostgreSQL's protocol, version 3 (`SSLRequest`).
    PostgreSql,
}

/// What the client's bytes so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StarttlsEvent {
    /// The request for TLS is not complete.
    NeedMore,
    /// It is complete, and nothing follows. Everything was consumed; the client must now wait for
    /// the server's answer, and the reader refuses more.
    AwaitServer,
    /// The client does something else. The reader says the same from now on.
    Refused(Refusal),
}

/// Reads what a client sends up to its request for TLS, in plain text. Holds a few bytes.
///
/// Refuses at the first byte that cannot belong to it, because the bytes before may be on their
/// way to the server already.
#[derive(Debug)]
pub struct StarttlsReader {
    state: State,
}

#[derive(Debug)]
enum State {
    Smtp(smtp::Commands),
    PostgreSql(postgres::Request),
    /// The request is complete; what the reader goes on with if the server declines.
    Asked(StarttlsProtocol),
    Refused(Refusal),
}

impl StarttlsReader {
    /// A reader at the start of the client's stream.
    pub fn new(protocol: StarttlsProtocol) -> Self {
        let state = match protocol {
            StarttlsProtocol::Smtp => State::Smtp(smtp::Commands::default()),
            StarttlsProtocol::PostgreSql => State::PostgreSql(postgres::Request::default()),
        };
        Self { state }
    }

    /// Reads the next piece of the stream.
    pub fn push(&mut self, bytes: &[u8]) -> StarttlsEvent {
        let (result, protocol) = match &mut self.state {
            State::Smtp(commands) => (commands.push(bytes), StarttlsProtocol::Smtp),
            State::PostgreSql(request) => (request.push(bytes), StarttlsProtocol::PostgreSql),
            State::Asked(_) if bytes.is_empty() => return StarttlsEvent::AwaitServer,
            State::Asked(protocol) => (Err(STARTTLS_INJECTION), *protocol),
            State::Refused(refusal) => return StarttlsEvent::Refused(*refusal),
        };
        match result {
            Ok(false) => StarttlsEvent::NeedMore,
            Ok(true) => {
                self.state = State::Asked(protocol);
                StarttlsEvent::AwaitServer
            }
            Err(refusal) => {
                self.state = State::Refused(refusal);
                StarttlsEvent::Refused(refusal)
            }
        }
    }

    /// The server has answered no, and the client may go on in plain text: with SMTP as before its
    /// request (to end the session, or to ask again), with PostgreSQL not at all.
    pub fn server_declined(&mut self) {
        if let State::Asked(protocol) = self.state {
            self.state = match protocol {
                StarttlsProtocol::Smtp => State::Smtp(smtp::Commands::default()),
                StarttlsProtocol::PostgreSql => State::PostgreSql(postgres::Request::declined()),
            };
        }
    }
}

/// Whether the server agrees to TLS, from all bytes that it sent in answer to the request; `None`
/// as long as they do not tell. With [`ANSWER_MAX`] bytes they always do.
///
/// Bytes behind the agreement make it `false`: a server waits for the ClientHello, so they are
/// from somebody else or from a server that did not understand (CVE-2021-23222).
///
/// SMTP servers greet with the code that stands for agreement. The greeting must not be shown here
/// as the answer, so a client that speaks before it has seen the server's greeting (RFC 5321
/// section 4.3.1 forbids it) must be refused by the caller, who sees both directions.
pub fn server_agrees(
    protocol: StarttlsProtocol,
    server_bytes_after_request: &[u8],
) -> Option<bool> {
    match protocol {
        StarttlsProtocol::Smtp => smtp::agrees(server_bytes_after_request),
        StarttlsProtocol::PostgreSql => postgres::agrees(server_bytes_after_request),
    }
}
