//! The machine that the command runs on.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::Path;

use rustix::termios::tcgetwinsize;
use tollgate_agent::config::{Config, Overrides};
use tollgate_agent::offloads::config::{Offloads, Place};
use tollgate_doctor::case::{Case, Declared, Path as Way, ProbeResult};
use tollgate_doctor::catalogue::{self, CATALOGUE};
use tollgate_doctor::declared::{TX_CHECKSUM, antrea_conf};
use tollgate_doctor::draw;
use tollgate_doctor::finding::{Finding, Number};
use tollgate_doctor::model::{NetnsId, Snapshot};
use tollgate_doctor::path::{self, Endpoint, Target};
use tollgate_doctor::probe::{self, Listening, OtherSide, ProbePlan, Trust, Web};

use super::parts::{Declarations, Doctor, Judgement, NotCovered, Sources};

/// Fewer columns than these are not filled with text, whatever the terminal says.
const NARROWEST: usize = 60;
/// Lines longer than this are tiring to read.
const WIDEST: usize = 120;

/// This machine.
pub struct Machine;

impl Doctor for Machine {
    fn snapshot(&self) -> Result<Snapshot, String> {
        tollgate_doctor::collect::snapshot().map_err(|error| error.to_string())
    }

    fn path(
        &self,
        now: &Snapshot,
        endpoint: &str,
        to: Option<&str>,
    ) -> Result<Option<Way>, String> {
        let endpoint = self::endpoint(endpoint);
        let words = |error: path::PathError| error.to_string();
        let netns = path::namespace(now, &endpoint).map_err(words)?;
        let Some(to) = to else {
            return Ok(None);
        };
        let target = Target {
            said: to.to_owned(),
            address: address(to, &netns.path)?,
        };
        path::resolve(now, &endpoint, &target)
            .map(Some)
            .map_err(words)
    }

    fn draw(&self, case: &Case, path: &Way, findings: &[Finding], ascii: bool) -> String {
        let options = draw::Options {
            ascii,
            width: self.width(),
            findings,
        };
        draw::draw(case, path, options)
    }

    fn width(&self) -> usize {
        let out = io::stdout();
        let columns = match out.is_terminal() {
            true => tcgetwinsize(&out).map_or(0, |size| usize::from(size.ws_col)),
            false => 0,
        };
        match columns {
            0 => draw::WIDTH,
            columns => columns.clamp(NARROWEST, WIDEST),
        }
    }

    fn probe(&self, now: &Snapshot, path: &Way, to: &str) -> Result<Vec<ProbeResult>, String> {
        let words = |error: &dyn std::error::Error| format!("whether probes pass: {error}");
        let netns = path::namespace(now, &endpoint(&path.from)).map_err(|e| words(&e))?;
        let remote = remote(now, path, to);
        let plan = match (remote, is_url(to)) {
            (Some(other), _) => {
                let mut plan = ProbePlan::between(&netns.path, Path::new(""));
                plan.other = OtherSide::Namespace(other);
                plan
            }
            (None, true) => {
                let web = Web {
                    url: to.to_owned(),
                    trust: Trust::Anyone,
                    upload: false,
                };
                ProbePlan::web(&netns.path, web)
            }
            (None, false) => {
                let why = format!(
                    "whether probes pass: {to} is not on this machine; give --to http://... of a \
                     web server there"
                );
                return Err(why);
            }
        };
        probe::run(&plan).map_err(|error| words(&error))
    }

    fn declared(&self, sources: Sources<'_>) -> Result<Declarations, String> {
        let mut all = Declarations::default();
        if let Some(file) = sources.config.filter(|path| path.exists()) {
            let config = Config::load(Some(file), Overrides::default())
                .map_err(|error| format!("configuration: {error}"))?;
            let offloads = config.offloads;
            if let Some(conf) = &offloads.antrea_agent_conf {
                let switch = antrea_conf::read(conf).map_err(|error| error.to_string())?;
                all.states.extend(switch.declared());
            }
            all.states.extend(of_agent(file, &offloads));
        }
        if let Some(file) = sources.antrea_conf {
            let switch = antrea_conf::read(file).map_err(|error| error.to_string())?;
            all.states.extend(switch.declared());
            let source = format!("{}: {}", file.display(), antrea_conf::FIELD);
            all.not_covered
                .extend(switch.gaps().into_iter().map(|gap| NotCovered {
                    source: source.clone(),
                    why: gap.why,
                }));
        }
        Ok(all)
    }

    fn judge(&self, case: &Case) -> Judgement {
        let judgement = catalogue::judge(case);
        Judgement {
            findings: judgement.findings,
            untold: judgement.untold,
        }
    }

    fn catalogue(&self) -> Vec<(Number, String)> {
        let entries = CATALOGUE.iter();
        entries
            .map(|entry| (entry.number, entry.title.to_owned()))
            .collect()
    }

    fn explain(&self, number: Number) -> Option<String> {
        catalogue::entry(number).map(|entry| entry.text.to_owned())
    }
}

/// What the agent's configuration declares, in the order in which later entries win.
fn of_agent(file: &Path, offloads: &Offloads) -> Vec<Declared> {
    let source = |field: &str| format!("{}: offloads.{field}", file.display());
    let mut all = Vec::new();
    if offloads.disable_tx_checksum {
        all.push(Declared {
            source: source("disableTxChecksum"),
            interface: "*".to_owned(),
            endpoints: true,
            feature: TX_CHECKSUM.to_owned(),
            on: false,
        });
    }
    for entry in &offloads.interfaces {
        all.extend(entry.features.iter().map(|(feature, on)| Declared {
            source: source("interfaces"),
            interface: entry.r#match.clone(),
            endpoints: entry.place == Place::Endpoints,
            feature: feature.clone(),
            on: *on,
        }));
    }
    all
}

/// `ns/name` is a pod; everything else says itself what it is.
fn endpoint(text: &str) -> Endpoint {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !namespace.contains(':') => {
            Endpoint::Pod {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }
        }
        // Names never fail to be one.
        _ => text.parse().unwrap_or_else(|never| match never {}),
    }
}

fn is_url(to: &str) -> bool {
    to.contains("://")
}

/// The address of a host or a URL's host. Names are looked up from the endpoint's namespace, where
/// another resolver may be reachable; which one is the doctor's own configuration.
fn address(to: &str, netns: &Path) -> Result<IpAddr, String> {
    let host = host(to);
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let look_up = || (host, 0).to_socket_addrs().map(|mut all| all.next());
    let found = match File::open(netns) {
        Ok(_) => probe::netns::within(netns, look_up).unwrap_or_else(|_| look_up()),
        // A recording's namespace is not here.
        Err(_) => look_up(),
    };
    match found {
        Ok(Some(found)) => Ok(found.ip()),
        Ok(None) => Err(format!("{host} has no address")),
        Err(error) => Err(format!(
            "looking up {host}: {error}; give an address instead"
        )),
    }
}

/// Host of a URL, or the text itself, without brackets and port.
fn host(to: &str) -> &str {
    let rest = to.split_once("://").map_or(to, |(_, rest)| rest);
    let rest = match is_url(to) {
        true => rest.split(['/', '?', '#']).next().unwrap_or(rest),
        false => rest,
    };
    if let Some((inside, _)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return inside;
    }
    match rest.split_once(':') {
        // More than one colon: an IPv6 address.
        Some((host, port)) if !port.contains(':') => host,
        _ => rest,
    }
}

/// The remote side, if it is a namespace of this machine.
fn remote(now: &Snapshot, path: &Way, to: &str) -> Option<Listening> {
    let address = host(to).parse::<IpAddr>().ok();
    let last: NetnsId = path.hops.last()?.at.netns;
    let netns = now.netns(last)?;
    let has = |wanted: IpAddr| {
        let mut addresses = netns.links.iter().flat_map(|link| &link.addresses);
        addresses.any(|own| own.addr() == wanted)
    };
    if !path.ends.is_empty() || !address.is_some_and(has) {
        return None;
    }
    let mut listening = Listening {
        netns: netns.path.clone(),
        ..Listening::default()
    };
    match address? {
        IpAddr::V4(address) => listening.v4 = Some(address),
        IpAddr::V6(address) => listening.v6 = Some(address),
    }
    Some(listening)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_taken_out_of_what_people_type() {
        for (to, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:80", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("example.com", "example.com"),
            ("example.com:8080", "example.com"),
            ("http://example.com/a:b", "example.com"),
            ("https://example.com:8443?x", "example.com"),
            ("http://[2001:db8::1]:80/", "2001:db8::1"),
        ] {
            assert_eq!(host(to), expected, "{to}");
        }
    }

    #[test]
    fn a_slash_makes_a_pod_of_a_name() {
        assert!(matches!(endpoint("shop/web-1"), Endpoint::Pod { .. }));
        assert!(matches!(
            endpoint("/run/netns/blue"),
            Endpoint::NetnsPath(_)
        ));
        assert!(matches!(endpoint("pod:shop/web-1"), Endpoint::Pod { .. }));
        assert_eq!(endpoint("pid:7"), Endpoint::Pid(7));
        assert_eq!(endpoint("blue"), Endpoint::Named("blue".into()));
    }
}
