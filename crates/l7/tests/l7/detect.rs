use tollgate_l7::{DETECT_MAX, Detected, detect};

#[test]
fn first_bytes_name_the_protocol() {
    use Detected::{Http1, Http2Preface, NeedMore, SslV2, Tls, Unknown};
    let table: &[(&[u8], Detected)] = &[
        (b"", NeedMore),
        (b"\x16", NeedMore),
        (b"\x16\x03", Tls),
        (b"\x16\x03\x01\x00", Tls),
        (b"\x16\x02\x01", Unknown),
        (b"\x15\x03\x01", Unknown),
        (b"\x80", NeedMore),
        (b"\x80\x2e", NeedMore),
        (b"\x80\x2e\x01", NeedMore),
        (b"\x80\x2e\x01\x03", SslV2),
        (b"\x80\x2e\x01\x03\x01", SslV2),
        (b"\x81\x00\x01\x03\x00", SslV2),
        (b"\x80\x2e\x01\x00", NeedMore),
        (b"\x80\x2e\x01\x00\x02\x00", SslV2),
        (b"\x80\x2e\x01\x00\x03", Unknown),
        (b"\x80\x2e\x01\x02", Unknown),
        (b"\x80\x2e\x04", Unknown),
        (b"\x00\x2e\x01\x03\x01", Unknown),
        (b"G", NeedMore),
        (b"GET", NeedMore),
        (b"GET ", Http1),
        (b"GET / HTTP/1.1\r\n", Http1),
        (b"M-SEARCH * HTTP/1.1\r\n", Http1),
        (b"UPDATEREDIRECTREF /", Http1),
        (b"get /", Http1),
        (b"P", NeedMore),
        (b"PO", NeedMore),
        (b"POST /", Http1),
        (b"PRI", NeedMore),
        (b"PRI ", NeedMore),
        (b"PRI * HTTP/2.", NeedMore),
        (b"PRI * HTTP/2.0", Http2Preface),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Http2Preface),
        (b"PRI * HTTP/1.1", Http1),
        (b"\r\nGET /", Unknown),
        (b" GET /", Unknown),
        (b"\0", Unknown),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Unknown),
        (b"GET\t/", Unknown),
        (b"G\xc3\x89T /", Unknown),
    ];
    for (bytes, want) in table {
        assert_eq!(detect(bytes), *want, "{}", bytes.escape_ascii());
    }
}

#[test]
fn detect_max_bytes_always_suffice() {
    for byte in 0..=255u8 {
        assert_ne!(detect(&[byte; DETECT_MAX]), Detected::NeedMore, "{byte:#x}");
    }
    let mut longest = vec![b'X'; DETECT_MAX - 1];
    longest.push(b' ');
    assert_eq!(detect(&longest), Detected::Http1);
}
