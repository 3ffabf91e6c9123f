//! Fingerprints, checked against published ones and against the description's corner cases.

use tollgate_l7::{ClientHello, TlsProgress};

use crate::drive::tls;
use crate::tls_build::*;

/// The suites of the published example, in an order of our own.
const CIPHERS: [u16; 15] = [
    0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c,
    0x009d, 0x002f, 0x0035,
];
const ALGORITHMS: [u16; 8] = [
    0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601,
];

fn bytes(list: &[u16]) -> Vec<u8> {
    list.iter().flat_map(|n| n.to_be_bytes()).collect()
}

fn algorithms(list: &[u16]) -> Vec<u8> {
    extension(13, &vec16(&bytes(list)))
}

fn read(ciphers: &[u16], extensions: &[u8]) -> ClientHello {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &vec8(&[]),
        &vec16(&bytes(ciphers)),
        &vec8(&[0]),
        &vec16(extensions),
    ];
    match tls(&[&records(&message(1, &body.concat()), 16384)]) {
        TlsProgress::Done(hello) => hello,
        other => panic!("{other:?}"),
    }
}

/// The extensions of the published example, each with a body.
fn published() -> Vec<Vec<u8>> {
    let plain = [
        0x001b, 0x0033, 0x4469, 0x0017, 0x002d, 0x0005, 0x0023, 0x0012, 0xff01, 0x000a, 0x000b,
        0x0015,
    ];
    let mut all: Vec<_> = plain.map(|kind| extension(kind, b"")).into();
    all.push(versions(&[0x304, 0x303]));
    all.push(sni(b"www.example.com"));
    all.push(alpn(&[b"h2", b"http/1.1"]));
    all.push(algorithms(&ALGORITHMS));
    all
}

#[test]
fn the_published_example_comes_out() {
    let hello = read(&CIPHERS, &published().concat());
    assert_eq!(hello.ja4(false), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    assert_eq!(hello.ja4(true), "q13d1516h2_8daaf6152771_e5627efa2ab1");
}

#[test]
fn neither_order_nor_grease_matters() {
    let mut ciphers = CIPHERS.to_vec();
    ciphers.reverse();
    ciphers.insert(0, 0x3a3a);
    let mut extensions = published();
    extensions.rotate_left(5);
    extensions.insert(0, extension(0xdada, b""));
    extensions.push(extension(0x0a0a, b"\0"));
    let hello = read(&ciphers, &extensions.concat());
    assert_eq!(hello.ja4(false), "t13d1516h2_8daaf6152771_e5627efa2ab1");
}

#[test]
fn the_order_of_signature_algorithms_matters() {
    let [one, other] =
        [[0x0403, 0x0804], [0x0804, 0x0403]].map(|list| read(&CIPHERS, &algorithms(&list)));
    assert_ne!(one.ja4(false), other.ja4(false));
    let greased = read(&CIPHERS, &algorithms(&[0x2a2a, 0x0403, 0x0804]));
    assert_eq!(one.ja4(false), greased.ja4(false));
}

#[test]
fn empty_lists_have_their_own_sign() {
    assert_eq!(
        read(&[0x4a4a], &[]).ja4(false),
        "t12i000000_000000000000_000000000000"
    );
    let named = read(&[0x4a4a], &[sni(b"a"), alpn(&[b"h2"])].concat());
    assert_eq!(named.ja4(false), "t12d0002h2_000000000000_000000000000");
}

#[test]
fn versions_and_protocols_are_abbreviated() {
    let a = |extensions: &[u8]| read(&CIPHERS, extensions).ja4(false)[..10].to_owned();
    for (version, want) in [
        (0x304, "t13i150100"),
        (0x303, "t12i150100"),
        (0x302, "t11i150100"),
        (0x301, "t10i150100"),
        (0x300, "ts3i150100"),
        (0x002, "ts2i150100"),
        (0x999, "t00i150100"),
        (0xbaba, "t00i150100"),
    ] {
        assert_eq!(a(&versions(&[version])), want);
    }
    let table: [(&[u8], &str); 8] = [
        (b"h2", "t12i1501h2"),
        (b"http/1.1", "t12i1501h1"),
        (b"x", "t12i1501xx"),
        (b"\xab", "t12i1501ab"),
        (b"\xab\xcd", "t12i1501ad"),
        (b"0\xab", "t12i15013b"),
        (b"01\xab\xcd", "t12i15013d"),
        (b"0\xab\xcd1", "t12i150101"),
    ];
    for (protocol, want) in table {
        assert_eq!(a(&alpn(&[protocol, b"zz"])), want);
    }
}

#[test]
fn counts_end_at_99() {
    let many: Vec<u16> = (0..300).collect();
    let extensions: Vec<u8> = (1000..1120).flat_map(|kind| extension(kind, b"")).collect();
    let hello = read(&many, &extensions);
    assert!(hello.ja4(false).starts_with("t12i999900_"));
}
