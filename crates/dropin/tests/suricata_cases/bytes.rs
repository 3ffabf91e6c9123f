//! What clients and servers say: HTTP, TLS, HTTP/2.

/// A request without body, of HTTP/1.1.
pub fn request(method: &str, target: &str, host: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// A GET with more lines in its head.
pub fn with_lines(target: &str, host: &str, lines: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n").into_bytes()
}

/// A request with a body of stated length.
pub fn post(target: &str, host: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A server's answer.
pub fn ok() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
}

/// How a hello differs from the usual one.
#[derive(Clone, Copy, Default)]
pub struct Hello<'a> {
    pub sni: Option<&'a [u8]>,
    pub alpn: Option<&'a str>,
    /// A key share of X25519MLKEM768, as browsers send.
    pub is_post_quantum: bool,
    /// The highest version is 1.2.
    pub is_old: bool,
    /// Bytes of a padding extension.
    pub padding: usize,
}

fn u16_len(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap();
    [&len.to_be_bytes()[..], bytes].concat()
}

fn u8_len(bytes: &[u8]) -> Vec<u8> {
    let len = u8::try_from(bytes.len()).unwrap();
    [&[len][..], bytes].concat()
}

fn extension(number: u16, bytes: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &u16_len(bytes)].concat()
}

/// A handshake message.
pub fn handshake(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[kind][..], &len[1..], bytes].concat()
}

/// A record.
pub fn record(kind: u8, version: [u8; 2], bytes: &[u8]) -> Vec<u8> {
    [&[kind][..], &version, &u16_len(bytes)].concat()
}

/// A ClientHello as handshake message (RFC 8446, 4.1.2).
pub fn hello_message(hello: &Hello) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(sni) = hello.sni {
        let name = [&[0][..], &u16_len(sni)].concat();
        extensions.extend(extension(0, &u16_len(&name)));
    }
    extensions.extend(extension(
        10,
        &u16_len(&[0x11, 0xec, 0x00, 0x1d, 0x00, 0x17]),
    ));
    extensions.extend(extension(
        13,
        &u16_len(&[0x04, 0x03, 0x08, 0x04, 0x04, 0x01]),
    ));
    if let Some(alpn) = hello.alpn {
        extensions.extend(extension(16, &u16_len(&u8_len(alpn.as_bytes()))));
    }
    if !hello.is_old {
        extensions.extend(extension(43, &u8_len(&[0x03, 0x04, 0x03, 0x03])));
        let mut shares = Vec::new();
        if hello.is_post_quantum {
            shares.extend([0x11, 0xec]);
            shares.extend(u16_len(&[0x5a; 1216]));
        }
        shares.extend([0x00, 0x1d]);
        shares.extend(u16_len(&[0x77; 32]));
        extensions.extend(extension(51, &u16_len(&shares)));
    }
    if hello.padding > 0 {
        extensions.extend(extension(21, &vec![0; hello.padding]));
    }
    let body = [
        &[0x03, 0x03][..],
        &[0x42; 32],
        &u8_len(&[0x24; 32]),
        &u16_len(&[0x13, 0x01, 0x13, 0x02, 0xc0, 0x2b, 0xc0, 0x2f]),
        &u8_len(&[0]),
        &u16_len(&extensions),
    ]
    .concat();
    handshake(1, &body)
}

/// A ClientHello in a record.
pub fn hello(hello: &Hello) -> Vec<u8> {
    record(22, [3, 1], &hello_message(hello))
}

/// The usual hello to a name.
pub fn hello_to(sni: &str) -> Vec<u8> {
    hello(&Hello {
        sni: Some(sni.as_bytes()),
        ..Hello::default()
    })
}

/// A server's flight of TLS 1.3: hello, and what is encrypted.
pub fn server_hello() -> Vec<u8> {
    let mut extensions = extension(43, &[3, 4]);
    extensions.extend(extension(
        51,
        &[&[0x00, 0x1d][..], &u16_len(&[0x88; 32])].concat(),
    ));
    let body = [
        &[0x03, 0x03][..],
        &[0x43; 32],
        &u8_len(&[0x24; 32]),
        &[0x13, 0x01, 0x00],
        &u16_len(&extensions),
    ]
    .concat();
    let mut flight = record(22, [3, 3], &handshake(2, &body));
    flight.extend(record(20, [3, 3], &[1]));
    flight.extend(record(23, [3, 3], &[0xee; 600]));
    flight
}

/// A client's end of the handshake and what it asks for, encrypted.
pub fn client_rest() -> Vec<u8> {
    let mut flight = record(20, [3, 3], &[1]);
    flight.extend(record(23, [3, 3], &[0xcc; 53]));
    flight.extend(record(23, [3, 3], &[0xdd; 120]));
    flight
}

/// What a client of HTTP/2 begins with (RFC 9113, 3.4).
pub fn preface() -> Vec<u8> {
    [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(4, 0, 0, &[]),
    ]
    .concat()
}

/// A frame of HTTP/2.
pub fn frame(kind: u8, flags: u8, stream: u32, bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), bytes].concat()
}

/// A GET of HTTP/2, complete with its head.
pub fn stream(number: u32, path: &str, authority: &str) -> Vec<u8> {
    // Static table: GET, http (RFC 7541, appendix A); path and authority as literals.
    let mut block = vec![0x82, 0x86, 0x04];
    block.extend(u8_len(path.as_bytes()));
    block.push(0x01);
    block.extend(u8_len(authority.as_bytes()));
    const END_STREAM_AND_HEADERS: u8 = 0x5;
    frame(1, END_STREAM_AND_HEADERS, number, &block)
}

/// A server's answer to a stream: settings, status 200 and nothing else.
pub fn stream_ok(number: u32) -> Vec<u8> {
    [frame(4, 0, 0, &[]), frame(1, 0x5, number, &[0x88])].concat()
}
