//! Writes the first inputs of every corpus: `cargo run -p tollgate-fuzzing --example seeds`, in the
//! repository's root. What the fuzzer found since stays.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use tollgate_wire::build::{self, Datagram, L2, Segment};
use tollgate_wire::packet::TcpFlags;

#[path = "../../l7/tests/l7/tls_build.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod tls_build;

use tls_build::{alpn, extension, hello, record, records, sni, versions};

/// Names and contents.
type Seeds = Vec<(String, Vec<u8>)>;

/// Ways to cut a stream: whole, in small pieces, in larger ones.
const CUTS: [[u8; 2]; 3] = [[0, 0], [3, 7], [40, 1]];

fn main() -> io::Result<()> {
    for (target, seeds) in [
        ("wire", wire()),
        ("tls", streams(&tls())),
        ("http1", streams(&http1())),
        ("http2", streams(&http2())),
        ("quic", quic()),
        ("policy_yaml", policies()?),
        ("engine", engine()),
    ] {
        let folder = Path::new("fuzz/corpus").join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds {
            fs::write(folder.join(format!("seed-{name}")), bytes)?;
        }
    }
    Ok(())
}

/// Each stream with one of the cuts.
fn streams(streams: &[Vec<u8>]) -> Seeds {
    let cuts = CUTS.iter().cycle();
    let name = |index: usize| format!("{index:02}");
    let seed = |(index, (stream, cut)): (usize, (&Vec<u8>, &[u8; 2]))| {
        (name(index), [&cut[..], stream].concat())
    };
    streams.iter().zip(cuts).enumerate().map(seed).collect()
}

fn client_hello(name: &str, more: &[u8]) -> Vec<u8> {
    let extensions = [
        &sni(name.as_bytes())[..],
        &alpn(&[b"h2", b"http/1.1"]),
        &versions(&[0x304, 0x303]),
        &extension(13, &[0, 4, 4, 3, 8, 4]),
        more,
    ];
    hello(&extensions.concat())
}

fn tls() -> Vec<Vec<u8>> {
    let plain = client_hello("www.example.com", &[]);
    let early = client_hello("www.example.com", &extension(42, &[]));
    let ech = client_hello("public.example", &extension(0xfe0d, &[0; 40]));
    let psk = client_hello(
        "a.example",
        &extension(41, &[0, 7, 0, 1, 9, 0, 0, 0, 0, 0, 5, 4, 1, 2, 3, 4]),
    );
    let change = record(20, &[1]);
    let data = record(23, &[7; 50]);
    let again = [&records(&plain, 5000), &change[..], &records(&plain, 60)].concat();
    let behind_early = [&records(&early, 5000), &data[..], &records(&plain, 5000)].concat();
    vec![
        records(&plain, 5000),
        records(&plain, 20),
        records(&ech, 100),
        records(&psk, 5000),
        again,
        behind_early,
        [&records(&plain, 5000), &record(21, &[2, 40])[..]].concat(),
        b"EHLO client.example\r\nSTARTTLS\r\n".to_vec(),
        b"EHLO client.example\r\nNOOP\r\nSTARTTLS\r\nMAIL FROM:<a@b>\r\n".to_vec(),
        vec![0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f],
        b"220 2.0.0 Ready to start TLS\r\n".to_vec(),
        b"S".to_vec(),
    ]
}

fn http1() -> Vec<Vec<u8>> {
    [
        "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET /a/../b%2fc?d=e HTTP/1.1\r\nHost: a.example:8080\r\nUser-Agent: x\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: b\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: x\r\n\r\n",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://[::1]:80/x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "PUT /u HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block: literal fields without Huffman coding, one of them into the table.
fn block(method: &str, path: &str, host: &str) -> Vec<u8> {
    let literal = |first: u8, value: &str| {
        let len = u8::try_from(value.len()).unwrap_or(u8::MAX);
        [&[first, len], value.as_bytes()].concat()
    };
    [
        literal(0x02, method),
        vec![0x86],
        literal(0x04, path),
        literal(0x41, host),
    ]
    .concat()
}

fn http2() -> Vec<Vec<u8>> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let settings = frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]);
    let get = block("GET", "/a", "www.example.com");
    let (head, tail) = get.split_at(7);
    let grpc_type = [&[0x0f, 0x10, 16][..], b"application/grpc"].concat();
    let grpc = [block("POST", "/pkg.Service/Method", "a.example"), grpc_type].concat();
    let huffman = [
        &[0x82, 0x86, 0x84, 0x41, 0x8c][..],
        &[
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ],
    ]
    .concat();
    let start = [preface, settings].concat();
    let with = |frames: &[Vec<u8>]| [start.clone(), frames.concat()].concat();
    vec![
        with(&[frame(1, 5, 1, &get)]),
        with(&[frame(1, 1, 1, head), frame(9, 4, 1, tail)]),
        with(&[frame(1, 4, 1, &grpc), frame(0, 1, 1, b"\0\0\0\0\x02hi")]),
        with(&[
            frame(1, 5, 1, &huffman),
            frame(1, 5, 3, &[0x82, 0x86, 0x84, 0xbe]),
        ]),
        with(&[
            frame(6, 0, 0, &[0; 8]),
            frame(8, 0, 0, &[0, 0, 1, 0]),
            frame(1, 5, 1, &get),
        ]),
        with(&[
            frame(1, 4, 1, &get),
            frame(3, 0, 1, &[0, 0, 0, 8]),
            frame(7, 0, 0, &[0; 8]),
        ]),
        with(&[
            frame(1, 4, 1, &get),
            frame(0, 8, 1, b"\x02hello\0\0"),
            frame(1, 5, 1, &get),
        ]),
        with(&[
            frame(4, 1, 0, &[]),
            frame(1, 0x2d, 1, &[&[1, 0, 0, 0, 0, 16][..], &get, &[0]].concat()),
        ]),
    ]
}

/// A record of a target that takes records.
fn entry(body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&len[..], body].concat()
}

fn numbered(inputs: Vec<Vec<u8>>) -> Seeds {
    let name = |(index, bytes)| (format!("{index:02}"), bytes);
    inputs.into_iter().enumerate().map(name).collect()
}

/// CRYPTO with a two-byte offset and length.
fn crypto(offset: u16, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).unwrap_or(u16::MAX);
    let two = |value: u16| (value | 0x4000).to_be_bytes();
    [&[6][..], &two(offset), &two(len), data].concat()
}

fn quic() -> Seeds {
    let hello = client_hello("www.example.com", &extension(51, &[0x33; 20]));
    let (front, back) = hello.split_at(60);
    let whole = |how: u8| entry(&[&[how][..], &crypto(0, &hello)].concat());
    let short = entry(&[&[0u8, 0x41][..], &[0x5a; 30]].concat());
    let ends = [
        entry(&[&[1u8][..], &crypto(60, back)].concat()),
        entry(&[&[1u8, 1][..], &crypto(0, front)].concat()),
    ];
    numbered(vec![
        whole(1),
        [whole(1), whole(3), whole(0x15), short.clone()].concat(),
        ends.concat(),
        [
            entry(&[&[1u8][..], &crypto(0, front)].concat()),
            short,
            whole(1),
        ]
        .concat(),
        [whole(5), whole(5)].concat(),
        [
            whole(1),
            entry(
                &[
                    &[1u8][..],
                    &crypto(u16::try_from(hello.len()).unwrap_or(0), &hello),
                ]
                .concat(),
            ),
        ]
        .concat(),
        (0..7u8)
            .map(|id| whole(1 | id << 4))
            .collect::<Vec<_>>()
            .concat(),
        entry(&[1, 2, 5, 0, 1, 1, 0, 1, 0x1c, 0, 6, 0]),
        whole(9),
    ])
}

fn policies() -> io::Result<Seeds> {
    let mut seeds = Seeds::new();
    for folder in [
        "examples/policy",
        "crates/policy/tests/lint",
        "crates/policy/tests/common",
    ] {
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            let is_yaml = path
                .extension()
                .is_some_and(|extension| extension == "yaml");
            if let (true, Some(name)) = (is_yaml, path.file_stem()) {
                seeds.push((name.to_string_lossy().into_owned(), fs::read(&path)?));
            }
        }
    }
    Ok(seeds)
}

const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2));
const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fn link() -> L2 {
    L2 {
        src: [2, 0, 0, 0, 0, 1],
        dst: [2, 0, 0, 0, 0, 2],
        // Outbound of the first endpoint, or whatever else the tag says: targets set their own.
        vlan: Some(1),
    }
}

fn tcp(src: SocketAddr, dst: SocketAddr, flags: TcpFlags, seq: u32, payload: &[u8]) -> Vec<u8> {
    let segment = Segment {
        src,
        dst,
        seq,
        ack: 1,
        flags,
        window: 1000,
        payload,
        hop_limit: 64,
    };
    let mut frame = Vec::new();
    let _ = build::tcp(&mut frame, &link(), &segment);
    frame
}

fn udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let datagram = Datagram {
        src,
        dst,
        payload,
        hop_limit: 64,
    };
    let mut frame = Vec::new();
    let _ = build::udp(&mut frame, &link(), &datagram);
    frame
}

fn wire_frames() -> Vec<Vec<u8>> {
    let v4 = |port| (SocketAddr::new(POD, 40_001), SocketAddr::new(REMOTE, port));
    let v6 = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
    let server = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9));
    let (pod6, remote6) = (SocketAddr::new(v6, 40_001), SocketAddr::new(server, 80));
    let (pod, remote) = v4(80);
    let push = TcpFlags::ACK | TcpFlags::PSH;
    let mut partial = tcp(pod, remote, push, 1, b"partial");
    // NEEDS_CSUM at the TCP header behind a tag and 20 bytes of IPv4.
    partial.splice(..10, [1, 0, 0, 0, 0, 0, 38, 0, 16, 0]);
    let mut fragment = udp(pod, v4(53).1, b"part of a datagram");
    if let Some(flags) = fragment.get_mut(12 + 18 + 6) {
        *flags = 0x20;
    }
    vec![
        tcp(pod, remote, TcpFlags::SYN, 0, b""),
        tcp(remote, pod, TcpFlags::SYN | TcpFlags::ACK, 0, b""),
        tcp(
            pod,
            remote,
            push,
            1,
            b"GET /allowed HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        tcp(pod, remote, TcpFlags::RST, 1, b""),
        tcp(pod6, remote6, TcpFlags::SYN, 0, b""),
        tcp(pod6, remote6, push | TcpFlags::URG, 1, b"data"),
        udp(pod, v4(53).1, b"query"),
        udp(v4(53).1, pod, b"answer"),
        udp(pod6, remote6, b"query"),
        udp(pod, v4(9).1, b"discard"),
        partial,
        fragment,
    ]
}

fn wire() -> Seeds {
    numbered(wire_frames())
}

/// The next bytes of the watched client.
fn next(payload: &[u8]) -> Vec<u8> {
    entry(&[&[7u8][..], payload].concat())
}

/// Bytes of the watched client anywhere in its stream.
fn at(flags: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    entry(&[&[0, flags][..], &offset.to_be_bytes(), payload].concat())
}

/// The watched server.
fn says(flags: u8, payload: &[u8]) -> Vec<u8> {
    entry(&[&[1, flags][..], payload].concat())
}

fn engine() -> Seeds {
    const GOOD: &[u8] = b"GET /allowed HTTP/1.1\r\nHost: a\r\n\r\n";
    const BAD: &[u8] = b"GET /forbidden HTTP/1.1\r\nHost: a\r\n\r\n";
    const UPGRADE: &[u8] =
        b"GET /allowed HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    const AGREED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let body = b"GET /allowed HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_vec();
    let chunked = b"GET /allowed HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let (front, back) = GOOD.split_at(10);
    let back_at = 10;
    let len = u16::try_from(GOOD.len()).unwrap_or(u16::MAX);
    let tls = |name| records(&client_hello(name, &[]), 5000);
    let http2 = http2().swap_remove(0);
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let mut talks = vec![
        [next(GOOD), says(0x10, ok), next(BAD)].concat(),
        [
            next(front),
            says(0x10, b""),
            next(back),
            says(0x11, ok),
            at(1, len, b""),
        ]
        .concat(),
        [
            at(8, back_at, back),
            at(8, 0, front),
            says(0x10, b""),
            at(8, 0, GOOD),
        ]
        .concat(),
        [
            at(8, len, BAD),
            at(8, len, GOOD),
            at(8, 0, GOOD),
            says(0x10, b""),
        ]
        .concat(),
        [at(8, 0, &BAD[..15]), at(8, 0, &GOOD[..15]), at(8, 0, GOOD)].concat(),
        [next(&body), says(0x10, b""), next(GOOD), next(BAD)].concat(),
        [next(chunked), next(GOOD), says(0x10, ok), entry(&[6])].concat(),
        [
            next(UPGRADE),
            says(0x10, AGREED),
            next(b"anything"),
            says(0x10, b"x"),
        ]
        .concat(),
        [next(front), at(1, back_at, b""), at(0x20, back_at, back)].concat(),
        [next(GOOD), entry(&[2, 200]), at(4, len, b""), next(GOOD)].concat(),
        next(&http2),
        next(b"EHLO a.example\r\nSTARTTLS\r\n"),
    ];
    for talk in &mut talks {
        talk.insert(0, 0);
    }
    for name in ["www.example.com", "forbidden.example"] {
        let hello = tls(name);
        let (front, back) = hello.split_at(30);
        talks.push(
            [
                vec![1],
                next(front),
                says(0x10, b""),
                next(back),
                next(&record(23, b"x")),
            ]
            .concat(),
        );
    }
    let mut frames = vec![0];
    for frame in wire_frames() {
        frames.extend(entry(&[&[3u8][..], &frame].concat()));
        frames.extend(entry(&[&[4u8][..], &frame].concat()));
    }
    talks.push(frames);
    numbered(talks)
}
