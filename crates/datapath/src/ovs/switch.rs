//! One bridge and what the agent has on it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::flows::{self, Mac, Place, Plan};
use super::tools::Tools;
use super::{OvsError, mac};

/// The VLAN that the TAP's port is in, alone: one that 802.1Q reserves, so that no frame is flooded to it.
const NO_VLAN: &str = "4095";

/// How often the switch's memory is looked at for what it learnt while it was being cleaned.
const CLEAN_ATTEMPTS: usize = 10;

/// What kind of data path a bridge has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `ovs-vswitchd` itself forwards (`datapath_type=netdev`).
    pub userspace: bool,
    /// It carries super-packets (`other_config:userspace-tso-enable`).
    pub userspace_tso: bool,
}

/// What became of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It has been there all the time.
    Same,
    /// It has been started since, and may have lost everything.
    Anew,
    /// It, or the bridge, is not there.
    Gone,
}

/// A port of the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its OpenFlow number.
    pub number: u16,
    /// The station behind it, if it can be told.
    pub mac: Option<Mac>,
}

/// A bridge.
#[derive(Debug)]
pub struct Switch {
    tools: Tools,
    watch: Option<Watch>,
}

impl Switch {
    /// The bridge must be there.
    pub fn open(tools: Tools) -> Result<(Self, Kind), OvsError> {
        let type_of = ["get", "Bridge", tools.bridge(), "datapath_type"];
        let kind = tools.vsctl(&type_of)?;
        let tso = tools.vsctl(&[
            "--if-exists",
            "get",
            "Open_vSwitch",
            ".",
            "other_config:userspace-tso-enable",
        ])?;
        let kind = Kind {
            userspace: kind.trim().trim_matches('"') == "netdev",
            userspace_tso: tso.trim().trim_matches('"') == "true",
        };
        Ok((Self { tools, watch: None }, kind))
    }

    /// The programs.
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Makes the TAP a port that nothing is flooded to; returns its number.
    pub fn add_tap(&self, tap: &str) -> Result<u16, OvsError> {
        let trunks = format!("trunks={NO_VLAN}");
        self.tools.vsctl(&[
            "--may-exist",
            "add-port",
            self.tools.bridge(),
            tap,
            "--",
            "set",
            "Port",
            tap,
            "vlan_mode=trunk",
            &trunks,
        ])?;
        let number = self.number(tap)?;
        // NORMAL floods nothing there without it either; the action FLOOD would. A bridge may refuse the
        // old version that has it.
        if let Err(error) = self.tools.mod_port(tap, "no-flood") {
            tracing::debug!(%error, "the action FLOOD reaches the TAP");
        }
        Ok(number)
    }

    fn number(&self, interface: &str) -> Result<u16, OvsError> {
        let text = self
            .tools
            .vsctl(&["get", "Interface", interface, "ofport"])?;
        text.trim().parse().map_err(|_| {
            let why = self
                .tools
                .vsctl(&["get", "Interface", interface, "error"])
                .unwrap_or_default();
            OvsError::NoPort {
                bridge: self.tools.bridge().to_owned(),
                port: interface.to_owned(),
                why: why.trim().to_owned(),
            }
        })
    }

    /// Every port of the bridge, by the name of its interface; `None`: it does not work for now.
    pub fn ports(&self) -> Result<BTreeMap<String, Option<Port>>, OvsError> {
        let names = self.tools.vsctl(&["list-ifaces", self.tools.bridge()])?;
        let table = self.tools.vsctl(&[
            "--format=csv",
            "--data=bare",
            "--no-headings",
            "--columns=name,ofport,type,mac_in_use,external_ids",
            "list",
            "Interface",
        ])?;
        let own = names.lines().map(|name| (name.to_owned(), None));
        let mut ports: BTreeMap<String, Option<Port>> = own.collect();
        for (name, port) in table.lines().filter_map(read_port) {
            if let Some(place) = ports.get_mut(name) {
                *place = Some(port);
            }
        }
        Ok(ports)
    }

    /// The largest MTU of the bridge's ports, the TAP's aside; `None`: no port tells.
    pub fn mtu(&self, tap: &str) -> Result<Option<u32>, OvsError> {
        let names = self.tools.vsctl(&["list-ifaces", self.tools.bridge()])?;
        let table = self.tools.vsctl(&[
            "--format=csv",
            "--data=bare",
            "--no-headings",
            "--columns=name,mtu",
            "list",
            "Interface",
        ])?;
        let own = |name: &str| name != tap && names.lines().any(|own| own == name);
        Ok(table
            .lines()
            .filter_map(|line| line.split_once(','))
            .filter(|(name, _)| own(name.trim_matches('"')))
            .filter_map(|(_, mtu)| mtu.parse().ok())
            .max())
    }

    /// Puts the gate's flows in the place of those that were there, in one step; how many these are.
    pub fn install(&self, plan: &Plan) -> Result<usize, OvsError> {
        let script = flows::install(plan);
        self.tools.change_flows(&script)?;
        Ok(script
            .lines()
            .filter(|line| line.starts_with("add "))
            .count())
    }

    /// How many of the gate's flows are there.
    pub fn installed(&self, place: &Place) -> Result<usize, OvsError> {
        self.tools.count(&format!("cookie={:#x}/-1", place.cookie))
    }

    /// What became of the switch since the last call; to be called several times a second.
    pub fn life(&mut self) -> Life {
        if self.watch.as_mut().is_some_and(Watch::lives) {
            return Life::Same;
        }
        self.watch = Watch::start(&self.tools).ok();
        match self.watch {
            Some(_) => Life::Anew,
            None => Life::Gone,
        }
    }

    /// Takes everything away: flows, what the switch learnt, the decisions at its connections, the port.
    /// Returns what was there, in words.
    pub fn clean(&self, place: &Place, tap: &str) -> Result<Vec<String>, OvsError> {
        let mut removed = Vec::new();
        let bridge = self.tools.bridge();
        let gate = format!("cookie={:#x}/-1", place.cookie);
        let count = self.tools.flows(&gate)?.len();
        if count > 0 {
            self.tools.change_flows(&flows::remove_gate(place))?;
            removed.push(format!("{count} flows on bridge {bridge}"));
        }
        self.unlearn(place)?;
        // Not every data path has a conntrack to be emptied; without the flows nobody reads it.
        let zone = format!("zone={}", place.zone);
        if let Err(error) = self.tools.appctl(&["dpctl/flush-conntrack", &zone]) {
            tracing::debug!(%error, "cannot empty the connection tracking zone");
        }
        let ports = self.tools.vsctl(&["list-ports", bridge])?;
        if ports.lines().any(|port| port == tap) {
            self.tools
                .vsctl(&["--if-exists", "del-port", bridge, tap])?;
            removed.push(format!("port {tap} of bridge {bridge}"));
        }
        Ok(removed)
    }

    /// What is on its way through the switch may still teach it.
    fn unlearn(&self, place: &Place) -> Result<(), OvsError> {
        let learnt = format!("cookie={:#x}/-1", place.cookie + 1);
        for _ in 0..CLEAN_ATTEMPTS {
            // Older ones do not know it; then the next look counts.
            let _ = self.tools.appctl(&["revalidator/wait"]);
            if self.tools.flows(&learnt)?.is_empty() {
                break;
            }
            self.tools.change_flows(&flows::remove_learnt(place))?;
        }
        Ok(())
    }
}

/// A line of the table of interfaces.
fn read_port(line: &str) -> Option<(&str, Port)> {
    let mut columns = line.split(',');
    let name = columns.next()?.trim_matches('"');
    let number = columns.next()?.parse().ok()?;
    let kind = columns.next()?;
    let in_use = columns.next()?;
    // The last one may hold commas, and stands in quotes then.
    let ids = columns.collect::<Vec<_>>().join(",");
    let attached = ids
        .split([' ', ',', '"'])
        .find_map(|id| id.strip_prefix("attached-mac="))
        .and_then(Mac::parse);
    let mac = attached.or_else(|| match kind {
        // The interface itself is the endpoint's.
        "internal" => Mac::parse(in_use),
        _ => mac::of_peer(name),
    });
    Some((name, Port { number, mac }))
}

/// An OpenFlow connection that is only held: it ends with the switch.
#[derive(Debug)]
struct Watch {
    stream: UnixStream,
    pending: Vec<u8>,
}

/// OpenFlow header: version, type, length, transaction.
const HEADER: usize = 8;
const VERSION_1_5: u8 = 6;
const HELLO: u8 = 0;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;

impl Watch {
    fn start(tools: &Tools) -> std::io::Result<Self> {
        let mut stream = UnixStream::connect(tools.openflow_socket())?;
        stream.set_nonblocking(true)?;
        stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(&[VERSION_1_5, HELLO, 0, HEADER as u8, 0, 0, 0, 1])?;
        Ok(Self {
            stream,
            pending: Vec::new(),
        })
    }

    fn lives(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(n) => {
                    self.pending.extend(buffer.iter().take(n));
                    if !self.answer() {
                        return false;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// Answers what asks whether anybody is here; false: the stream makes no sense.
    fn answer(&mut self) -> bool {
        while let Some(&[version, kind, high, low, ..]) = self.pending.first_chunk::<HEADER>() {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length < HEADER {
                return false;
            }
            if self.pending.len() < length {
                return true;
            }
            let mut message: Vec<u8> = self.pending.drain(..length).collect();
            if kind == ECHO_REQUEST {
                if let Some([v, k]) = message.first_chunk_mut::<2>() {
                    (*v, *k) = (version, ECHO_REPLY);
                }
                if self.stream.write_all(&message).is_err() {
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        let line = "eth1,4,,02:00:00:00:00:01,\"attached-mac=0a:00:00:00:00:07 iface-id=x\"";
        let (name, port) = read_port(line).unwrap();
        assert_eq!((name, port.number), ("eth1", 4));
        assert_eq!(port.mac.unwrap().to_string(), "0a:00:00:00:00:07");
        let (_, port) = read_port("br0,65534,internal,02:00:00:00:00:01,").unwrap();
        assert_eq!(port.number, 65534);
        assert_eq!(port.mac, Mac::parse("02:00:00:00:00:01"));
        assert_eq!(read_port("gone,-1,,,"), None);
    }
}
