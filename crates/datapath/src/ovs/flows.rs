//! The gate as OpenFlow: text for `ovs-ofctl`, made from what is known of the bridge. Pure; the way
//! of a frame is drawn in docs/ovs.md.
//!
//! Everything lies in tables of its own but the flows that lead there: those stand in table 0 before
//! the pipeline that the bridge had, and match only frames that have not passed the gate yet.

use std::fmt::{self, Write};
use std::net::IpAddr;

use tollgate_wire::tag::{Direction, EndpointId, Tag};

/// Tables the gate takes, from [`Place::first_table`] on.
pub const TABLES: u8 = 15;

/// Seconds for which the switch remembers from which port a frame came that is with the engine. Frames
/// are held back for milliseconds; the entry also serves the next ones.
const ORIGIN_SECONDS: u16 = 300;

/// Where the tables lie, counted from the first.
mod table {
    pub(super) const FROM: u8 = 0;
    pub(super) const FROM_KIND: u8 = 1;
    pub(super) const FROM_TRACKED: u8 = 2;
    pub(super) const DIVERT_FROM: u8 = 3;
    pub(super) const TO: u8 = 4;
    pub(super) const TO_KIND: u8 = 5;
    pub(super) const TO_TRACKED: u8 = 6;
    pub(super) const DIVERT_TO: u8 = 7;
    pub(super) const RETURNED: u8 = 8;
    pub(super) const RETURNED_KIND: u8 = 9;
    pub(super) const COMMIT: u8 = 10;
    pub(super) const GO_ON: u8 = 11;
    pub(super) const ORIGIN: u8 = 12;
    pub(super) const DELIVER: u8 = 13;
    pub(super) const PIPELINE: u8 = 14;
}

/// Tables by which packets at the gate are counted: all of IP that left or will reach an endpoint, and
/// what of it went to the engine. Counted from the first.
pub const SEEN_FROM: u8 = table::FROM_TRACKED;
/// See [`SEEN_FROM`].
pub const DIVERTED_FROM: u8 = table::DIVERT_FROM;
/// See [`SEEN_FROM`].
pub const SEEN_TO: u8 = table::TO_TRACKED;
/// See [`SEEN_FROM`].
pub const DIVERTED_TO: u8 = table::DIVERT_TO;

/// Bits of the register while a frame is in the gate. Only [`PASSED`] is left when it goes on.
mod bit {
    /// The endpoint's identifier.
    pub(super) const ID: &str = "0..10";
    /// The port of the endpoint that a frame goes to.
    pub(super) const PORT: &str = "11..26";
    /// The port a returned frame came in by is known.
    pub(super) const ORIGIN: u8 = 27;
    /// A returned frame left the endpoint.
    pub(super) const OUTBOUND: u8 = 28;
    /// The engine has decided this direction of the flow.
    pub(super) const DECIDED: u8 = 29;
    /// Nothing of the flow is decided any more.
    pub(super) const UNDECIDED: u8 = 30;
}

/// The register's bit of a frame that has passed the gate.
const PASSED: u32 = 1 << 31;
const ID_MASK: u32 = 0x7ff;

/// Parts of a connection's `ct_label` in the gate's zone: a bit for each direction of each side that is
/// decided, the identifiers of the endpoints that it was decided for, and the generation that it was
/// decided under.
mod label {
    use super::Role;

    pub(super) const GENERATION_SHIFT: u32 = 32;
    pub(super) const GENERATION: u64 = 0xffff_ffff << GENERATION_SHIFT;

    pub(super) fn id_shift(role: Role) -> u32 {
        match role {
            Role::Opener => 8,
            Role::Answerer => 20,
        }
    }
}

/// Which end of a tracked connection an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Opener,
    Answerer,
}

impl Role {
    /// The role of the endpoint at the gate that a packet is at.
    fn of(direction: Direction, is_reply: bool) -> Self {
        match (direction, is_reply) {
            (Direction::Outbound, false) | (Direction::Inbound, true) => Self::Opener,
            (Direction::Inbound, false) | (Direction::Outbound, true) => Self::Answerer,
        }
    }

    /// The label's bit: this direction is decided.
    fn bit(self, direction: Direction) -> u64 {
        match (self, direction) {
            (Self::Opener, Direction::Outbound) => 1,
            (Self::Opener, Direction::Inbound) => 2,
            (Self::Answerer, Direction::Inbound) => 4,
            (Self::Answerer, Direction::Outbound) => 8,
        }
    }

    fn both_bits(self) -> u64 {
        self.bit(Direction::Outbound) | self.bit(Direction::Inbound)
    }
}

/// The parts of a label that are written anew when its generation is another one.
const FRESH: u64 = label::GENERATION | 0xf;

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Mac {
    /// Reads `aa:bb:cc:dd:ee:ff`, quoted or not. `None`: it is none, or a group's.
    pub fn parse(text: &str) -> Option<Self> {
        let mut octets = text.trim().trim_matches('"').split(':');
        let mut mac = [0; 6];
        for byte in &mut mac {
            *byte = u8::from_str_radix(octets.next()?, 16).ok()?;
        }
        let is_group = mac[0] & 1 != 0;
        (octets.next().is_none() && !is_group && mac != [0; 6]).then_some(Self(mac))
    }
}

/// A governed endpoint's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Number of the port on the bridge.
    pub port: u16,
    /// The endpoint's MAC address.
    pub mac: Mac,
    /// Its identifier.
    pub id: EndpointId,
    /// Its IP addresses.
    pub addresses: Vec<IpAddr>,
}

/// Where the gate may lie on the bridge. Whatever else uses the bridge must leave these alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// First of [`TABLES`] tables; not 0.
    pub first_table: u8,
    /// Priority of the flows in table 0; the next two above are used too.
    pub priority: u16,
    /// Number of the 32-bit register.
    pub register: u8,
    /// Connection tracking zone.
    pub zone: u16,
    /// Cookie of the gate's flows. What the switch learns by itself has the next number.
    pub cookie: u64,
}

/// Everything that the flows are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where they lie.
    pub place: Place,
    /// Number of the TAP's port.
    pub tap: u16,
    /// What is decided counts only with this generation in its label.
    pub generation: u32,
    /// The 802.1Q priority (1 to 6) by which the engine says: decided under this generation. 0: it says so
    /// of nothing.
    pub code: u8,
    /// Endpoints that are governed.
    pub endpoints: Vec<EndpointPort>,
}

/// The 802.1Q priority that takes back what was decided of a flow. It travels with the frame that makes
/// it necessary: what follows that frame comes to the engine again.
pub const UNDECIDE: u8 = 7;

/// The 802.1Q priority of a policy generation. 0 says nothing.
pub fn code(generation: u64) -> u8 {
    /// Three bits, less 0 and [`UNDECIDE`].
    const CODES: u64 = 6;
    (generation % CODES) as u8 + 1
}

/// IP packets of both versions: what connection tracking takes.
const IP: [&str; 2] = ["ip", "ipv6"];
/// SYN without ACK opens a flow, perhaps under an old flow's numbers; FIN and RST end one. The engine has to
/// see them all.
const CONTROL: [&str; 3] = ["+syn-ack", "+fin", "+rst"];
/// A frame to a group of stations.
const TO_GROUP: &str = "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00";
/// Neighbour discovery (RFC 4861: hop limit 255) and multicast listener discovery (RFC 3810: hop limit
/// 1), which no policy is asked about.
const LINK_V6: [(u8, u8); 9] = [
    (133, 255),
    (134, 255),
    (135, 255),
    (136, 255),
    (137, 255),
    (130, 1),
    (131, 1),
    (132, 1),
    (143, 1),
];

struct Script<'a> {
    plan: &'a Plan,
    text: String,
}

/// Lines for `ovs-ofctl --bundle add-flows`: the gate's flows in the place of those that were there.
pub fn install(plan: &Plan) -> String {
    let mut script = Script {
        plan,
        text: remove_gate(&plan.place),
    };
    script.entrance();
    script.from();
    script.to();
    script.divert();
    script.returned();
    script.commit();
    script.deliver();
    script.text
}

/// Removes the gate's flows, but not what the switch learnt.
pub fn remove_gate(place: &Place) -> String {
    format!("delete cookie={:#x}/-1\n", place.cookie)
}

/// Removes what the switch learnt.
pub fn remove_learnt(place: &Place) -> String {
    format!("delete cookie={:#x}/-1\n", place.cookie + 1)
}

impl Script<'_> {
    fn add(&mut self, table: u8, priority: u16, matches: &str, actions: &str) {
        let (cookie, table) = (self.plan.place.cookie, self.table(table));
        self.line(cookie, table, priority, matches, actions);
    }

    fn line(&mut self, cookie: u64, table: u8, priority: u16, matches: &str, actions: &str) {
        let comma = if matches.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.text,
            "add cookie={cookie:#x},table={table},priority={priority}{comma}{matches},actions={actions}"
        );
    }

    fn table(&self, table: u8) -> u8 {
        self.plan.place.first_table + table
    }

    fn go(&self, table: u8) -> String {
        format!("resubmit(,{})", self.table(table))
    }

    fn track(&self, table: u8) -> String {
        let (zone, table) = (self.plan.place.zone, self.table(table));
        format!("ct(zone={zone},table={table})")
    }

    fn reg(&self) -> String {
        format!("reg{}", self.plan.place.register)
    }

    /// `value` into some bits of the register.
    fn load(&self, value: u16, bits: impl fmt::Display) -> String {
        let register = self.plan.place.register;
        format!("load:{value:#x}->NXM_NX_REG{register}[{bits}]")
    }

    fn has_bits(&self, bits: &[(u8, bool)]) -> String {
        let (mut value, mut mask) = (0u32, 0u32);
        for &(bit, set) in bits {
            mask |= 1 << bit;
            value |= u32::from(set) << bit;
        }
        format!("{}={value:#x}/{mask:#x}", self.reg())
    }

    fn is_id(&self, id: EndpointId) -> String {
        format!("{}={:#x}/{ID_MASK:#x}", self.reg(), id.get())
    }

    fn generation(&self) -> u64 {
        u64::from(self.plan.generation) << label::GENERATION_SHIFT
    }

    /// From table 0 into the gate.
    fn entrance(&mut self) {
        let mut lines = Vec::new();
        let [low, middle, high] = [0, 1, 2].map(|n| self.plan.place.priority + n);
        let fresh = format!("{}=0/{PASSED:#x}", self.reg());
        let tap = format!("{fresh},in_port={}", self.plan.tap);
        lines.push((high, tap, self.go(table::RETURNED)));
        for endpoint in &self.plan.endpoints {
            let from = format!("{fresh},in_port={}", endpoint.port);
            lines.push((middle, from, self.go(table::FROM)));
            for to in addressed_to(endpoint) {
                lines.push((low, format!("{fresh},{to}"), self.go(table::TO)));
            }
        }
        for (priority, matches, actions) in lines {
            self.line(self.plan.place.cookie, 0, priority, &matches, &actions);
        }
    }

    /// Link-local protocols, which no policy is asked about, go on; IP goes to `tracked`, and nothing else
    /// can be judged.
    fn kinds(&mut self, table: u8, untagged: &str, tracked: &str) {
        let on = self.go(table::PIPELINE);
        self.add(table, 30, "arp", &on);
        for (kind, hops) in LINK_V6 {
            let matches = format!("icmp6,icmp_type={kind},nw_ttl={hops}");
            self.add(table, 30, &matches, &on);
        }
        for ip in IP {
            self.add(table, 10, &format!("{ip}{untagged}"), tracked);
        }
        self.add(table, 0, "", "drop");
    }

    /// Frames of an endpoint's port.
    fn from(&mut self) {
        for endpoint in &self.plan.endpoints {
            let own = format!("in_port={},dl_src={}", endpoint.port, endpoint.mac);
            let id = self.load(endpoint.id.get(), bit::ID);
            let kind = self.go(table::FROM_KIND);
            self.add(table::FROM, 10, &own, &format!("{id},{kind}"));
        }
        // With another address of its own an endpoint could be reached past the gate.
        self.add(table::FROM, 0, "", "drop");
        self.kinds(
            table::FROM_KIND,
            ",vlan_tci=0",
            &self.track(table::FROM_TRACKED),
        );
        let (divert, on) = (self.go(table::DIVERT_FROM), self.go(table::TO));
        self.tracked(table::FROM_TRACKED, Direction::Outbound, &divert, &on);
    }

    /// Frames to an endpoint, from wherever they come.
    fn to(&mut self) {
        for endpoint in &self.plan.endpoints {
            let id = self.load(endpoint.id.get(), bit::ID);
            let kind = self.go(table::TO_KIND);
            for to in addressed_to(endpoint) {
                self.add(table::TO, 10, &to, &format!("{id},{kind}"));
            }
        }
        let on = self.go(table::PIPELINE);
        self.add(table::TO, 0, "", &on);
        self.kinds(table::TO_KIND, "", &self.track(table::TO_TRACKED));
        for ip in IP {
            // It was looked up already, when it left another endpoint.
            let matches = format!("{ip},ct_state=+trk");
            let tracked = self.go(table::TO_TRACKED);
            self.add(table::TO_KIND, 20, &matches, &tracked);
        }
        let divert = self.go(table::DIVERT_TO);
        self.tracked(table::TO_TRACKED, Direction::Inbound, &divert, &on);
    }

    /// What is decided goes on, the rest to the engine.
    fn tracked(&mut self, table: u8, direction: Direction, divert: &str, on: &str) {
        for tcp in ["tcp", "tcp6"] {
            for flags in CONTROL {
                self.add(table, 30, &format!("{tcp},tcp_flags={flags}"), divert);
            }
        }
        for endpoint in &self.plan.endpoints {
            for is_reply in [false, true] {
                let role = Role::of(direction, is_reply);
                let shift = label::id_shift(role);
                let decided = role.bit(direction);
                let value = self.generation() | u64::from(endpoint.id.get()) << shift | decided;
                let mask = label::GENERATION | u64::from(ID_MASK) << shift | decided;
                let matches = format!(
                    "ct_state=+trk-inv-rel{},{},ct_label={value:#x}/{mask:#x}",
                    reply(is_reply),
                    self.is_id(endpoint.id),
                );
                self.add(table, 20, &matches, on);
            }
        }
        self.add(table, 0, "", divert);
    }

    /// To the TAP, with the tag that names endpoint and direction.
    fn divert(&mut self) {
        let learn = self.learn();
        for endpoint in &self.plan.endpoints {
            let is_id = self.is_id(endpoint.id);
            let out = self.tag_and_send(endpoint.id, Direction::Outbound);
            self.add(table::DIVERT_FROM, 10, &is_id, &out);
            let to = self.tag_and_send(endpoint.id, Direction::Inbound);
            self.add(table::DIVERT_TO, 10, &is_id, &format!("{learn},{to}"));
            // What was learnt brings the tag back.
            let tagged = format!("{is_id},vlan_tci=0x1000/0x1000");
            let to = format!("{learn},pop_vlan,{to}");
            self.add(table::DIVERT_TO, 20, &tagged, &to);
        }
    }

    fn tag_and_send(&self, endpoint: EndpointId, direction: Direction) -> String {
        /// `OFPVID_PRESENT` of OpenFlow 1.2 and later.
        const PRESENT: u16 = 0x1000;
        let tag = Tag {
            endpoint,
            direction,
        };
        let vid = PRESENT | tag.vlan_id();
        let tap = self.plan.tap;
        format!("push_vlan:0x8100,set_field:{vid}->vlan_vid,output:{tap}")
    }

    /// Notes by which port, and with which tag, frames come from this station to that one.
    fn learn(&self) -> String {
        let (table, cookie) = (self.table(table::ORIGIN), self.plan.place.cookie + 1);
        let register = self.plan.place.register;
        format!(
            "learn(table={table},idle_timeout={ORIGIN_SECONDS},priority=10,cookie={cookie:#x},\
             NXM_OF_ETH_SRC[],NXM_OF_ETH_DST[],load:NXM_OF_IN_PORT[]->NXM_OF_IN_PORT[],\
             load:NXM_OF_VLAN_TCI[]->NXM_OF_VLAN_TCI[],load:1->NXM_NX_REG{register}[{}])",
            bit::ORIGIN
        )
    }

    /// What the engine wrote: as if the TAP had never been.
    fn returned(&mut self) {
        let kind = self.go(table::RETURNED_KIND);
        for endpoint in &self.plan.endpoints {
            for direction in [Direction::Outbound, Direction::Inbound] {
                let tag = Tag {
                    endpoint: endpoint.id,
                    direction,
                };
                let place = match direction {
                    Direction::Outbound => format!(
                        "load:{}->NXM_OF_IN_PORT[],{}",
                        endpoint.port,
                        self.load(1, bit::OUTBOUND)
                    ),
                    Direction::Inbound => self.load(endpoint.port, bit::PORT),
                };
                let id = self.load(endpoint.id.get(), bit::ID);
                let decided = self.load(1, bit::DECIDED);
                let vlan = tag.vlan_id();
                let actions = format!("pop_vlan,{id},{place}");
                self.add(
                    table::RETURNED,
                    10,
                    &format!("dl_vlan={vlan}"),
                    &format!("{actions},{kind}"),
                );
                let undecided = self.load(1, bit::UNDECIDED);
                self.add(
                    table::RETURNED,
                    20,
                    &format!("dl_vlan={vlan},dl_vlan_pcp={UNDECIDE}"),
                    &format!("{actions},{undecided},{kind}"),
                );
                if self.plan.code != 0 {
                    self.add(
                        table::RETURNED,
                        20,
                        &format!("dl_vlan={vlan},dl_vlan_pcp={}", self.plan.code),
                        &format!("{actions},{decided},{kind}"),
                    );
                }
            }
        }
        self.add(table::RETURNED, 0, "", "drop");
        let track = self.track(table::COMMIT);
        for bit in [bit::DECIDED, bit::UNDECIDED] {
            let is_set = self.has_bits(&[(bit, true)]);
            for ip in IP {
                self.add(table::RETURNED_KIND, 20, &format!("{ip},{is_set}"), &track);
            }
        }
        for tcp in ["tcp", "tcp6"] {
            let matches = format!("{tcp},tcp_flags=+syn-ack");
            self.add(table::RETURNED_KIND, 10, &matches, &track);
        }
        let on = self.go(table::GO_ON);
        self.add(table::RETURNED_KIND, 0, "", &on);
    }

    /// Notes what is decided at the connection, and forgets it when that is taken back, or when a SYN
    /// begins another one.
    fn commit(&mut self) {
        for direction in [Direction::Outbound, Direction::Inbound] {
            for is_reply in [false, true] {
                for (ip, tcp) in IP.into_iter().zip(["tcp", "tcp6"]) {
                    self.decided(ip, direction, is_reply);
                    self.undecided(ip, tcp, direction, is_reply);
                }
            }
        }
        let on = self.go(table::GO_ON);
        self.add(table::COMMIT, 0, "", &on);
    }

    /// Matches of a connection's packet: all, and those of connections of this generation.
    fn connection(&self, direction: Direction, is_reply: bool, decided: bool) -> [String; 2] {
        // One match: of two on the same register the switch takes the second only.
        let kind = self.has_bits(&[
            (bit::OUTBOUND, direction == Direction::Outbound),
            (bit::DECIDED, decided),
        ]);
        let all = format!("ct_state=+trk-inv-rel{},{kind}", reply(is_reply));
        let (value, mask) = (self.generation(), label::GENERATION);
        let current = format!("{all},ct_label={value:#x}/{mask:#x}");
        [all, current]
    }

    fn decided(&mut self, ip: &str, direction: Direction, is_reply: bool) {
        let role = Role::of(direction, is_reply);
        let bit = role.bit(direction);
        let [all, current] = self.connection(direction, is_reply, true);
        let note = self.note(role, bit, bit);
        self.add(table::COMMIT, 20, &format!("{ip},{current}"), &note);
        // What was decided under another generation is void.
        let afresh = self.note(role, self.generation() | bit, FRESH);
        self.add(table::COMMIT, 10, &format!("{ip},{all}"), &afresh);
    }

    fn undecided(&mut self, ip: &str, tcp: &str, direction: Direction, is_reply: bool) {
        let role = Role::of(direction, is_reply);
        let [all, current] = self.connection(direction, is_reply, false);
        let forget = self.note(role, 0, role.both_bits());
        self.add(table::COMMIT, 20, &format!("{ip},{current}"), &forget);
        // From its SYN on the switch knows the connection, and who opened it.
        let matches = format!("{tcp},tcp_flags=+syn-ack,{all}");
        let begin = self.note(role, self.generation(), FRESH);
        self.add(table::COMMIT, 10, &matches, &begin);
    }

    fn note(&self, role: Role, value: u64, mask: u64) -> String {
        let Place { zone, register, .. } = self.plan.place;
        let low = label::id_shift(role);
        let (high, on) = (low + ID_MASK.count_ones() - 1, self.go(table::GO_ON));
        format!(
            "ct(commit,zone={zone},exec(set_field:{value:#x}/{mask:#x}->ct_label,\
             move:NXM_NX_REG{register}[{}]->NXM_NX_CT_LABEL[{low}..{high}])),{on}",
            bit::ID
        )
    }

    /// Out of the gate.
    fn deliver(&mut self) {
        let (register, to) = (self.plan.place.register, self.go(table::TO));
        let outbound = self.has_bits(&[(bit::OUTBOUND, true)]);
        self.add(table::GO_ON, 10, &outbound, &to);
        let origin = format!("{},{}", self.go(table::ORIGIN), self.go(table::DELIVER));
        self.add(table::GO_ON, 0, "", &origin);
        let known = self.has_bits(&[(bit::ORIGIN, true)]);
        let pipeline = self.go(table::PIPELINE);
        self.add(table::DELIVER, 10, &known, &pipeline);
        // Made by the engine in the name of a station that has sent nothing yet.
        let straight = format!("output:NXM_NX_REG{register}[{}]", bit::PORT);
        self.add(table::DELIVER, 0, "", &straight);
        let all = format!("load:{PASSED:#x}->NXM_NX_REG{register}[]");
        let leave = format!("{all},ct_clear,resubmit(,0)");
        self.add(table::PIPELINE, 0, "", &leave);
    }
}

fn reply(is_reply: bool) -> &'static str {
    if is_reply { "+rpl" } else { "-rpl" }
}

/// Matches of frames that the endpoint takes for its own: to its station, or to a group of stations with
/// its IP address.
fn addressed_to(endpoint: &EndpointPort) -> Vec<String> {
    let mut matches = vec![format!("dl_dst={}", endpoint.mac)];
    matches.extend(endpoint.addresses.iter().map(|address| match address {
        IpAddr::V4(v4) => format!("{TO_GROUP},ip,nw_dst={v4}"),
        IpAddr::V6(v6) => format!("{TO_GROUP},ipv6,ipv6_dst={v6}"),
    }));
    matches
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn plan() -> Plan {
        let endpoint = |port, id| EndpointPort {
            port,
            mac: Mac([2, 0, 0, 0, 0, port as u8]),
            id: EndpointId::new(id).unwrap(),
            addresses: vec![
                [10, 0, 0, port as u8].into(),
                [0xfd00, 0, 0, 0, 0, 0, 0, port].into(),
            ],
        };
        Plan {
            place: Place {
                first_table: 200,
                priority: 65_000,
                register: 15,
                zone: 64_999,
                cookie: 0x746f_6c6c_0000_0000,
            },
            tap: 9,
            generation: 7,
            code: 3,
            endpoints: vec![endpoint(1, 1), endpoint(2, 2046)],
        }
    }

    /// (table, priority, matches) of every flow.
    fn parts(script: &str) -> Vec<(u8, u16, String)> {
        let part = |line: &str| {
            let (head, _) = line.split_once("actions=")?;
            let table = head.split("table=").nth(1)?.split(',').next()?;
            let priority = head.split("priority=").nth(1)?;
            let (priority, matches) = priority.split_once(',')?;
            Some((
                table.parse().unwrap(),
                priority.parse().unwrap(),
                matches.trim_end_matches(',').to_owned(),
            ))
        };
        script.lines().filter_map(part).collect()
    }

    #[test]
    fn every_flow_is_removed_by_its_cookie_and_stands_once() {
        let script = install(&plan());
        assert!(script.starts_with("delete cookie=0x746f6c6c00000000/-1\n"));
        let flows = parts(&script);
        assert_eq!(flows.len() + 1, script.lines().count(), "{script}");
        let mut seen = HashSet::new();
        for flow in &flows {
            assert!(seen.insert(flow.clone()), "twice: {flow:?}");
            // The switch would take only the last of several matches on a field.
            assert!(flow.2.matches("reg15=").count() <= 1, "{flow:?}");
            assert!(
                flow.0 == 0 || (200..200 + TABLES).contains(&flow.0),
                "{flow:?}"
            );
        }
        for line in script.lines().skip(1) {
            assert!(line.starts_with("add cookie=0x746f6c6c00000000,"), "{line}");
        }
    }

    #[test]
    fn only_frames_of_governed_endpoints_enter() {
        let entrance: Vec<_> = parts(&install(&plan()))
            .into_iter()
            .filter(|flow| flow.0 == 0)
            .collect();
        // The TAP; and of each endpoint its port, its station and two addresses.
        assert_eq!(entrance.len(), 1 + 2 * 4);
        for (_, _, matches) in entrance {
            assert!(matches.starts_with("reg15=0/0x80000000,"), "{matches}");
        }
        let empty = Plan {
            endpoints: Vec::new(),
            ..plan()
        };
        let entrance = parts(&install(&empty));
        assert_eq!(entrance.iter().filter(|flow| flow.0 == 0).count(), 1);
    }

    #[test]
    fn a_decision_of_another_generation_is_none() {
        let script = install(&plan());
        let mask = "/0xffffffff";
        let decided: Vec<_> = script
            .lines()
            .filter(|line| line.contains("table=202,") && line.contains("ct_label"))
            .collect();
        assert_eq!(decided.len(), 4);
        for line in decided {
            assert!(
                line.contains("ct_label=0x7") && line.contains(mask),
                "{line}"
            );
        }
    }

    #[test]
    fn roles_and_directions_have_bits_of_their_own() {
        let mut all = 0;
        for direction in [Direction::Outbound, Direction::Inbound] {
            for is_reply in [false, true] {
                let bit = Role::of(direction, is_reply).bit(direction);
                assert_eq!(all & bit, 0);
                all |= bit;
            }
        }
        assert_eq!(all, 0xf);
    }

    #[test]
    fn codes_follow_each_other_and_are_never_zero() {
        for generation in 0..50 {
            assert!((1..UNDECIDE).contains(&code(generation)));
            assert_ne!(code(generation), code(generation + 1));
        }
    }

    #[test]
    fn stations_are_read() {
        let mac = Mac::parse("\"02:0a:ff:00:00:01\"\n").unwrap();
        assert_eq!(mac.to_string(), "02:0a:ff:00:00:01");
        for text in ["", "02:0a", "03:00:00:00:00:01", "00:00:00:00:00:00", "x"] {
            assert_eq!(Mac::parse(text), None, "{text}");
        }
    }
}
