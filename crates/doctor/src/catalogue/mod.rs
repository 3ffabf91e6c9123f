//! The catalogue: one rule per number, all of them pure functions of a [`Case`].
//!
//! A rule says nothing about a healthy machine, names what it is about, shows what it rests on, and
//! offers changes after which it has nothing to say any more. Where a program that loses offload
//! metadata has to stay, the change is made where packets come to it, and nowhere else.

mod checksum;
mod engine;
mod flow;
mod mtu;
mod offload;
mod topology;
mod view;

use crate::case::Case;
use crate::finding::{Evidence, Finding, Number, Severity};
use crate::model::LinkRef;

use view::{Fault, Report, TX_CHECKSUMS, View};

/// What came of judging a case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// What is wrong, in the catalogue's order.
    pub findings: Vec<Finding>,
    /// What could not be told, and why, in words.
    pub untold: Vec<String>,
}

/// An entry of the catalogue.
pub struct Entry {
    /// Its number.
    pub number: Number,
    /// What is wrong, in a few words.
    pub title: &'static str,
    /// How bad, unless what was found says otherwise.
    pub severity: Severity,
    /// What the fix costs.
    pub cost: &'static str,
    /// Its page, relative to the repository.
    pub page: &'static str,
    /// That page.
    pub text: &'static str,
    rule: fn(&View<'_>, &mut Report),
}

const NOTHING: &str = "Nothing.";
const TSO_LOST: &str = "Switches TSO off with it on these interfaces: expect lower throughput (a tenth to \
                        a half of what it was), and more CPU.";

macro_rules! entry {
    ($number:literal, $severity:ident, $title:literal, $cost:expr, $rule:path) => {
        Entry {
            number: Number($number),
            title: $title,
            severity: Severity::$severity,
            cost: $cost,
            page: concat!("docs/doctor/TG", $number, ".md"),
            text: include_str!(concat!("../../../../docs/doctor/TG", $number, ".md")),
            rule: $rule,
        }
    };
}

/// Everything that the doctor knows.
#[rustfmt::skip] // A table.
pub static CATALOGUE: &[Entry] = &[
    entry!(1001, Error, "Super-packets reach a program that loses their metadata", TSO_LOST, engine::super_packets),
    entry!(1002, Error, "Checksums left to the device are lost in user space", TSO_LOST, engine::partial_checksums),
    entry!(1003, Warning, "TX checksum offload is off without need", NOTHING, engine::needless_workaround),
    entry!(1004, Warning, "A virtio card hands unfinished checksums to a raw reader", "Throughput of the virtual machine, if offload is switched off for it.", engine::virtio_under_raw_reader),
    entry!(1005, Error, "A receive ring is smaller than the MTU", "Memory: the number of frames times the larger size.", engine::ring_too_small),
    entry!(1006, Error, "The two directions of a flow go to different threads", "Some flows share a queue that did not before.", engine::asymmetric_hash),
    entry!(1007, Error, "The ports of an engine have different MTUs", NOTHING, engine::unequal_ports),
    entry!(1008, Error, "Merged UDP datagrams reach a raw reader", "UDP that is forwarded in bulk takes more CPU; TCP is not touched.", engine::udp_merging),
    entry!(1009, Info, "A TAP is read without the virtio-net header", "A change to the engine.", engine::tap_without_header),
    entry!(1010, Info, "A capture at the sender shows incorrect checksums", NOTHING, nothing),
    entry!(1101, Error, "Packets do not fit the path with what tunnels add", "A few per cent more packets for the same data.", mtu::overhead),
    entry!(1102, Warning, "The ends of a pair have different MTUs", NOTHING, mtu::unequal_pair),
    entry!(1103, Error, "Path MTU discovery is cut off by the packet filter", "Slightly smaller TCP segments on that way; UDP is not helped.", mtu::icmp_dropped),
    entry!(1104, Info, "TCP does not probe for the path MTU though ICMP is dropped", "A stalled connection is retried with smaller segments, which takes a second or two.", mtu::no_probing),
    entry!(1105, Warning, "A tunnel with a smaller MTU and no MSS clamp", "Slightly smaller TCP segments on that way.", mtu::tunnel_without_clamp),
    entry!(1106, Warning, "The uplink's MTU is smaller than that of the networks behind it", "Slightly smaller TCP segments on that way.", mtu::narrow_uplink),
    entry!(1107, Warning, "Jumbo frames on the default route, and ICMP is dropped", "A stalled connection is retried with smaller segments, which takes a second or two.", mtu::jumbo_to_the_world),
    entry!(1108, Error, "Packets of the full MTU are lost", "A few per cent more packets, if the MTU is lowered.", mtu::full_size_lost),
    entry!(1109, Warning, "Packets over the MTU are lost silently", NOTHING, mtu::oversize_silent),
    entry!(1201, Error, "Outer checksum of NATed VXLAN packets is wrong", TSO_LOST, checksum::outer_checksum_after_nat),
    entry!(1202, Error, "The card's tunnel offload is known to be broken", "Tunnelled traffic is summed and cut in software: expect lower throughput between nodes.", checksum::broken_tunnel_offload),
    entry!(1203, Error, "The receiver refuses packets for their checksum", NOTHING, checksum::receiver_refuses),
    entry!(1204, Warning, "UDP segmentation fails while TX checksum offload is off", NOTHING, checksum::udp_gso_without_checksums),
    entry!(1205, Warning, "IPv6 with source NAT after a redirect needs a newer kernel", "A reboot into another kernel.", checksum::ipv6_nat_after_redirect),
    entry!(1301, Error, "LRO on an interface whose packets are forwarded", "A little CPU: GRO does in software what the card did.", offload::lro_while_forwarding),
    entry!(1302, Warning, "An XDP program runs in the driver of a pair", "The program sees packets later; redirects by XDP get slower.", offload::native_xdp_on_veth),
    entry!(1303, Warning, "Super-packets are larger than the device can take", NOTHING, offload::beyond_device),
    entry!(1304, Warning, "The size limit for IPv4 super-packets fell back", NOTHING, offload::sizes_reset),
    entry!(1305, Warning, "An offload feature is not as declared", "What the declared state costs.", offload::drift),
    entry!(1306, Info, "An offload feature was asked for and is off", NOTHING, offload::wanted_but_off),
    entry!(1401, Error, "Connection tracking drops packets outside the window", "Packets with forged sequence numbers are no longer dropped here; endpoints drop them themselves.", flow::strict_windows),
    entry!(1402, Error, "Packets are lost at a hop", NOTHING, flow::lost_at_hop),
    entry!(1403, Error, "Open vSwitch drops frames at a port", "Bulk traffic between its ports gets slower if userspace TSO is switched off.", flow::ovs_drops),
    entry!(1404, Error, "Open vSwitch's userspace datapath loses offload metadata", TSO_LOST, engine::ovs_without_metadata),
];

/// For entries that only explain.
fn nothing(_: &View<'_>, _: &mut Report) {}

/// An entry by its number.
pub fn entry(number: Number) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|entry| entry.number == number)
}

/// Judges a case. With a path, what does not concern it is left out.
pub fn judge(case: &Case) -> Judgement {
    let view = View::new(case);
    let mut judgement = Judgement::default();
    for entry in CATALOGUE {
        let mut report = Report::default();
        (entry.rule)(&view, &mut report);
        judgement.findings.extend(
            report
                .faults
                .into_iter()
                .filter(|fault| concerns_path(&view, fault))
                .map(|fault| finding(entry, fault)),
        );
        judgement.untold.extend(report.untold);
    }
    if case.path.is_some() {
        leave_out_consequences(&mut judgement.findings);
    }
    let unread = case.now.unreadable.iter();
    let unread = unread.filter(|what| is_asked_about(&view, what));
    judgement.untold.extend(unread.cloned());
    let mut seen = std::collections::BTreeSet::new();
    judgement.untold.retain(|why| seen.insert(why.clone()));
    judgement
}

/// Why a capture on this interface shows "incorrect" checksums of what it sends; `None` if its device
/// does not fill them in, so that they really are.
pub fn explain(case: &Case, at: LinkRef) -> Option<Finding> {
    let view = View::new(case);
    let entry = entry(Number(1010))?;
    let link = case.now.link(at)?;
    let evidence: Vec<Evidence> = TX_CHECKSUMS
        .iter()
        .filter(|name| link.has(name))
        .map(|name| view.shows_feature(at, name))
        .collect();
    if evidence.is_empty() {
        return None;
    }
    let fault = Fault {
        at: Some(at),
        sentence: format!(
            "A capture on {} shows incorrect checksums of packets that it sends: that is TX checksum \
             offload, which fills them in after the capture, and no fault.",
            view.name(at)
        ),
        evidence,
        fix: "Leave it. Look at the receiver: if Tcp:InCsumErrors or Udp:InCsumErrors grow there, they \
              are wrong on arrival too."
            .to_owned(),
        ..Fault::default()
    };
    Some(finding(entry, fault))
}

/// What probes lose on a path, and what was found that explains it.
const CONSEQUENCES: [(&[u16], &[u16]); 3] = [
    // Checksums that nobody fills in are refused.
    (&[1002, 1004, 1201, 1202, 1205, 1404], &[1203]),
    // What does not fit does not arrive.
    (&[1001, 1005, 1007, 1101, 1102, 1103], &[1108, 1109]),
    // Both are dropped somewhere.
    (&[1001, 1002, 1005, 1007, 1101, 1102, 1403, 1404], &[1402]),
];

/// One fault is told once: with its cause, where that is known.
fn leave_out_consequences(findings: &mut Vec<Finding>) {
    let numbers: Vec<u16> = findings.iter().map(|finding| finding.number.0).collect();
    let explained = |number: u16| {
        let known = |causes: &[u16]| causes.iter().any(|cause| numbers.contains(cause));
        let mut rows = CONSEQUENCES.iter();
        rows.any(|(causes, seen)| seen.contains(&number) && known(causes))
    };
    findings.retain(|finding| !explained(finding.number.0));
}

/// What could not be read begins with the namespace's name, if it is about one: those that a path
/// does not touch say nothing about it.
fn is_asked_about(view: &View<'_>, what: &str) -> bool {
    let Some(path) = view.path() else { return true };
    let now = &view.case.now;
    let about = now.namespaces.iter().find(|netns| {
        what.strip_prefix(&netns.name)
            .is_some_and(|rest| rest.starts_with(": "))
    });
    about.is_none_or(|netns| path.hops.iter().any(|hop| hop.at.netns == netns.id))
}

fn concerns_path(view: &View<'_>, fault: &Fault) -> bool {
    let Some(path) = view.path() else { return true };
    let links = || fault.at.iter().chain(&fault.touches);
    if links().next().is_none() && fault.namespaces.is_empty() {
        return true;
    }
    path.hops
        .iter()
        .any(|hop| links().any(|at| *at == hop.at) || fault.namespaces.contains(&hop.at.netns))
}

fn finding(entry: &Entry, fault: Fault) -> Finding {
    Finding {
        number: entry.number,
        severity: fault.severity.unwrap_or(entry.severity),
        sentence: fault.sentence,
        at: fault.at,
        evidence: fault.evidence,
        fix: fault.fix,
        cost: entry.cost.to_owned(),
        actions: fault.actions,
    }
}
