//! Streams beyond our limits, and just within them.

use tollgate_l7::http1::{
    FIELDS_MAX, HEAD_MAX, METHOD_MAX, REQUEST_LINE_MAX, TRAILER_FIELDS_MAX, TRAILERS_MAX,
};

const SECOND: &str = "GET /second HTTP/1.1\r\nHost: second.example\r\n\r\n";

/// Name and bytes.
pub fn streams() -> Vec<(String, Vec<u8>)> {
    let within = |n: usize| n / 4;
    let beyond = |n: usize| n + 1;
    let sizes: [(&str, &dyn Fn(usize) -> usize); 2] = [("within", &within), ("beyond", &beyond)];
    let mut out = Vec::new();
    for (which, size) in sizes {
        let target = "a".repeat(size(REQUEST_LINE_MAX));
        let value = "v".repeat(size(HEAD_MAX));
        let trailer = "t".repeat(size(TRAILERS_MAX));
        let cases = [
            ("method", head(&"M".repeat(size(METHOD_MAX)), "/", "")),
            ("target", head("GET", &format!("/{target}"), "")),
            ("value", head("GET", "/", &format!("X: {value}\r\n"))),
            (
                "fields",
                head("GET", "/", &"X: y\r\n".repeat(size(FIELDS_MAX))),
            ),
            ("trailer", chunked(&format!("X: {trailer}\r\n"))),
            (
                "trailers",
                chunked(&"X: y\r\n".repeat(size(TRAILER_FIELDS_MAX))),
            ),
        ];
        for (name, request) in cases {
            out.push((
                format!("{name} {which} the limit"),
                (request + SECOND).into_bytes(),
            ));
        }
    }
    out
}

fn head(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
}

fn chunked(trailers: &str) -> String {
    head("POST", "/", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n" + trailers + "\r\n"
}
