//! What one agent leaves to the next of the names that endpoints were told. Clients hold on to an
//! address for its TTL: without this, a restart would refuse them until they ask again.
//!
//! Like the memory of flows it is a cache, and an agent that is killed leaves none.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{BufReader, BufWriter, Error, ErrorKind, Result, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_engine::names::NameTable;
use tollgate_engine::table::PolicyTable;
use tollgate_policy::EndpointPolicy;
use tollgate_wire::tag::EndpointId;

/// Name of the file in the run directory.
pub const FILE: &str = "names.json";

/// A larger file is not ours: a million pairs of some 100 bytes.
const MAX_BYTES: u64 = 128 << 20;

/// Differs from boot to boot; the times in the file are of one boot's clock.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Serialize, Deserialize)]
struct Contents {
    boot: String,
    /// By endpoint (`namespace/name`; identifiers may be given anew): name, address, and the second
    /// of the monotonic clock until which the pair counts.
    endpoints: HashMap<String, Vec<(Arc<str>, IpAddr, u64)>>,
}

/// Leaves the names to the next agent.
///
/// # Errors
/// The file cannot be written.
pub fn save(run_dir: &Path, names: &NameTable, table: &PolicyTable, now: Duration) -> Result<()> {
    let mut endpoints = HashMap::new();
    for (id, policy) in endpoints_of(table) {
        let known = names.known(id, now).into_iter();
        let known: Vec<_> = known
            .map(|(name, address, until)| (name, address, until.as_secs()))
            .collect();
        if !known.is_empty() {
            endpoints.insert(policy.name().to_owned(), known);
        }
    }
    let (path, new) = (run_dir.join(FILE), run_dir.join(format!("{FILE}.new")));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    let mut writer = BufWriter::new(file);
    let boot = std::fs::read_to_string(BOOT_ID)?;
    serde_json::to_writer(&mut writer, &Contents { boot, endpoints })?;
    writer.flush()?;
    std::fs::rename(new, path)
}

/// Takes the file: what still counts, and what the policy still asks for, is known again; the file is
/// removed. No file is no error.
///
/// # Errors
/// The file cannot be read or is not ours; nothing is known then.
pub fn take(run_dir: &Path, names: &NameTable, table: &PolicyTable, now: Duration) -> Result<()> {
    let path = run_dir.join(FILE);
    let read = read(&path);
    // What cannot be removed now is overwritten at the end.
    let _ = std::fs::remove_file(&path);
    let Some(contents) = read? else {
        return Ok(());
    };
    if contents.boot != std::fs::read_to_string(BOOT_ID)? {
        return Ok(());
    }
    for (id, policy) in endpoints_of(table) {
        let known = contents.endpoints.get(policy.name()).into_iter().flatten();
        for (name, address, until) in known {
            let until = Duration::from_secs(*until);
            if until > now && policy.wants_name(name) {
                names.restore(id, name, *address, until);
            }
        }
    }
    Ok(())
}

fn endpoints_of(table: &PolicyTable) -> impl Iterator<Item = (EndpointId, &EndpointPolicy)> {
    let all = (0..=u16::MAX).zip(&table.by_id);
    all.filter_map(|(id, policy)| Some((EndpointId::new(id)?, &**policy.as_ref()?)))
}

fn read(path: &Path) -> Result<Option<Contents>> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if file.metadata()?.len() > MAX_BYTES {
        return Err(Error::other(format!("more than {MAX_BYTES} bytes")));
    }
    Ok(Some(serde_json::from_reader(BufReader::new(file))?))
}

#[cfg(test)]
mod tests {
    use tollgate_policy::{CompileOptions, SourceFile, compile};

    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn table(id: usize, fqdn: &str) -> PolicyTable {
        let text = format!(
            "apiVersion: policy.tollgate.dev/v1alpha1\nkind: Endpoint\n\
             metadata: {{name: web, namespace: shop}}\n\
             spec: {{interface: v, addresses: [10.0.0.2]}}\n---\n\
             apiVersion: crd.antrea.io/v1beta1\nkind: ClusterNetworkPolicy\n\
             metadata: {{name: p}}\nspec:\n  priority: 1\n  appliedTo: [{{podSelector: {{}}}}]\n  \
             egress: [{{action: Allow, to: [{{fqdn: '{fqdn}'}}]}}]\n"
        );
        let (name, text) = ("t.yaml", text.as_str());
        let set = compile(&[SourceFile { name, text }], &CompileOptions::default()).unwrap();
        let mut by_id = vec![None; id];
        by_id.push(set.endpoint("shop/web").cloned());
        PolicyTable {
            generation: 1,
            by_id,
        }
    }

    #[test]
    fn the_next_agent_knows_the_names_until_they_expire() {
        let dir = tempfile::tempdir().unwrap();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let old = NameTable::default();
        old.learn(EndpointId::new(1).unwrap(), "a.b", &[(address, 100)], NOW);
        for (fqdn, later, expected) in [("*.b", 99, 1), ("*.b", 100, 0), ("*.c", 0, 0)] {
            save(dir.path(), &old, &table(1, "*.b"), NOW).unwrap();
            let new = NameTable::default();
            let (table, now) = (table(2, fqdn), NOW + Duration::from_secs(later));
            take(dir.path(), &new, &table, now).unwrap();
            let id = EndpointId::new(2).unwrap();
            assert_eq!(new.names_for(id, &address, NOW).len(), expected, "{fqdn}");
            assert!(!dir.path().join(FILE).exists());
            take(dir.path(), &new, &table, now).unwrap();
        }
    }

    #[test]
    fn rubbish_and_another_boot_teach_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let names = NameTable::default();
        let (table, path) = (table(1, "*"), dir.path().join(FILE));
        std::fs::write(&path, "{").unwrap();
        take(dir.path(), &names, &table, NOW).unwrap_err();
        let other = r#"{"boot": "other", "endpoints": {"shop/web": [["a.b", "192.0.2.1", 9999]]}}"#;
        std::fs::write(&path, other).unwrap();
        take(dir.path(), &names, &table, NOW).unwrap();
        assert!(names.known(EndpointId::new(1).unwrap(), NOW).is_empty());
    }
}
