//! Streams made from odd pieces, the same ones every time.

/// Numbers from a seed (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from[self.next() as usize % from.len()]
    }
}

/// One place in a request: what belongs there, and what does not.
struct Place {
    usual: &'static [&'static [u8]],
    odd: &'static [&'static [u8]],
}

const BEFORE: Place = Place {
    usual: &[b"", b"", b"", b"\r\n"],
    odd: &[
        b"\n",
        b"\r\n\r\n",
        b"\r",
        b" ",
        b"\t",
        b"\0",
        b"0\r\n\r\n",
        b"\xef\xbb\xbf",
    ],
};
const METHOD: Place = Place {
    usual: &[
        b"GET",
        b"POST",
        b"PUT",
        b"DELETE",
        b"OPTIONS",
        b"HEAD",
        b"PATCH",
        b"PROPFIND",
    ],
    odd: &[
        b"get",
        b"G\0ET",
        b"CONNECT",
        b"FOO",
        b"PRI",
        b"GE\tT",
        b"M!#$%&'*+-.^_`|~",
        b"(GET)",
        b"TRACE",
        b"GET:",
        b"",
        b"QUERY",
        b"M-SEARCH",
        b"\xc3\x89T",
    ],
};
const SPACE: Place = Place {
    usual: &[b" "],
    odd: &[b"  ", b"\t", b"\x0b", b"", b" \t", b"\x0c", b"\xa0"],
};
const TARGET: Place = Place {
    usual: &[
        b"/",
        b"/a",
        b"/a?b=c",
        b"http://a.example/x",
        b"/%2e%2e/a",
        b"/a;b",
        b"//a",
        b"/a//b",
    ],
    odd: &[
        b"*",
        b"HTTP://a.example",
        b"https://a.example?x",
        b"http://b.example/",
        b"a.example:443",
        b"a",
        b"",
        b"/\0",
        b"/\xe9",
        b"/\x7f",
        b"/a b",
        b"/#x",
        b"/a\"<>",
        b"/{}|^`",
        b"http://",
        b"/\\",
        b"ftp://a.example/",
        b"http://u@a.example/",
        b"///b",
        b"?x",
        b"/a\tb",
        b"http:///",
        b"/[",
    ],
};
const VERSION: Place = Place {
    usual: &[b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"],
    odd: &[
        b"HTTP/1.2",
        b"HTTP/2.0",
        b"HTTP/0.9",
        b"http/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1",
        b"HTTP/01.1",
        b"HTTP/1.10",
        b"HTTP /1.1",
        b"",
        b"HTTP/1.1\t",
        b"HTTP/1.1\0",
        b"HTTP/1,1",
        b"ICE/1.0",
    ],
};
const LINE_END: Place = Place {
    usual: &[b"\r\n"],
    odd: &[
        b"\n",
        b"\r",
        b"\r\r\n",
        b"\n\r",
        b"\r\n ",
        b"\r\n\t",
        b"\0\r\n",
        b"\r\n\r\n",
        b" \r\n",
    ],
};
const HOST: Place = Place {
    usual: &[
        b"Host: a.example",
        b"host:a.example",
        b"HOST:\ta.example \t",
    ],
    odd: &[
        b"Host: a.example\r\nHost: b.example",
        b"Host: a.example\r\nhost: a.example",
        b"Host : a.example",
        b"Host: a.example:80",
        b"Host: u@a.example",
        b"Host:",
        b"Host: a.example, b.example",
        b"X: y",
        b"Host: a.example\0",
        b"Host:\r\n a.example",
        b"Host: [::1]",
        b"Host: A.Example.",
        b" Host: a.example",
        b"Host\0: a.example",
        b"Host: a.example/x",
        b"Host: \xe9",
        b"Host: a.example b.example",
        b"X-Host: b.example\r\nHost: a.example",
        b"Ho_st: a\r\nHost: a.example",
    ],
};
const FIELD: Place = Place {
    usual: &[
        b"X: y",
        b"Accept:",
        b"Connection: keep-alive",
        b"X-Obs: \xe9\xff",
        b"X: a\tb",
        b"X: a,  b",
        b"Content-Type: text/plain",
        b"x_y: z",
        b"X: :",
        b"!#$%&'*+-.^_`|~: 1",
        b"User-Agent: t",
        b"Expect: 100-continue",
    ],
    odd: &[
        b"X : y",
        b"X",
        b": y",
        b"X: a\0b",
        b"X: a\x01b",
        b"X: a\x7f",
        b"X: a\r\n b",
        b"X\xe9: y",
        b"X: a\rb",
        b"X: a\nY: b",
        b"\tX: y",
        b"Connection: close",
        b"Connection: Content-Length",
        b"Upgrade: websocket",
        b"Connection: upgrade\r\nUpgrade: h2c",
        b"Expect: other",
        b"Content_Length: 4",
        b"X(: y",
        b"X: a\x0bb",
        b"X: a\x0c",
        b"X:\x85y",
        b"Trailer: Content-Length",
        b"Connection: upgrade\r\nUpgrade: websocket",
        b"X Y: z",
        b"From : a",
        b"From a",
        b"HTTP2-Settings: x",
        b"Keep-Alive: 5",
        b"\"X\": y",
    ],
};
const NO_BODY: &[&[u8]] = &[b"\r\n"];
/// From the framing field up to the end of the body, the line end before it included.
const BODY: Place = Place {
    usual: &[
        b"Content-Length: 0\r\n\r\n",
        b"Content-Length: 5\r\n\r\nhello",
        b"content-length:\t5 \r\n\r\nhello",
        b"Content-Length: 50\r\n\r\nGET /inside HTTP/1.1\r\nHost: inside.example\r\n\r\n....",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"transfer-encoding:chunked\r\n\r\n00A\r\n0123456789\r\n1\r\nx\r\n000\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Trailer: y\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\na\r\nGET / HTTP\r\n0\r\n\r\n",
    ],
    odd: &[
        b"Content-Length: +5\r\n\r\nhello",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 5, 5\r\n\r\nhello",
        b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
        b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
        b"Content-Length: 0x5\r\n\r\nhello",
        b"Content-Length: 05\r\n\r\nhello",
        b"Content-Length: 5_0\r\n\r\nhello",
        b"Content-Length: 5 0\r\n\r\nhello",
        b"Content-Length:\r\n\r\n",
        b"Content-Length : 5\r\n\r\nhello",
        b"Content-Length: \x0b5\r\n\r\nhello",
        b"Content-Length: 5\xa0\r\n\r\nhello",
        b"Content-Length: 18446744073709551621\r\n\r\nhello",
        b"Content-Length: 5;\r\n\r\nhello",
        b"Content-Length: 5.0\r\n\r\nhello",
        b"Content-Length:\r\n 5\r\n\r\nhello",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
        b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n8000000000000000\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5;\nxx\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\n\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nX : y\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: a\nY: b\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nX\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n X: y\r\n\r\n",
    ],
};

/// What follows when all is in order.
const SECOND: &[u8] = b"GET /second HTTP/1.1\r\nHost: second.example\r\n\r\n";

/// Bytes that mean something to one reader or another.
const SPOILERS: &[u8] = b"\r\n\0\t\x0b :;,0f_-\"/\x7f\x85\xa0";

/// Puts pieces together.
struct Maker {
    numbers: Numbers,
    /// One place in so many gets what does not belong there; 0: none.
    odd: u64,
    out: Vec<u8>,
}

impl Maker {
    fn place(&mut self, place: &Place) {
        self.place_one_in(self.odd, place);
    }

    fn place_one_in(&mut self, odd: u64, place: &Place) {
        let odd = odd > 0 && self.numbers.one_in(odd);
        let from = if odd { place.odd } else { place.usual };
        let piece = self.numbers.pick(from);
        self.out.extend_from_slice(piece);
    }

    fn somewhere(&mut self) -> usize {
        self.numbers.next() as usize % self.out.len()
    }

    fn spoil(&mut self) {
        let at = self.somewhere();
        let byte = SPOILERS[self.numbers.next() as usize % SPOILERS.len()];
        match self.numbers.next() % 3 {
            0 => self.out.insert(at, byte),
            1 => self.out[at] = byte,
            _ => {
                self.out.remove(at);
            }
        }
    }

    fn request(&mut self) {
        for place in [
            &BEFORE, &METHOD, &SPACE, &TARGET, &SPACE, &VERSION, &LINE_END, &HOST, &LINE_END,
        ] {
            self.place(place);
        }
        for _ in 0..self.numbers.next() % 3 {
            self.place(&FIELD);
            self.place(&LINE_END);
        }
        if self.numbers.one_in(2) {
            // Framing is what this is about: it is odd more often than the rest.
            self.place_one_in(self.odd / 3, &BODY);
        } else {
            self.out.extend_from_slice(self.numbers.pick(NO_BODY));
        }
    }
}

/// One or two requests and a plain one behind them; one time in eight with a byte that is put in, replaced
/// or left out, and one time in sixteen only the start of all that.
pub fn stream(seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let odd = [0, 40, 12, 12, 6][numbers.next() as usize % 5];
    let requests = 1 + numbers.next() % 2;
    let mut maker = Maker {
        numbers,
        odd,
        out: Vec::new(),
    };
    for _ in 0..requests {
        maker.request();
    }
    maker.out.extend_from_slice(SECOND);
    if maker.numbers.one_in(8) {
        maker.spoil();
    }
    if maker.numbers.one_in(16) {
        let end = maker.somewhere();
        maker.out.truncate(end);
    }
    maker.out
}
