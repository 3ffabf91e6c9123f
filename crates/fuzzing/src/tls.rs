//! TLS: the hello, what follows it, and the request for TLS inside another protocol.

use tollgate_l7::starttls::ANSWER_MAX;
use tollgate_l7::tls::{ALPN_MAX, EXTENSIONS_MAX, HELLO_MAX};
use tollgate_l7::{
    AfterHello, AfterHelloReader, ClientHello, ClientHelloReader, StarttlsEvent, StarttlsProtocol,
    StarttlsReader, TlsProgress, server_agrees,
};

use crate::cut::Stream;

/// What a reader may hold: a hello and the header of its message.
const BUFFER_MAX: usize = HELLO_MAX + 4;

/// The ClientHello, the second hello behind it and STARTTLS: two bytes that choose the cuts, then
/// the client's stream.
///
/// # Panics
/// If a promise of the readers is broken.
pub fn tls(data: &[u8]) {
    let Some(stream) = Stream::new(data) else {
        return;
    };
    stream.same_however_cut(hello);
    for early_data in [false, true] {
        stream.same_however_cut(|pieces| after(early_data, pieces));
    }
    for protocol in [StarttlsProtocol::Smtp, StarttlsProtocol::PostgreSql] {
        stream.same_however_cut(|pieces| starttls(protocol, pieces));
        agreement_is_stable(protocol, stream.bytes);
    }
}

/// The final answer, how much of the stream the hello took, and what follows it.
fn hello(pieces: &[&[u8]]) -> (TlsProgress, Option<(usize, AfterHello)>) {
    let mut reader = ClientHelloReader::new();
    let mut seen = 0;
    for (index, piece) in pieces.iter().enumerate() {
        seen += piece.len();
        let progress = reader.push(piece);
        assert!(reader.buffered() <= BUFFER_MAX);
        match &progress {
            TlsProgress::NeedMore => continue,
            TlsProgress::Done(hello) => {
                is_sound(hello);
                assert_eq!(reader.buffered(), 0);
                assert!(reader.behind() <= piece.len());
                let at = piece.len() - reader.behind();
                let mut rest = vec![piece.get(at..).unwrap_or_default()];
                rest.extend(pieces.get(index + 1..).unwrap_or_default());
                let after = after(hello.early_data, &rest);
                return (progress, Some((seen - reader.behind(), after)));
            }
            TlsProgress::Refused(_) => {
                assert_eq!(reader.buffered(), 0);
                assert_eq!(reader.push(&[22, 3, 1]), progress, "a refusal stays");
                return (progress, None);
            }
        }
    }
    (TlsProgress::NeedMore, None)
}

fn is_sound(hello: &ClientHello) {
    assert!(hello.extensions.len() <= EXTENSIONS_MAX);
    assert!(hello.alpn.len() <= ALPN_MAX);
    assert!(!hello.cipher_suites.is_empty());
    assert!(hello.session_id_len <= 32);
    assert!(hello.len <= BUFFER_MAX);
    let is_plain =
        |name: &String| !name.is_empty() && !name.bytes().any(|b| b.is_ascii_uppercase());
    assert!(hello.sni.as_ref().is_none_or(is_plain));
    for quic in [false, true] {
        assert!(hello.ja4(quic).is_ascii());
    }
    hello.max_version();
}

/// The final answer to what comes behind the first hello.
fn after(early_data: bool, pieces: &[&[u8]]) -> AfterHello {
    let mut reader = AfterHelloReader::new(early_data);
    for piece in pieces {
        let answer = reader.push(piece);
        assert!(reader.buffered() <= BUFFER_MAX);
        if answer != AfterHello::NeedMore {
            assert_eq!(reader.buffered(), 0);
            if let AfterHello::Second(hello) = &answer {
                is_sound(hello);
            }
            return answer;
        }
    }
    AfterHello::NeedMore
}

fn starttls(protocol: StarttlsProtocol, pieces: &[&[u8]]) -> StarttlsEvent {
    let mut reader = StarttlsReader::new(protocol);
    let mut last = StarttlsEvent::NeedMore;
    for piece in pieces {
        let event = reader.push(piece);
        let refused = matches!(last, StarttlsEvent::Refused(_));
        assert!(!refused || event == last, "a refusal stays");
        last = event;
    }
    last
}

/// A server's no stays a no, and a long answer always tells. A yes may still become a no: bytes
/// behind it take it back.
fn agreement_is_stable(protocol: StarttlsProtocol, answer: &[u8]) {
    let mut declined = false;
    for len in 0..=answer.len().min(64) {
        let says = server_agrees(protocol, answer.get(..len).unwrap_or_default());
        assert!(!declined || says == Some(false), "a no stays");
        declined = says == Some(false);
    }
    if let Some(long) = answer.get(..ANSWER_MAX) {
        assert!(server_agrees(protocol, long).is_some());
    }
}
