//! Open vSwitch, by `ovs-vsctl`, if its database is there.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::model::{Ovs, OvsBridge, OvsPort};

/// Sockets of the database.
const SOCKETS: [&str; 2] = ["/run/openvswitch/db.sock", "/var/run/openvswitch/db.sock"];
/// The tables that are asked for, in this order.
const QUESTION: [&str; 15] = [
    "--timeout=5",
    "--format=json",
    "--",
    "--columns=other_config",
    "list",
    "Open_vSwitch",
    "--",
    "--columns=name,datapath_type,ports",
    "list",
    "Bridge",
    "--",
    "--columns=_uuid,tag,interfaces",
    "list",
    "Port",
    "--",
];
const QUESTION_INTERFACES: [&str; 3] = [
    "--columns=_uuid,name,type,mtu,mtu_request,options,statistics",
    "list",
    "Interface",
];

/// A table as `ovs-vsctl --format=json` prints it.
#[derive(Deserialize)]
struct Table {
    headings: Vec<String>,
    data: Vec<Vec<Value>>,
}

/// One row, by column.
type Row<'a> = BTreeMap<&'a str, &'a Value>;

/// Reads it; `None` if it does not run here. `database` is its socket, if not at the usual place.
pub fn read(database: Option<&Path>, unreadable: &mut Vec<String>) -> Option<Ovs> {
    let usual = || SOCKETS.iter().map(Path::new).find(|socket| socket.exists());
    let socket = database.or_else(usual)?;
    match ask(socket).and_then(|text| parse(&text)) {
        Ok(ovs) => Some(ovs),
        Err(e) => {
            unreadable.push(format!("Open vSwitch: {e}"));
            None
        }
    }
}

fn ask(socket: &Path) -> Result<String, String> {
    let output = Command::new("ovs-vsctl")
        .arg(format!("--db=unix:{}", socket.display()))
        .args(QUESTION)
        .args(QUESTION_INTERFACES)
        .output()
        .map_err(|e| format!("running ovs-vsctl: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "ovs-vsctl failed: {}",
            said.lines().next().unwrap_or_default()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn parse(text: &str) -> Result<Ovs, String> {
    let tables = serde_json::Deserializer::from_str(text).into_iter::<Table>();
    let tables: Vec<Table> = tables
        .collect::<Result<_, _>>()
        .map_err(|e| format!("reading what ovs-vsctl printed: {e}"))?;
    let [general, bridges, ports, interfaces] = tables.as_slice() else {
        return Err(format!(
            "ovs-vsctl printed {} tables rather than 4",
            tables.len()
        ));
    };
    let general = rows(general).next().unwrap_or_default();
    let config = map(column(&general, "other_config"));
    let ports: BTreeMap<String, Row> = by_uuid(ports);
    let interfaces: BTreeMap<String, Row> = by_uuid(interfaces);
    let bridges = rows(bridges).map(|bridge| OvsBridge {
        name: string(column(&bridge, "name")),
        datapath_type: match string(column(&bridge, "datapath_type")) {
            kind if kind.is_empty() => "system".to_owned(),
            kind => kind,
        },
        ports: set(column(&bridge, "ports"))
            .filter_map(|uuid| ports.get(&string(uuid)))
            .flat_map(|port| ports_of(port, &interfaces))
            .collect(),
    });
    Ok(Ovs {
        userspace_tso: config
            .get("userspace-tso-enable")
            .is_some_and(|value| value == "true"),
        bridges: bridges.collect(),
    })
}

/// The interfaces of a port: one, or those of a bond.
fn ports_of(port: &Row, interfaces: &BTreeMap<String, Row>) -> Vec<OvsPort> {
    let tag = set(column(port, "tag")).next().and_then(number);
    let found = set(column(port, "interfaces")).filter_map(|uuid| interfaces.get(&string(uuid)));
    let port = |interface: &Row| OvsPort {
        name: string(column(interface, "name")),
        kind: match string(column(interface, "type")) {
            kind if kind.is_empty() => "system".to_owned(),
            kind => kind,
        },
        mtu: set(column(interface, "mtu")).next().and_then(number),
        mtu_request: set(column(interface, "mtu_request"))
            .next()
            .and_then(number),
        tag,
        options: map(column(interface, "options")),
        statistics: map(column(interface, "statistics"))
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
            .collect(),
    };
    found.map(port).collect()
}

fn rows(table: &Table) -> impl Iterator<Item = Row<'_>> {
    let headings = || table.headings.iter().map(String::as_str);
    table
        .data
        .iter()
        .map(move |row| headings().zip(row).collect())
}

fn by_uuid(table: &Table) -> BTreeMap<String, Row<'_>> {
    rows(table)
        .map(|row| (string(column(&row, "_uuid")), row))
        .collect()
}

fn column<'a>(row: &Row<'a>, name: &str) -> &'a Value {
    row.get(name).copied().unwrap_or(&Value::Null)
}

/// A string, a number, or the identifier of `["uuid", "..."]`.
fn string(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(pair) => pair.get(1).map(string).unwrap_or_default(),
        _ => String::new(),
    }
}

fn number<T: TryFrom<u64>>(value: &Value) -> Option<T> {
    T::try_from(value.as_u64()?).ok()
}

/// The members of `["set", [...]]`; a set of one is written as its member.
fn set(value: &Value) -> impl Iterator<Item = &Value> {
    let members = match value.as_array().map(Vec::as_slice) {
        Some([Value::String(tag), Value::Array(members)]) if tag == "set" => members.as_slice(),
        _ if value.is_null() => &[],
        _ => std::slice::from_ref(value),
    };
    members.iter()
}

/// `["map", [[key, value], ...]]`.
fn map(value: &Value) -> BTreeMap<String, String> {
    let Some([Value::String(tag), Value::Array(pairs)]) = value.as_array().map(Vec::as_slice)
    else {
        return BTreeMap::new();
    };
    if tag != "map" {
        return BTreeMap::new();
    }
    let pairs = pairs.iter().filter_map(Value::as_array);
    pairs
        .filter_map(|pair| Some((string(pair.first()?), string(pair.get(1)?))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_table_is_an_error_not_an_empty_switch() {
        assert!(parse("").is_err());
        assert!(parse("{\"headings\":[],\"data\":[]}").is_err());
        assert!(parse("ovs-vsctl: no").is_err());
    }
}
