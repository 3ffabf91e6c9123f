//! Repairs in the agent's configuration: the agent keeps the offload state that its file declares,
//! on the node and in endpoints that come later. The rest of the file stays as it is, byte by byte.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

use crate::action::Action;
use crate::offloads::{Interfaces, Offloads, Place};
use crate::persist::{Left, PersistError, replace};

/// The key.
const KEY: &str = "offloads";
/// First line of a block that may be written anew.
const HEAD: &str = "  # Written by tollgate doctor; it may replace this block.";
/// Only root may write what the agent does; the file may hold nothing secret.
const MODE: u32 = 0o644;

/// What the actions declare, and what cannot be declared.
pub fn declared(actions: &[Action]) -> (Offloads, Vec<Left>) {
    let (mut offloads, mut left) = (Offloads::default(), Vec::new());
    for action in actions {
        match action {
            Action::Feature {
                netns,
                ifname,
                feature,
                on,
            } => {
                let interface = interface(&mut offloads, ifname, place(netns.is_some()));
                interface.features.insert(feature.clone(), *on);
            }
            Action::Mtu { netns, ifname, mtu } => {
                interface(&mut offloads, ifname, place(netns.is_some())).mtu = Some(*mtu);
            }
            Action::Ovs { .. } => {
                left.push(Left::new(action, "Open vSwitch keeps it in its database"));
            }
            _ => left.push(Left::new(
                action,
                "the agent keeps features and MTUs alone; on the host use --persist systemd",
            )),
        }
    }
    (offloads, left)
}

fn interface<'a>(offloads: &'a mut Offloads, name: &str, place: Place) -> &'a mut Interfaces {
    let same = |one: &Interfaces| one.r#match == name && one.place == place;
    let at = offloads.interfaces.iter().position(same);
    let at = at.unwrap_or_else(|| {
        offloads.interfaces.push(Interfaces {
            r#match: name.to_owned(),
            place,
            ..Interfaces::default()
        });
        offloads.interfaces.len() - 1
    });
    &mut offloads.interfaces[at]
}

/// Adds what another one declares; the other one wins.
fn merge(offloads: &mut Offloads, other: &Offloads) {
    for new in &other.interfaces {
        let interface = interface(offloads, &new.r#match, new.place);
        interface.features.extend(new.features.clone());
        interface.mtu = new.mtu.or(interface.mtu);
    }
    if other.antrea_agent_conf.is_some() {
        offloads
            .antrea_agent_conf
            .clone_from(&other.antrea_agent_conf);
    }
    offloads.disable_tx_checksum |= other.disable_tx_checksum;
}

/// As it stands in the file.
pub fn snippet(offloads: &Offloads) -> String {
    let mut out = format!("{KEY}:\n{HEAD}\n");
    if offloads.disable_tx_checksum {
        out.push_str("  disableTxChecksum: true\n");
    }
    if let Some(path) = &offloads.antrea_agent_conf {
        let _ = writeln!(
            out,
            "  antreaAgentConf: {}",
            string(&path.to_string_lossy())
        );
    }
    if offloads.interfaces.is_empty() {
        let _ = writeln!(out, "  interfaces: []");
        return out;
    }
    out.push_str("  interfaces:\n");
    for interface in &offloads.interfaces {
        let place = match interface.place {
            Place::Node => "node",
            Place::Endpoints => "endpoints",
        };
        let _ = writeln!(
            out,
            "  - match: {}\n    place: {place}",
            string(&interface.r#match)
        );
        if !interface.features.is_empty() {
            out.push_str("    features:\n");
        }
        for (name, on) in &interface.features {
            let _ = writeln!(out, "      {}: {on}", string(name));
        }
        if let Some(mtu) = interface.mtu {
            let _ = writeln!(out, "    mtu: {mtu}");
        }
    }
    out
}

fn place(endpoints: bool) -> Place {
    match endpoints {
        true => Place::Endpoints,
        false => Place::Node,
    }
}

/// A string as YAML reads it back: JSON's quoting is YAML's too.
fn string(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let simple = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(plain)
        && !words.contains(&text.to_ascii_lowercase().as_str());
    match simple {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

/// The file's text with what is declared in it.
///
/// # Errors
/// Says what is in the way: a block that somebody wrote in another way, several documents, ...
pub fn merged(text: &str, add: &Offloads) -> Result<String, String> {
    let old = parse(text)?;
    let found = old.as_ref().is_some_and(|old| old.contains_key(KEY));
    let new = match (found, block(text)) {
        (true, Some((from, to))) => {
            let (before, rest) = text.split_at(from);
            let (block, after) = rest.split_at(to - from);
            let mut offloads = ours(block)?;
            merge(&mut offloads, add);
            format!("{before}{}{after}", snippet(&offloads))
        }
        (true, None) => return Err(format!("its `{KEY}` is not a block of its own")),
        (false, _) => {
            let gap = if text.is_empty() || text.ends_with('\n') {
                ""
            } else {
                "\n"
            };
            format!("{text}{gap}{}", snippet(add))
        }
    };
    check(old.unwrap_or_default(), &new)?;
    Ok(new)
}

type Document = BTreeMap<String, serde_json::Value>;

fn parse(text: &str) -> Result<Option<Document>, String> {
    serde_saphyr::from_str(text).map_err(|error| format!("cannot be read as one mapping: {error}"))
}

/// Where the block begins and ends: from its key to the next line that is not indented. Comments
/// and empty lines before that belong to what follows.
fn block(text: &str) -> Option<(usize, usize)> {
    let (mut at, mut from, mut to) = (0, None, None);
    for line in text.split_inclusive('\n') {
        let (start, end) = (at, at + line.len());
        at = end;
        let content = line.trim_end();
        if from.is_none() {
            if content == format!("{KEY}:") {
                (from, to) = (Some(start), Some(end));
            }
            continue;
        }
        let indented = line.starts_with([' ', '\t']) || line.starts_with("- ");
        match (content.is_empty(), indented) {
            (true, _) => {}
            (false, true) => to = Some(end),
            (false, false) => break,
        }
    }
    from.zip(to)
}

/// What a block declares that may be replaced: one that this program wrote, or one without comments.
fn ours(block: &str) -> Result<Offloads, String> {
    #[derive(Deserialize)]
    struct Block {
        offloads: Offloads,
    }
    let foreign = |line: &str| line.contains('#') && line != HEAD;
    if block.lines().any(foreign) {
        return Err(format!(
            "its `{KEY}` block has comments, which would be lost"
        ));
    }
    let parsed: Block = serde_saphyr::from_str(block)
        .map_err(|error| format!("its `{KEY}` block is not understood: {error}"))?;
    Ok(parsed.offloads)
}

/// Nothing but the block changed, as a reader of YAML sees it.
fn check(mut old: Document, new: &str) -> Result<(), String> {
    let mut new = parse(new)?.unwrap_or_default();
    let written = new.remove(KEY).is_some();
    old.remove(KEY);
    match written && old == new {
        true => Ok(()),
        false => Err("it is written in a way that cannot be added to".to_owned()),
    }
}

/// Puts what is declared into the file, which need not exist.
pub fn write(path: &Path, add: &Offloads) -> Result<(), PersistError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(PersistError::file("reading", path)(error)),
    };
    let new = merged(&text, add).map_err(|why| PersistError::Configuration {
        path: path.to_owned(),
        why,
        snippet: snippet(add),
    })?;
    match new == text {
        true => Ok(()),
        false => replace(path, &new, MODE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn gw0() -> Offloads {
        let feature = |netns: Option<&str>, ifname: &str| Action::Feature {
            netns: netns.map(Into::into),
            ifname: ifname.into(),
            feature: "tx-checksum-ip-generic".into(),
            on: false,
        };
        let mtu = Action::Mtu {
            netns: None,
            ifname: "gw0".into(),
            mtu: 1450,
        };
        let clamp = Action::ClampMss {
            netns: None,
            ifname: "gw0".into(),
        };
        let actions = [
            feature(None, "gw0"),
            mtu,
            feature(Some("/proc/5/ns/net"), "eth0"),
            clamp,
        ];
        let (offloads, left) = declared(&actions);
        assert_eq!(left.len(), 1);
        offloads
    }

    const GW0: &str = "offloads:
  # Written by tollgate doctor; it may replace this block.
  interfaces:
  - match: gw0
    place: node
    features:
      tx-checksum-ip-generic: false
    mtu: 1450
  - match: eth0
    place: endpoints
    features:
      tx-checksum-ip-generic: false
";

    #[test]
    fn the_rest_stays_byte_by_byte() {
        for rest in [
            "",
            "tap: a\n",
            "# why\r\ntap:   'a' # x\r\n",
            "---\nlimits:\n    fragments: 7\n\n\n",
        ] {
            assert_eq!(merged(rest, &gw0()).unwrap(), format!("{rest}{GW0}"));
        }
        assert_eq!(merged("tap: a", &gw0()).unwrap(), format!("tap: a\n{GW0}"));
    }

    #[test]
    fn its_own_block_is_replaced_where_it_stands() {
        let text = format!("tap: a\n{GW0}\n# about workers\nworkers: 2\n");
        // Once more: nothing changes.
        assert_eq!(merged(&text, &gw0()).unwrap(), text);
        let mut more = Offloads::default();
        interface(&mut more, "gw0", Place::Node).mtu = Some(1400);
        interface(&mut more, "a b#", Place::Node)
            .features
            .insert("rx-gro".into(), true);
        let new = merged(&text, &more).unwrap();
        assert!(
            new.starts_with("tap: a\noffloads:\n")
                && new.ends_with("\n# about workers\nworkers: 2\n")
        );
        assert!(new.contains("mtu: 1400") && !new.contains("1450"));
        assert!(new.contains("- match: \"a b#\"\n"), "{new}");
        assert!(new.contains("tx-checksum-ip-generic: false"));
    }

    #[test]
    fn a_plain_block_of_somebody_else_is_merged() {
        let text = "offloads:\n  disableTxChecksum: true\n  antreaAgentConf: /a/b.conf\n  interfaces:\n  - match: gw0\n    mtu: 1500\ntap: a\n";
        let new = merged(text, &gw0()).unwrap();
        assert!(new.contains("  antreaAgentConf: \"/a/b.conf\"\n"), "{new}");
        assert!(new.contains("  disableTxChecksum: true\n") && !new.contains("1500"));
        assert!(new.contains("  interfaces:\n  - match: gw0\n"));
        assert!(new.ends_with("tap: a\n"));
    }

    #[test]
    fn what_cannot_be_merged_is_refused() {
        for text in [
            "offloads: {disableTxChecksum: true}\n",
            "\"offloads\":\n  disableTxChecksum: true\n",
            "offloads:\n  # mine\n  disableTxChecksum: true\n",
            "offloads:\n  surprise: true\n",
            "offloads: &x\n  disableTxChecksum: true\nother: *x\n",
            "{tap: a}\n",
            "- a\n",
            "tap: [\n",
            "tap: a\n---\ntap: b\n",
            "tap: a\n...\n",
            "text: |\n  x\n offloads:\n",
        ] {
            assert!(merged(text, &gw0()).is_err(), "{text}");
        }
        // A key within a text is no key.
        let text = "text: |\n  offloads:\n  x\n";
        assert_eq!(merged(text, &gw0()).unwrap(), format!("{text}{GW0}"));
    }

    #[test]
    fn every_name_is_read_back() {
        for name in [
            "gw0", "on", "1e3", "0x10", "~", "a:b", "it's", "q\"", "-", "ü", "*", "a\\b", "null",
        ] {
            let mut offloads = Offloads::default();
            interface(&mut offloads, name, Place::Node).mtu = Some(1500);
            let text = merged("", &offloads).unwrap();
            assert_eq!(ours(&text).unwrap(), offloads, "{text}");
        }
    }

    #[test]
    fn the_file_keeps_its_mode_and_its_link() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("real.yaml"), dir.path().join("agent.yaml"));
        fs::write(&file, "tap: a\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, &gw0()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("tap: a\n{GW0}"));
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);

        fs::write(&file, "offloads: {}\n").unwrap();
        let error = write(&link, &gw0()).unwrap_err().to_string();
        assert!(error.contains("add this yourself:\noffloads:"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "offloads: {}\n");
    }
}
