//! Offload state that somebody declared: Antrea's own switch, what it covers and what it leaves out,
//! and where a machine differs from what is declared.

use serde::{Deserialize, Serialize};

use crate::case::Declared;
use crate::model::{LinkRef, Snapshot};

/// The feature that the switch turns off. Segmentation needs it, so the kernel turns that off too.
pub const TX_CHECKSUM: &str = "tx-checksum-ip-generic";

/// Does a name match a pattern in which `*` stands for any text and `?` for one character?
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last `*` was, and how much of the name it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match (pattern.get(p), star) {
            (Some('*'), _) => {
                star = Some((p, n));
                p += 1;
            }
            (Some(&c), _) if c == '?' || Some(&c) == name.get(n) => {
                p += 1;
                n += 1;
            }
            (_, Some((at, taken))) => {
                star = Some((at, taken + 1));
                p = at + 1;
                n = taken + 1;
            }
            (_, None) => return false,
        }
    }
    pattern.iter().skip(p).all(|&c| c == '*')
}

/// Where a machine differs from what is declared: the interface and the declaration. Interfaces
/// without the feature are left out.
pub fn differing<'a>(now: &Snapshot, declared: &'a [Declared]) -> Vec<(LinkRef, &'a Declared)> {
    let mut found = Vec::new();
    for (netns, link) in now.links() {
        // A pod's interface is the end of a pair whose other end is elsewhere.
        let inside = netns.name != "host" && link.link.is_some_and(|to| to.netns != netns.id);
        let here = |want: &&Declared| {
            want.endpoints == inside
                && (inside || netns.name == "host")
                && matches(&want.interface, &link.name)
                && link
                    .feature(&want.feature)
                    .is_some_and(|feature| feature.active != want.on)
        };
        found.extend(
            declared
                .iter()
                .filter(here)
                .map(|want| (netns.at(link), want)),
        );
    }
    found
}

/// State that a declaration does not see to, although what it is for needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The state, as if it were declared.
    pub declared: Declared,
    /// Why it is not seen to, and what to do.
    pub why: String,
}

/// Antrea's agent configuration file.
pub mod antrea_conf {
    use std::path::{Path, PathBuf};

    use super::{Declared, Deserialize, Gap, Serialize, TX_CHECKSUM};

    /// The switch's name in the file.
    pub const FIELD: &str = "disableTXChecksumOffload";
    /// A file above this many bytes is no configuration.
    const MAX_BYTES: u64 = 1 << 20;
    /// Antrea's default of `hostGateway`.
    const GATEWAY: &str = "antrea-gw0";
    /// Name of the tunnel device that Antrea makes.
    const TUNNEL: &str = "antrea-tun0";

    /// Why the file says nothing.
    #[derive(Debug, thiserror::Error)]
    pub enum ConfError {
        /// It cannot be read.
        #[error("cannot read {}: {source}", path.display())]
        Read {
            /// Which file.
            path: PathBuf,
            /// What the system said.
            source: std::io::Error,
        },
        /// It is larger than any configuration.
        #[error("{} has {size} bytes; at most {MAX_BYTES} are read", path.display())]
        TooLarge {
            /// Which file.
            path: PathBuf,
            /// Its size.
            size: u64,
        },
        /// It is no YAML, or a value is of the wrong kind.
        #[error("{}: {message}", path.display())]
        Syntax {
            /// Which file.
            path: PathBuf,
            /// What is wrong.
            message: String,
        },
    }

    /// What the file says that matters here.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct AntreaSwitch {
        /// The file.
        pub path: PathBuf,
        /// `disableTXChecksumOffload`.
        pub disabled: bool,
        /// `hostGateway`: name of the gateway interface.
        pub gateway: String,
        /// `transportInterface`: the uplink, if it is named.
        pub uplink: Option<String>,
        /// Traffic between nodes goes through a tunnel (`trafficEncapMode` is `encap` or `hybrid`).
        pub tunnel: bool,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct File {
        #[serde(rename = "disableTXChecksumOffload")]
        disable_tx_checksum_offload: Option<bool>,
        host_gateway: Option<String>,
        transport_interface: Option<String>,
        traffic_encap_mode: Option<String>,
    }

    /// Reads the file.
    pub fn read(path: &Path) -> Result<AntreaSwitch, ConfError> {
        let failed = |source| ConfError::Read {
            path: path.to_owned(),
            source,
        };
        let size = std::fs::metadata(path).map_err(failed)?.len();
        if size > MAX_BYTES {
            return Err(ConfError::TooLarge {
                path: path.to_owned(),
                size,
            });
        }
        parse(path, &std::fs::read_to_string(path).map_err(failed)?)
    }

    /// The same of a text; `path` names the file.
    pub fn parse(path: &Path, text: &str) -> Result<AntreaSwitch, ConfError> {
        // A file of comments alone is one in which everything has its default.
        let file: Option<File> =
            serde_saphyr::from_str(text).map_err(|error| ConfError::Syntax {
                path: path.to_owned(),
                message: error
                    .without_snippet()
                    .to_string()
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" "),
            })?;
        let file = file.unwrap_or_default();
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let mode = given(file.traffic_encap_mode).unwrap_or_else(|| "encap".to_owned());
        Ok(AntreaSwitch {
            path: path.to_owned(),
            disabled: file.disable_tx_checksum_offload.unwrap_or(false),
            gateway: given(file.host_gateway).unwrap_or_else(|| GATEWAY.to_owned()),
            uplink: given(file.transport_interface),
            tunnel: matches!(mode.to_lowercase().as_str(), "encap" | "hybrid"),
        })
    }

    impl AntreaSwitch {
        fn state(&self, interface: &str, endpoints: bool) -> Declared {
            Declared {
                source: format!("{}: {FIELD}", self.path.display()),
                interface: interface.to_owned(),
                endpoints,
                feature: TX_CHECKSUM.to_owned(),
                on: false,
            }
        }

        /// What the switch declares; nothing while it is off, which leaves everything as it is.
        pub fn declared(&self) -> Vec<Declared> {
            if !self.disabled {
                return Vec::new();
            }
            vec![self.state(&self.gateway, false), self.state("*", true)]
        }

        /// What stays as it was although the switch is on.
        pub fn gaps(&self) -> Vec<Gap> {
            if !self.disabled {
                return Vec::new();
            }
            let gap = |interface: &str, endpoints, why: String| Gap {
                declared: self.state(interface, endpoints),
                why,
            };
            let mut gaps = vec![
                gap(
                    "*",
                    true,
                    "the switch acts when a pod is created: pods that were there before keep their \
                     offload until they are created again. `offloads.antreaAgentConf` of \
                     tollgate's agent reaches them as they are"
                        .to_owned(),
                ),
                gap(
                    &self.gateway,
                    false,
                    format!(
                        "Antrea before v2.3 does not switch the gateway. Declare {} under \
                         `offloads.interfaces`",
                        self.gateway
                    ),
                ),
            ];
            if self.tunnel {
                gaps.push(gap(
                    TUNNEL,
                    false,
                    format!(
                        "the tunnel device is not covered: what it receives is merged to \
                         super-packets. Declare {TUNNEL} under `offloads.interfaces` if it exists"
                    ),
                ));
            }
            let uplink = self.uplink.as_deref();
            gaps.push(gap(
                uplink.unwrap_or("*"),
                false,
                format!(
                    "the uplink{} is not covered: what it receives is merged (GRO) before it gets \
                     to the pods",
                    uplink.map_or(String::new(), |name| format!(" {name}"))
                ),
            ));
            gaps
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use super::antrea_conf::{AntreaSwitch, ConfError, parse, read};
    use super::*;
    use crate::model::{Feature, Link, Netns, NetnsId};

    #[test]
    fn wildcards_match_whole_names() {
        for (pattern, name, expected) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth*", "eth01", true),
            ("*", "", true),
            ("*", "x", true),
            ("veth*a", "veth1a2a", true),
            ("veth*a", "veth1a2b", false),
            ("e?h0", "eth0", true),
            ("e?h0", "eh0", false),
            ("", "", true),
            ("", "x", false),
            ("*?", "", false),
            ("a**b", "ab", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    fn conf(text: &str) -> Result<AntreaSwitch, ConfError> {
        parse(Path::new("antrea-agent.conf"), text)
    }

    #[test]
    fn the_switch_is_read_among_everything_else() {
        let on = conf(
            "featureGates:\n  L7NetworkPolicy: true\n# comment\nhostGateway: gw1\n\
             disableTXChecksumOffload: true\ntransportInterface: ens3\n\
             trafficEncapMode: noEncap\n",
        )
        .unwrap();
        assert!(on.disabled && !on.tunnel);
        assert_eq!(
            (on.gateway.as_str(), on.uplink.as_deref()),
            ("gw1", Some("ens3"))
        );
        let declared = on.declared();
        assert_eq!(declared.len(), 2);
        assert!(declared.iter().all(|d| !d.on && d.feature == TX_CHECKSUM));
        assert_eq!(declared[0].interface, "gw1");
        assert!(declared[1].endpoints);
        for text in [
            "",
            "# all defaults\n",
            "disableTXChecksumOffload: false\n",
            "a: 1\n",
        ] {
            let off = conf(text).unwrap();
            assert!(!off.disabled && off.tunnel, "{text:?}");
            assert!(
                off.declared().is_empty() && off.gaps().is_empty(),
                "{text:?}"
            );
            assert_eq!(off.gateway, "antrea-gw0");
        }
    }

    #[test]
    fn what_the_switch_leaves_out_is_told() {
        let gaps = conf("disableTXChecksumOffload: true\n").unwrap().gaps();
        let all: Vec<_> = gaps.iter().map(|gap| gap.why.as_str()).collect();
        assert_eq!(gaps.len(), 4);
        for (gap, word) in all.iter().zip(["pods", "v2.3", "antrea-tun0", "uplink"]) {
            assert!(gap.contains(word), "{gap}");
        }
        let routed = conf("disableTXChecksumOffload: true\ntrafficEncapMode: noEncap\n").unwrap();
        assert_eq!(routed.gaps().len(), 3, "no tunnel, no gap of it");
    }

    #[test]
    fn a_broken_file_is_named() {
        for (text, expected) in [
            ("disableTXChecksumOffload: maybe\n", "antrea-agent.conf: "),
            ("a: [\n", "antrea-agent.conf: "),
        ] {
            let error = conf(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
        let error = read(Path::new("/nonexistent/antrea-agent.conf")).unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/antrea-agent.conf"),
            "{error}"
        );
    }

    #[test]
    fn interfaces_that_differ_are_found_by_their_place() {
        let link = |ifindex, name: &str, other, on| Link {
            ifindex,
            name: name.to_owned(),
            link: Some(LinkRef {
                netns: NetnsId(other),
                ifindex: 9,
            }),
            features: vec![Feature {
                name: TX_CHECKSUM.to_owned(),
                active: on,
                ..Feature::default()
            }],
            ..Link::default()
        };
        let netns = |id, name: &str, links| Netns {
            pids: Vec::new(),
            aliases: Vec::new(),
            id: NetnsId(id),
            name: name.to_owned(),
            path: "/x".into(),
            links,
            routes: Vec::new(),
            sysctls: Default::default(),
            counters: Default::default(),
            packet_sockets: Vec::new(),
            filter: Default::default(),
        };
        let now = Snapshot {
            namespaces: vec![
                netns(
                    1,
                    "host",
                    vec![link(1, "antrea-gw0", 1, false), link(2, "veth1", 2, true)],
                ),
                netns(2, "old", vec![link(3, "eth0", 1, true)]),
                netns(3, "new", vec![link(4, "eth0", 1, false)]),
            ],
            ..Snapshot::default()
        };
        let declared = conf("disableTXChecksumOffload: true\n").unwrap().declared();
        let found = differing(&now, &declared);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0.netns, NetnsId(2));
    }
}
