//! SMTP commands before STARTTLS.

use super::ANSWER_MAX;
use crate::detect::{Detected, Match};
use crate::refusal::{Refusal, SMTP_MALFORMED, SMTP_WITHOUT_TLS, STARTTLS_INJECTION};

/// What a client may greet with; the last is LMTP's (RFC 2033).
const GREETINGS: [&[u8]; 3] = [b"EHLO", b"HELO", b"LHLO"];
/// Length of each of them.
const GREETING_LEN: usize = 4;
/// What it may say besides before it asks for TLS: nothing that hands over mail or a password.
const HARMLESS: [&[u8]; 4] = [b"NOOP", b"RSET", b"HELP", b"QUIT"];
const STARTTLS: &[u8] = b"STARTTLS";
/// Longest command line, with its CRLF (RFC 5321 section 4.5.3.1.4).
const LINE_MAX: usize = 512;
/// The longest verb.
const VERB_MAX: usize = STARTTLS.len();
/// The reply that agrees to TLS (RFC 3207 section 4).
const AGREED: &[u8] = b"220";

pub(crate) fn recognise(prefix: &[u8]) -> Match {
    let word = prefix.get(..GREETING_LEN).unwrap_or(prefix);
    let possible = |greeting: &&[u8]| {
        greeting
            .get(..word.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    if !GREETINGS.iter().any(possible) {
        return Match::No;
    }
    match prefix.get(GREETING_LEN) {
        None => Match::Maybe,
        Some(b' ' | b'\r' | b'\n') => Match::Yes(Detected::Smtp),
        Some(_) => Match::No,
    }
}

/// Reads command lines up to STARTTLS.
#[derive(Debug, Default)]
pub(super) struct Commands {
    /// The line's first word, in upper case.
    verb: [u8; VERB_MAX],
    verb_len: usize,
    /// Bytes of the line so far.
    line_len: usize,
    place: Place,
}

/// Where in a line.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Verb,
    Arguments,
    /// Behind the CR.
    End,
    /// Behind the line with STARTTLS.
    Asked,
}

impl Commands {
    /// `true` with the last byte of the request for TLS.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<bool, Refusal> {
        for &byte in bytes {
            self.line_len += 1;
            if self.line_len > LINE_MAX {
                return Err(SMTP_MALFORMED);
            }
            match self.place {
                Place::Verb => self.read_verb(byte)?,
                Place::Arguments => self.read_arguments(byte)?,
                Place::End => self.read_end(byte)?,
                Place::Asked => return Err(STARTTLS_INJECTION),
            }
        }
        Ok(self.place == Place::Asked)
    }

    fn verb(&self) -> &[u8] {
        self.verb.get(..self.verb_len).unwrap_or_default()
    }

    fn read_verb(&mut self, byte: u8) -> Result<(), Refusal> {
        let known = || GREETINGS.iter().chain(&HARMLESS).chain([&STARTTLS]);
        if byte == b'\n' || (byte == b'\r' && self.verb_len == 0) {
            return Err(SMTP_MALFORMED);
        }
        if byte == b' ' || byte == b'\r' {
            if !known().any(|verb| *verb == self.verb()) {
                return Err(SMTP_WITHOUT_TLS);
            }
            // It takes no parameters (RFC 3207 section 4), and servers differ on what a space is.
            if byte == b' ' && self.verb() == STARTTLS {
                return Err(SMTP_MALFORMED);
            }
            self.place = if byte == b' ' {
                Place::Arguments
            } else {
                Place::End
            };
            return Ok(());
        }
        let place = self.verb.get_mut(self.verb_len).ok_or(SMTP_WITHOUT_TLS)?;
        *place = byte.to_ascii_uppercase();
        self.verb_len += 1;
        if known().any(|verb| verb.starts_with(self.verb())) {
            Ok(())
        } else {
            Err(SMTP_WITHOUT_TLS)
        }
    }

    fn read_arguments(&mut self, byte: u8) -> Result<(), Refusal> {
        match byte {
            b'\r' => self.place = Place::End,
            b'\t' => {}
            _ if byte.is_ascii_control() => return Err(SMTP_MALFORMED),
            _ => {}
        }
        Ok(())
    }

    fn read_end(&mut self, byte: u8) -> Result<(), Refusal> {
        if byte != b'\n' {
            return Err(SMTP_MALFORMED);
        }
        let asked = self.verb() == STARTTLS;
        *self = Self::default();
        if asked {
            self.place = Place::Asked;
        }
        Ok(())
    }
}

/// Reads one reply, of one line or several: `220-text` goes on, `220 text` and `220` end it.
pub(super) fn agrees(answer: &[u8]) -> Option<bool> {
    let mut rest = answer;
    loop {
        let code = rest.get(..AGREED.len()).unwrap_or(rest);
        if !AGREED.starts_with(code) {
            return Some(false);
        }
        let Some(end) = rest.iter().position(|&b| b == b'\n') else {
            return (answer.len() >= ANSWER_MAX).then_some(false);
        };
        let (line, behind) = rest.split_at(end + 1);
        match line.get(AGREED.len()) {
            Some(b'-') => rest = behind,
            Some(b' ' | b'\r' | b'\n') => return Some(behind.is_empty()),
            _ => return Some(false),
        }
    }
}
