use tollgate_l7::{DETECT_MAX, Detected, detect};

#[test]
fn first_bytes_name_the_protocol() {
    use Detected::*;
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
        (b"\0", NeedMore),
        (b"\0\0\0\x08\x04\xd2\x16", NeedMore),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", PostgreSqlTls),
        (b"\0\0\0\x08\x04\xd2\x16\x2f\x16\x03", PostgreSqlTls),
        (b"\0\0\0\x08\x04\xd2\x16\x30", PostgreSqlPlain),
        (b"\0\0\0\x10\x04\xd2\x16\x2e", PostgreSqlPlain),
        (b"\0\0\0\x4c\0", NeedMore),
        (b"\0\0\0\x4c\0\x03\0\0user\0", PostgreSqlPlain),
        (b"\0\0\0\x4c\0\x03\0\x02user\0", PostgreSqlPlain),
        (b"\0\0\0\x09\x04\xd2\x16\x2f", Unknown),
        (b"\0\0\0\x07\0\x03\0\0", Unknown),
        (b"\0\0\xff\xff\0\x03", Unknown),
        (b"\0\x01\x01", Unknown),
        (b"E", NeedMore),
        (b"EHLO", NeedMore),
        (b"EHLO ", Smtp),
        (b"ehlo\r\n", Smtp),
        (b"HeLo mail.example\r\n", Smtp),
        (b"LHLO\n", Smtp),
        (b"EHLOX / HTTP/1.1\r\n", Http1),
        (b"EHL / HTTP/1.1\r\n", Http1),
        (b"HEAD / HTTP/1.1\r\n", Http1),
        (b"LOCK / HTTP/1.1\r\n", Http1),
        (b"EHLO\t", Unknown),
        // HandshakeResponse41, SSLRequest, and one without the flag that tells them.
        (b"\xb6\0\0\x01\x85\xa6", MySql),
        (b"\x20\0\0\x01\x05\xae\x03\0", MySql),
        (b"\x20\0\0\x01\x05", NeedMore),
        (b"\x20\0\0\x01\x05\x20", Unknown),
        (b"\x20\0\0\x02\x05\xae", Unknown),
        (b"\x1f\0\0\x01\x05\xae", Unknown),
        (b"\x47\0\0\x01\x85\xa6", MySql),
        // StartTLS, with a length of one byte and of four; bind; search; too odd.
        (
            b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037",
            Ldap,
        ),
        (b"\x30\x20\x02\x04\0\0\0\x01\x77", Ldap),
        (b"\x30\x84\0\0\0\x1d\x02\x01\x01\x77", Ldap),
        (b"\x30\x0c\x02\x01\x01\x60\x07", Ldap),
        (b"\x30\x25\x02\x01\x01\x63", Ldap),
        (b"\x30\x1d\x02\x01\x01", NeedMore),
        (b"\x30\x1d\x02\x01\x01\x61", Unknown),
        (b"\x30\x85\0\0\0\0\x1d\x02\x01\x01\x77", Unknown),
        (b"\x30\x80\x02\x01\x01\x77", Unknown),
        (b"\x30\x1d\x02\x05\0\0\0\0\x01\x77", Unknown),
        (b"0 / HTTP/1.1\r\n", Http1),
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

/// Enough bytes of every protocol, and what more of them cannot change.
#[test]
fn more_bytes_do_not_change_the_answer() {
    let starts: [&[u8]; 11] = [
        b"\x16\x03\x01\x00\x10",
        b"\x80\x2e\x01\x00\x02",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"\0\0\0\x08\x04\xd2\x16\x30",
        b"\0\0\0\x4c\0\x03\0\0user",
        b"EHLO mail.example\r\n",
        b"\xb6\0\0\x01\x85\xa6\xff\0",
        b"\x30\x20\x02\x04\0\0\0\x01\x77",
        b"\x30\x84\0\0\0\x1d\x02\x01\x01\x77",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\n",
    ];
    for start in starts {
        for at in 0..start.len() {
            for byte in 0..=255u8 {
                let mut bytes = [start, &[b'a'; DETECT_MAX]].concat();
                bytes[at] = byte;
                let end = detect(&bytes);
                assert_ne!(end, Detected::NeedMore);
                for len in 0..bytes.len() {
                    let now = detect(&bytes[..len]);
                    let open = now == Detected::NeedMore && len < DETECT_MAX;
                    assert!(open || now == end, "{}", bytes.escape_ascii());
                }
            }
        }
    }
}
