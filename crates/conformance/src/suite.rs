//! The suites and their cases.

use serde::Serialize;
use tollgate_doctor::case::{Direction, ProbeKind, Transport};

/// Bytes of a large transfer: thousands of super-packets, and below a second at a Gbit/s.
pub const LARGE: u64 = 64 << 20;
/// The same when it has to be quick.
pub const LARGE_QUICK: u64 = 8 << 20;
/// Bytes that all connections of a case with many move together.
pub const SHARED: u64 = 32 << 20;
/// The same when it has to be quick.
pub const SHARED_QUICK: u64 = 8 << 20;
/// Numbers of connections or streams at once.
pub const STREAMS: [usize; 4] = [1, 4, 16, 64];
/// The same when it has to be quick: the ends.
pub const STREAMS_QUICK: [usize; 2] = [1, 64];

/// Sizes of the endpoint's link and of the one to the outside, in bytes.
pub type Mtus = [u16; 2];

/// The usual sizes.
pub const USUAL: Mtus = [1500, 1500];
/// Equal and unequal ones: usual, jumbo, the least that IPv6 allows (RFC 8200, section 5), and an
/// overlay's, whose VXLAN header takes 50 of 1500 bytes.
pub const MTUS: [Mtus; 7] = [
    USUAL,
    [9000, 9000],
    [1280, 1280],
    [1450, 1500],
    [1500, 1450],
    [9000, 1500],
    [1500, 9000],
];
/// Those when it has to be quick: jumbo frames that meet a smaller link, where packets have to shrink.
pub const MTUS_QUICK: [Mtus; 1] = [[9000, 1450]];

/// A group of cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// Large transfers, compared byte by byte.
    Large,
    /// Packets of the MTU, one byte more, and bursts, on links of many sizes.
    Mtu,
    /// Checksums, verified by the receiver's kernel.
    Checksum,
    /// Bursts of UDP datagrams sent in one call.
    Bursts,
    /// Many TCP connections at once.
    Streams,
    /// QUIC with one and many streams.
    Quic,
}

impl Suite {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 6] = [
        Self::Large,
        Self::Mtu,
        Self::Checksum,
        Self::Bursts,
        Self::Streams,
        Self::Quic,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Large => "large",
            Self::Mtu => "mtu",
            Self::Checksum => "checksum",
            Self::Bursts => "bursts",
            Self::Streams => "streams",
            Self::Quic => "quic",
        }
    }

    /// What it is for, in one line.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Large => "large TCP transfers, compared byte by byte",
            Self::Mtu => "packets of the MTU, of one byte more, and bursts, on links of many sizes",
            Self::Checksum => "many small packets, whose checksums the receiver verifies",
            Self::Bursts => "UDP datagrams in bursts (UDP_SEGMENT)",
            Self::Streams => "1 to 64 TCP connections at once",
            Self::Quic => "QUIC with 1 to 64 streams",
        }
    }
}

impl std::str::FromStr for Suite {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|suite| suite.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("no suite {text:?}; there are {names}")
        })
    }
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One case: something to move over one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its suite.
    pub suite: Suite,
    /// Its name within the suite, e.g. `tcp-ipv4-out`.
    pub name: String,
    /// Over IPv6 rather than IPv4.
    pub ipv6: bool,
    /// What is done.
    pub(crate) check: Check,
}

/// What a case does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Probes of these kinds, each in both directions.
    Probes(Transport, Vec<ProbeKind>),
    /// A transfer over so many connections at once, each of so many bytes.
    Transfer {
        direction: Direction,
        connections: usize,
        bytes: u64,
    },
    /// QUIC with so many streams, each of so many bytes there and back.
    Quic { streams: usize, bytes: u64 },
}

/// The cases of a suite.
pub fn cases(suite: Suite, quick: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for ipv6 in [false, true] {
        for (name, check) in checks(suite, quick) {
            let family = if ipv6 { "ipv6" } else { "ipv4" };
            cases.push(Case {
                suite,
                name: format!("{family}-{name}"),
                ipv6,
                check,
            });
        }
    }
    cases
}

fn checks(suite: Suite, quick: bool) -> Vec<(String, Check)> {
    use ProbeKind::{Checksum, Gso, Mtu, MtuPlusOne, Small, UdpGso};
    use Transport::{Tcp, Udp};
    let probes = |transport, kinds: &[ProbeKind]| {
        let name = if transport == Tcp { "tcp" } else { "udp" };
        (name.to_owned(), Check::Probes(transport, kinds.to_vec()))
    };
    match suite {
        Suite::Large => transfers(1, if quick { LARGE_QUICK } else { LARGE }),
        Suite::Mtu => vec![
            probes(Tcp, &[Small, Mtu, MtuPlusOne, Gso]),
            probes(Udp, &[Small, Mtu, MtuPlusOne]),
        ],
        Suite::Checksum => vec![probes(Tcp, &[Checksum]), probes(Udp, &[Checksum])],
        Suite::Bursts => vec![probes(Udp, &[UdpGso])],
        Suite::Streams => {
            let all = streams(quick)
                .iter()
                .flat_map(|&n| transfers(n, SHARED / n as u64));
            all.collect()
        }
        Suite::Quic => {
            let all = streams(quick).iter().map(|&streams| {
                let bytes = LARGE_QUICK / streams as u64;
                (format!("{streams}-streams"), Check::Quic { streams, bytes })
            });
            all.collect()
        }
    }
}

fn streams(quick: bool) -> &'static [usize] {
    if quick { &STREAMS_QUICK } else { &STREAMS }
}

fn transfers(connections: usize, bytes: u64) -> Vec<(String, Check)> {
    let both = [(Direction::Outbound, "out"), (Direction::Inbound, "in")];
    let each = both.map(|(direction, word)| {
        let check = Check::Transfer {
            direction,
            connections,
            bytes,
        };
        (format!("{connections}-tcp-{word}"), check)
    });
    each.to_vec()
}

/// Link sizes on which a suite runs in the lab.
pub fn mtus(suite: Suite, quick: bool) -> &'static [Mtus] {
    match (suite, quick) {
        (Suite::Mtu, false) => &MTUS,
        (Suite::Mtu, true) => &MTUS_QUICK,
        _ => &[USUAL],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_suites_and_cases_are_named_once() {
        for suite in Suite::ALL {
            assert_eq!(suite.name().parse(), Ok(suite));
            for quick in [false, true] {
                let names: Vec<String> = cases(suite, quick).into_iter().map(|c| c.name).collect();
                let mut unique = names.clone();
                unique.sort();
                unique.dedup();
                assert_eq!(unique.len(), names.len(), "{suite}: {names:?}");
            }
        }
        assert!("no".parse::<Suite>().unwrap_err().contains("checksum"));
    }
}
