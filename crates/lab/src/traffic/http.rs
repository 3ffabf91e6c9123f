//! Just enough HTTP/1.1 for bulk transfers: a head, and a body of known length.

use std::io::Read;

use crate::error::{LabError, Result};

/// Longest head that is read.
const HEAD_MAX: usize = 64 << 10;
/// Most header fields in a head.
const FIELDS_MAX: usize = 64;

/// A response head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    /// Body length, if stated.
    pub length: Option<u64>,
}

/// A request head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Method.
    pub method: String,
    /// Target as sent.
    pub target: String,
    /// Body length; 0 if none is stated.
    pub length: u64,
}

/// Bytes that were read with a head and belong to what follows.
pub type Rest = Vec<u8>;

/// Reads a response head.
///
/// # Errors
/// The connection ends or stalls, or it is no HTTP.
pub fn read_response<R: Read>(stream: &mut R, rest: Rest) -> Result<(ResponseHead, Rest)> {
    let parsed = read_head(stream, rest, |bytes| {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(size) = response.parse(bytes)? else {
            return Ok(None);
        };
        let head = ResponseHead {
            status: response.code.unwrap_or(0),
            length: content_length(response.headers),
        };
        Ok(Some((head, size)))
    })?;
    parsed.ok_or_else(|| LabError::Traffic("the server closed before it answered".into()))
}

/// Reads a request head; `None` if the client closed instead.
///
/// # Errors
/// The connection stalls, ends inside a head, or it is no HTTP.
pub fn read_request<R: Read>(stream: &mut R, rest: Rest) -> Result<Option<(RequestHead, Rest)>> {
    read_head(stream, rest, |bytes| {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(size) = request.parse(bytes)? else {
            return Ok(None);
        };
        let head = RequestHead {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            length: content_length(request.headers).unwrap_or(0),
        };
        Ok(Some((head, size)))
    })
}

fn read_head<R: Read, T>(
    stream: &mut R,
    mut bytes: Rest,
    parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, httparse::Error>,
) -> Result<Option<(T, Rest)>> {
    let mut buffer = [0; 16 << 10];
    loop {
        let parsed = parse(&bytes).map_err(|e| LabError::Traffic(format!("not HTTP/1: {e}")))?;
        if let Some((head, size)) = parsed {
            return Ok(Some((head, bytes.split_off(size))));
        }
        if bytes.len() > HEAD_MAX {
            return Err(LabError::Traffic(format!(
                "a head of more than {HEAD_MAX} bytes"
            )));
        }
        let n = stream
            .read(&mut buffer)
            .map_err(|e| LabError::Traffic(format!("reading: {e}")))?;
        if n == 0 && bytes.is_empty() {
            return Ok(None);
        }
        if n == 0 {
            return Err(LabError::Traffic("closed inside a head".into()));
        }
        bytes.extend_from_slice(&buffer[..n]);
    }
}

fn content_length(fields: &[httparse::Header<'_>]) -> Option<u64> {
    let field = fields
        .iter()
        .find(|f| f.name.eq_ignore_ascii_case("content-length"))?;
    std::str::from_utf8(field.value).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out one byte a call.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else {
                return Ok(0);
            };
            out[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    #[test]
    fn reads_heads_in_any_pieces_and_keeps_the_rest() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\n\r\nhello";
        for (mut whole, kept) in [(&text[..], 5), (&text[..text.len() - 5], 0)] {
            let (head, rest) = read_response(&mut whole, Vec::new()).unwrap();
            assert_eq!(
                head,
                ResponseHead {
                    status: 200,
                    length: Some(5)
                }
            );
            assert_eq!(rest.len(), kept);
        }
        let (head, rest) = read_response(&mut Trickle(text), Vec::new()).unwrap();
        assert_eq!((head.status, rest.len()), (200, 0));
    }

    #[test]
    fn pipelined_requests_come_one_by_one() {
        let mut text =
            &b"PUT /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nxyGET /b HTTP/1.1\r\n\r\n"[..];
        let (first, rest) = read_request(&mut text, Vec::new()).unwrap().unwrap();
        assert_eq!((first.method.as_str(), first.length), ("PUT", 2));
        let (second, rest) = read_request(&mut text, rest[2..].to_vec())
            .unwrap()
            .unwrap();
        assert_eq!(second.target, "/b");
        assert_eq!(read_request(&mut text, rest).unwrap(), None);
    }

    #[test]
    fn refuses_what_is_no_http_and_what_is_endless() {
        assert!(read_response(&mut &b"SSH-2.0-x\r\n"[..], Vec::new()).is_err());
        assert!(read_response(&mut &b"HTTP/1.1 200 OK\r\n"[..], Vec::new()).is_err());
        let mut endless = b"GET / HTTP/1.1\r\nX: ".chain(std::io::repeat(b'a'));
        assert!(read_request(&mut endless, Vec::new()).is_err());
    }
}
