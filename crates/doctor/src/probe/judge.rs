//! Whether what was moved is what should have been, in words.

use std::fmt::Write as _;
use std::time::Duration;

use super::counters::of;
use super::{Grown, Moved, Probe};
use crate::case::{ProbeOutcome, Transport};

/// A connection below this many bytes a second that also had to wait for retransmission timeouts has
/// collapsed: it is less than a cable modem's, and what is probed lies inside a node or a cluster.
const FLOOR: f64 = 1e6;
/// A burst that is not done in its time and of which nothing came for so long stands still. More than a
/// retransmission timeout at its minimum (200 ms) and its first doubling.
const STANDSTILL: Duration = Duration::from_secs(1);
/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// Judges what was moved.
pub fn judge(probe: Probe, moved: &Moved, grown: &Grown) -> ProbeOutcome {
    let outcome = match (&moved.fault, probe.transport) {
        (Some(fault), _) => ProbeOutcome::Failed(fault.clone()),
        (None, Transport::Udp) => ProbeOutcome::Passed,
        (None, Transport::Tcp) => stream(moved, grown),
    };
    explain(probe, outcome, grown)
}

fn stream(moved: &Moved, grown: &Grown) -> ProbeOutcome {
    let timeouts = of(&grown.sender, "TcpExt:TCPTimeouts");
    let rate = moved.received as f64 / moved.took.as_secs_f64().max(f64::MIN_POSITIVE);
    let collapsed = timeouts > 0 && rate < FLOOR;
    let standing = !moved.complete && moved.silent > STANDSTILL;
    // A link that is merely slow has no timeouts and keeps moving.
    match collapsed || standing {
        true => ProbeOutcome::Failed(progress(moved, grown)),
        false => ProbeOutcome::Passed,
    }
}

/// How far it came: `2.1 of 4.0 MiB in 3.0 s, 26 retransmissions`.
fn progress(moved: &Moved, grown: &Grown) -> String {
    let (received, sent) = (amount(moved.received), amount(moved.sent));
    let seconds = moved.took.as_secs_f64();
    let mut text = format!("{received} of {sent} handed to the kernel arrived in {seconds:.1} s");
    for (name, word) in [
        ("Tcp:RetransSegs", "retransmissions"),
        ("TcpExt:TCPTimeouts", "timeouts"),
    ] {
        let count = of(&grown.sender, name);
        if count > 0 {
            // Writing to a string cannot fail.
            let _ = write!(text, ", {count} {word}");
        }
    }
    text
}

fn amount(bytes: u64) -> String {
    match bytes < MIB as u64 / 10 {
        true => format!("{bytes} bytes"),
        false => format!("{:.1} MiB", bytes as f64 / MIB),
    }
}

/// Adds to a failure what the receiver's counters say about it, and makes a failure of wrong checksums
/// that retransmissions made good.
pub fn explain(probe: Probe, outcome: ProbeOutcome, grown: &Grown) -> ProbeOutcome {
    let (name, group) = match (probe.transport, probe.ipv6) {
        (Transport::Tcp, _) => ("Tcp:InCsumErrors", "segments"),
        (Transport::Udp, false) => ("Udp:InCsumErrors", "datagrams"),
        (Transport::Udp, true) => ("Udp6:InCsumErrors", "datagrams"),
    };
    // A SYN-ACK with a wrong checksum comes to the sender.
    let wrong = of(&grown.receiver, name) + of(&grown.sender, name);
    let resent = of(&grown.sender, "Tcp:RetransSegs") + of(&grown.receiver, "Tcp:RetransSegs");
    match outcome {
        ProbeOutcome::Failed(why) if wrong > 0 => {
            ProbeOutcome::Failed(format!("{why}; {wrong} {group} came with a wrong checksum"))
        }
        // Without retransmissions they were somebody else's: counters are the whole namespace's.
        ProbeOutcome::Passed if wrong > 0 && resent > 0 => ProbeOutcome::Failed(format!(
            "everything arrived in the end, but {wrong} {group} came with a wrong checksum"
        )),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Direction, ProbeKind};

    fn probe(transport: Transport) -> Probe {
        Probe {
            kind: ProbeKind::Gso,
            transport,
            ipv6: false,
            direction: Direction::Outbound,
        }
    }

    fn grown(sender: &[(&str, u64)], receiver: &[(&str, u64)]) -> Grown {
        let map = |list: &[(&str, u64)]| list.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
        Grown {
            sender: map(sender),
            receiver: map(receiver),
        }
    }

    fn moved(received: u64, millis: u64, silent: u64) -> Moved {
        Moved {
            sent: 4 << 20,
            received,
            complete: received == 4 << 20,
            took: Duration::from_millis(millis),
            silent: Duration::from_millis(silent),
            fault: None,
        }
    }

    fn why(outcome: ProbeOutcome) -> String {
        match outcome {
            ProbeOutcome::Failed(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_collapse_is_a_failure_in_figures() {
        let counters = grown(&[("Tcp:RetransSegs", 26), ("TcpExt:TCPTimeouts", 4)], &[]);
        let text = why(judge(
            probe(Transport::Tcp),
            &moved(2_202_009, 3000, 50),
            &counters,
        ));
        assert_eq!(
            text,
            "2.1 MiB of 4.0 MiB handed to the kernel arrived in 3.0 s, 26 retransmissions, 4 timeouts"
        );
    }

    #[test]
    fn a_standstill_is_a_failure_and_a_slow_link_is_not() {
        let none = Grown::default();
        let tcp = probe(Transport::Tcp);
        assert!(matches!(
            judge(tcp, &moved(0, 3000, 3000), &none),
            ProbeOutcome::Failed(_)
        ));
        assert_eq!(
            judge(tcp, &moved(1 << 20, 3000, 20), &none),
            ProbeOutcome::Passed
        );
        // A retransmission timeout on a fast link is not worth a word.
        let timeout = grown(&[("TcpExt:TCPTimeouts", 1)], &[]);
        assert_eq!(
            judge(tcp, &moved(4 << 20, 300, 0), &timeout),
            ProbeOutcome::Passed
        );
    }

    #[test]
    fn wrong_checksums_are_told_unless_they_are_somebody_elses() {
        let tcp = probe(Transport::Tcp);
        let whole = moved(4 << 20, 10, 0);
        let foreign = grown(&[], &[("Tcp:InCsumErrors", 2)]);
        assert_eq!(judge(tcp, &whole, &foreign), ProbeOutcome::Passed);
        let own = grown(&[("Tcp:RetransSegs", 3)], &[("Tcp:InCsumErrors", 2)]);
        assert!(why(judge(tcp, &whole, &own)).contains("2 segments came with a wrong checksum"));
        let failed = ProbeOutcome::Failed("no connection within 3 s".to_owned());
        let syn = grown(&[], &[("Tcp:InCsumErrors", 3)]);
        assert_eq!(
            why(explain(tcp, failed, &syn)),
            "no connection within 3 s; 3 segments came with a wrong checksum"
        );
    }
}
