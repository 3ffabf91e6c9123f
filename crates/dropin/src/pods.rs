//! Which pods are on this node, by address. A reply that comes back from the engine's port with the
//! placeholder for the destination's Ethernet address, as it came out of the tunnel, would be sent into the
//! tunnel again by the switch; with the pod's own it reaches the pod.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::log;

/// The address that stands for "whoever is behind the tunnel".
pub const PLACEHOLDER: [u8; 6] = [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];

/// Pause between two questions to the switch's database: pods come and go in seconds.
const PAUSE: Duration = Duration::from_secs(2);

/// What is asked: the database has each pod's addresses with its port.
const QUESTION: [&str; 5] = [
    "--timeout=5",
    "--format=json",
    "--columns=external_ids",
    "list",
    "Port",
];

type Table = HashMap<IpAddr, [u8; 6]>;

/// The table; asks the database when an address is not in it.
#[derive(Clone, Debug)]
pub struct Pods {
    table: Arc<RwLock<Table>>,
    ask: SyncSender<()>,
}

impl Pods {
    /// Starts the thread that asks. Where there is no `ovs-vsctl` the table stays empty.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start() -> io::Result<Self> {
        let table = Arc::new(RwLock::new(Table::new()));
        // One question that waits is enough.
        let (ask, asked) = sync_channel(1);
        let theirs = Arc::clone(&table);
        thread::Builder::new()
            .name("pods".to_owned())
            .spawn(move || run(&asked, &theirs))?;
        Ok(Self { table, ask })
    }

    /// A pod's Ethernet address. If it is not known, the database is asked, for the next packet.
    pub fn mac_of(&self, address: &IpAddr) -> Option<[u8; 6]> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let known = table.get(address).copied();
        if known.is_none() {
            let _ = self.ask.try_send(());
        }
        known
    }
}

fn run(asked: &Receiver<()>, table: &RwLock<Table>) {
    let mut failing = false;
    let mut last: Option<Instant> = None;
    while asked.recv().is_ok() {
        let wait = last.map_or(Duration::ZERO, |last| PAUSE.saturating_sub(last.elapsed()));
        thread::sleep(wait);
        last = Some(Instant::now());
        match from_database() {
            Ok(new) => {
                *table.write().unwrap_or_else(PoisonError::into_inner) = new;
                failing = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    log::warning(format_args!(
                        "asking ovs-vsctl for pods' addresses: {error}"
                    ));
                }
            }
        }
        // What was asked in the meantime is answered as well.
        while !matches!(
            asked.recv_timeout(Duration::ZERO),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)
        ) {}
    }
}

fn from_database() -> io::Result<Table> {
    let output = Command::new("ovs-vsctl")
        .args(QUESTION)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(said));
    }
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    Ok(table_of(&answer))
}

/// Reads `{"data": [[["map", [["attached-mac", "..."], ["ip-address", "a,b"]]]], ...], ...}`.
fn table_of(answer: &Value) -> Table {
    let rows = answer.get("data").and_then(Value::as_array);
    let pods = rows.into_iter().flatten().filter_map(pod_of);
    pods.flat_map(|(addresses, mac)| addresses.into_iter().map(move |address| (address, mac)))
        .collect()
}

fn pod_of(row: &Value) -> Option<(Vec<IpAddr>, [u8; 6])> {
    let pairs = row.get(0)?.get(1)?.as_array()?;
    let find = |name: &str| {
        let pair = pairs
            .iter()
            .find(|pair| pair.get(0).and_then(Value::as_str) == Some(name))?;
        pair.get(1)?.as_str()
    };
    let mac = mac(find("attached-mac")?)?;
    let addresses = find("ip-address")?.split(',');
    let addresses = addresses.filter_map(|address| address.trim().parse().ok());
    Some((addresses.collect(), mac))
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Result<Vec<u8>, _> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect();
    bytes.ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_databases_answer_is_read() {
        // As ovs-vsctl 3.1 prints it.
        let answer = r#"{"data":[[["map",[["antrea-type","gateway"]]]],[["map",[["attached-mac","0a:1b:2c:3d:4e:5f"],["ip-address","10.10.0.3,fd00::3"],["pod-name","web"]]]],[["map",[]]]],"headings":["external_ids"]}"#;
        let table = table_of(&serde_json::from_str(answer).unwrap());
        let mac = [0x0a, 0x1b, 0x2c, 0x3d, 0x4e, 0x5f];
        let expected: Table = ["10.10.0.3", "fd00::3"]
            .map(|address| (address.parse().unwrap(), mac))
            .into();
        assert_eq!(table, expected);
        assert!(table_of(&Value::Null).is_empty());
    }
}
