//! DNS messages: made by hand or by the library, read by the recogniser.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail the test"
)]

use std::net::IpAddr;

use proptest::prelude::*;
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};
use tollgate_l7::dns::{ADDRESSES_MAX, Framer, answer, question};

const A_TYPE: u16 = 1;
const AAAA_TYPE: u16 = 28;

fn name(text: &str) -> Name<'_> {
    Name::new(text).unwrap()
}

fn asking<'a>(text: &'a str, qtype: TYPE, reply: bool) -> Packet<'a> {
    let mut packet = match reply {
        true => Packet::new_reply(7),
        false => Packet::new_query(7),
    };
    packet.questions.push(simple_dns::Question::new(
        name(text),
        QTYPE::TYPE(qtype),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    packet
}

fn a<'a>(owner: &'a str, address: &str, ttl: u32) -> ResourceRecord<'a> {
    let data = match address.parse().unwrap() {
        IpAddr::V4(v4) => RData::A(A { address: v4.into() }),
        IpAddr::V6(v6) => RData::AAAA(AAAA { address: v6.into() }),
    };
    ResourceRecord::new(name(owner), CLASS::IN, ttl, data)
}

fn cname<'a>(owner: &'a str, target: &'a str, ttl: u32) -> ResourceRecord<'a> {
    let data = RData::CNAME(CNAME(name(target)));
    ResourceRecord::new(name(owner), CLASS::IN, ttl, data)
}

fn reply(text: &str, qtype: TYPE, records: Vec<ResourceRecord<'_>>) -> Vec<u8> {
    let mut packet = asking(text, qtype, true);
    packet.answers = records;
    packet.build_bytes_vec_compressed().unwrap()
}

fn found(bytes: &[u8]) -> Vec<(String, u32)> {
    let answer = answer(bytes).expect("an answer");
    let shown = answer.addresses.iter();
    shown.map(|(a, ttl)| (a.to_string(), *ttl)).collect()
}

#[test]
fn a_question_is_read_in_lower_case() {
    let bytes = asking("WWW.Example.COM", TYPE::AAAA, false)
        .build_bytes_vec()
        .unwrap();
    let asked = question(&bytes).unwrap();
    assert_eq!(
        (asked.id, &*asked.name, asked.qtype),
        (7, "www.example.com", AAAA_TYPE)
    );
    assert_eq!(answer(&bytes), None, "a query is no answer");
}

#[test]
fn aliases_are_followed_in_any_order_and_the_shortest_ttl_counts() {
    let bytes = reply(
        "www.example.com",
        TYPE::A,
        vec![
            a("edge.cdn.net", "192.0.2.7", 300),
            cname("Mid.cdn.net", "edge.cdn.net", 20),
            cname("www.Example.com", "mid.CDN.net", 60),
            a("www.example.com", "192.0.2.8", 50),
        ],
    );
    assert_eq!(
        found(&bytes),
        [("192.0.2.8".into(), 50), ("192.0.2.7".into(), 20)]
    );
    let read = answer(&bytes).unwrap().question;
    assert_eq!(
        (read.id, &*read.name, read.qtype),
        (7, "www.example.com", A_TYPE)
    );
}

#[test]
fn ipv6_is_read_as_well() {
    let bytes = reply("a.b", TYPE::AAAA, vec![a("a.b", "2001:db8::1", 9)]);
    assert_eq!(found(&bytes), [("2001:db8::1".into(), 9)]);
}

#[test]
fn records_beside_the_chain_or_of_another_type_or_class_do_not_count() {
    let mut chaos = a("www.example.com", "192.0.2.4", 9);
    chaos.class = CLASS::CH;
    let bytes = reply(
        "www.example.com",
        TYPE::A,
        vec![
            a("bank.example.org", "192.0.2.1", 9),
            a("www.example.com", "2001:db8::1", 9),
            cname("bank.example.org", "www.example.com", 9),
            chaos,
        ],
    );
    assert_eq!(found(&bytes), []);
}

#[test]
fn loops_end_and_long_answers_are_cut() {
    let bytes = reply(
        "a.b",
        TYPE::A,
        vec![cname("a.b", "c.d", 9), cname("c.d", "a.b", 9)],
    );
    assert_eq!(found(&bytes), []);
    let many = (0..ADDRESSES_MAX as u32 + 10)
        .map(|n| a("a.b", &std::net::Ipv4Addr::from(n).to_string(), 9))
        .collect();
    assert_eq!(found(&reply("a.b", TYPE::A, many)).len(), ADDRESSES_MAX);
}

#[test]
fn errors_and_truncated_answers_say_nothing() {
    let mut packet = asking("a.b", TYPE::A, true);
    packet.answers = vec![a("a.b", "192.0.2.1", 9)];
    assert!(answer(&packet.build_bytes_vec().unwrap()).is_some());
    packet.set_flags(PacketFlag::TRUNCATION);
    assert_eq!(answer(&packet.build_bytes_vec().unwrap()), None);
    packet.remove_flags(PacketFlag::TRUNCATION);
    *packet.rcode_mut() = RCODE::NameError;
    assert_eq!(answer(&packet.build_bytes_vec().unwrap()), None);
}

#[test]
fn odd_questions_say_nothing() {
    let mut two = asking("a.b", TYPE::A, false);
    two.questions.extend(two.questions.clone());
    assert_eq!(question(&two.build_bytes_vec().unwrap()), None);
    for odd in [r"www\.example.com", r"a\000.b", "a b.c", ""] {
        let bytes = asking(odd, TYPE::A, false).build_bytes_vec().unwrap();
        assert_eq!(question(&bytes), None, "{odd:?}");
    }
    let mut greedy = vec![0; 12];
    greedy[4..12].fill(0xff);
    assert_eq!(question(&greedy), None);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = question(&bytes);
        let _ = answer(&bytes);
    }

    #[test]
    fn a_damaged_answer_is_survived(at in 0usize..200, value: u8, cut in 0usize..200) {
        let mut bytes = reply("www.example.com", TYPE::A, vec![
            cname("www.example.com", "edge.cdn.net", 60),
            a("edge.cdn.net", "192.0.2.7", 300),
        ]);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        bytes.truncate(cut);
        let _ = question(&bytes);
        if let Some(answer) = answer(&bytes) {
            prop_assert!(answer.addresses.len() <= ADDRESSES_MAX);
        }
    }

    #[test]
    fn frames_do_not_depend_on_the_cut(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
        sizes in proptest::collection::vec(1usize..20, 1..20),
    ) {
        let mut stream = Vec::new();
        for message in &messages {
            stream.extend((message.len() as u16).to_be_bytes());
            stream.extend(message);
        }
        let (mut framer, mut got) = (Framer::default(), Vec::new());
        let (mut rest, mut sizes) = (&stream[..], sizes.iter().cycle());
        while !rest.is_empty() {
            let (piece, later) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            framer.push(piece, |message| got.push(message.to_vec()));
            prop_assert!(framer.held() <= 42);
            rest = later;
        }
        prop_assert_eq!(got, messages);
        prop_assert_eq!(framer.held(), 0);
    }
}
