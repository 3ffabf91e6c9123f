//! Before installation: what the node needs.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::thread::{CapabilitySet, capabilities};
use tollgate_agent::config::Config;
use tollgate_agent::sources;
use tollgate_datapath::bpf::{self, Mechanism, Pins};
use tollgate_datapath::peer;
use tollgate_datapath::probe::{self, Trial};
use tollgate_doctor::check::{Outcome, Section};
use tollgate_policy::PolicySet;

use super::node;

/// Types of kernel objects, for those who inspect programs with `bpftool`.
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// 0: programs are interpreted.
const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";
/// The machine's own network namespace.
const FIRST_NETNS: &str = "/proc/1/ns/net";

/// All sections.
pub fn sections(config: &Config) -> Vec<Section> {
    let (directories, set) = directories(config);
    let endpoints = set.iter().flat_map(|set| set.endpoints());
    let endpoints: Vec<String> = endpoints.map(|e| e.interface().to_owned()).collect();
    let trial = probe::trial().map_err(|error| error.to_string());
    vec![
        privileges(config),
        kernel(&trial),
        tun(&trial),
        directories,
        node::section(&endpoints, &config.tap),
    ]
}

fn privileges(config: &Config) -> Section {
    let mut section = Section::new("Privileges");
    let have = match capabilities(None) {
        Ok(sets) => sets.effective,
        Err(error) => {
            section.add("capabilities", Outcome::Unknown, error, "");
            return section;
        }
    };
    let inside = config.offloads.declares();
    let needed = [
        (
            CapabilitySet::NET_ADMIN,
            "cap-net-admin",
            "CAP_NET_ADMIN",
            true,
            "the TAP, and programs at interfaces",
        ),
        (
            CapabilitySet::BPF,
            "cap-bpf",
            "CAP_BPF",
            true,
            "programs and maps",
        ),
        (
            CapabilitySet::PERFMON,
            "cap-perfmon",
            "CAP_PERFMON",
            true,
            "the verifier takes the programs",
        ),
        (
            CapabilitySet::SYS_ADMIN,
            "cap-sys-admin",
            "CAP_SYS_ADMIN",
            inside,
            "mounting a bpffs, and declared offloads inside endpoints",
        ),
        (
            CapabilitySet::NET_RAW,
            "cap-net-raw",
            "CAP_NET_RAW",
            false,
            "probes that send packets",
        ),
    ];
    for (capability, id, name, required, why) in needed {
        if have.contains(capability) {
            section.ok(id, format!("{name}: {why}"));
            continue;
        }
        let outcome = if required {
            Outcome::Fail
        } else {
            Outcome::Warn
        };
        let text = format!("{name} is missing: {why}");
        section.add(id, outcome, text, "run as root, or add it to the container");
    }
    section
}

fn kernel(trial: &Result<Trial, String>) -> Section {
    let mut section = Section::new("Kernel");
    let release = rustix::system::uname();
    section.ok(
        "release",
        format!("Linux {}", release.release().to_string_lossy()),
    );
    match trial {
        Ok(trial) => tried(&mut section, trial),
        Err(error) => section.add(
            "bpf-load",
            Outcome::Unknown,
            format!("programs could not be tried: {error}"),
            "making namespaces needs CAP_SYS_ADMIN: run this as root",
        ),
    }
    match Path::new(BTF).exists() {
        true => section.ok("btf", format!("types of the kernel in {BTF}")),
        false => section.add(
            "btf",
            Outcome::Warn,
            format!("no {BTF}"),
            "the programs work without; tools that show them need CONFIG_DEBUG_INFO_BTF",
        ),
    }
    match jit().as_deref().map(str::trim) {
        Some("0") => section.add(
            "jit",
            Outcome::Warn,
            "programs are interpreted, not compiled",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(_) => section.ok("jit", "programs are compiled"),
        // Nothing to be told of; on is what kernels do unless told otherwise.
        None => {}
    }
    section
}

/// The setting is shown in the first network namespace alone.
fn jit() -> Option<String> {
    let here = fs::read_to_string(JIT);
    here.ok().or_else(|| {
        let first = File::open(FIRST_NETNS).ok()?;
        peer::within(&first, || Ok(fs::read_to_string(JIT).ok())).ok()?
    })
}

fn tried(section: &mut Section, trial: &Trial) {
    match &trial.bpffs {
        Ok(()) => section.ok("bpffs", "a bpffs can be mounted"),
        Err(error) => section.add(
            "bpffs",
            Outcome::Fail,
            format!("a bpffs cannot be mounted: {error}"),
            "CONFIG_BPF_SYSCALL and CAP_SYS_ADMIN are needed",
        ),
    }
    match &trial.load {
        Ok(()) => section.ok("bpf-load", "the verifier takes every program"),
        Err(error) => section.add(
            "bpf-load",
            Outcome::Fail,
            error,
            "Linux 5.15 or later with CONFIG_BPF_SYSCALL is needed",
        ),
    }
    match &trial.attach {
        Ok(Mechanism::Tcx) => section.ok("bpf-attach", "programs can be attached by tcx"),
        Ok(Mechanism::Clsact) => section.ok("bpf-attach", "programs can be attached by clsact"),
        Err(error) => section.add(
            "bpf-attach",
            Outcome::Fail,
            format!("programs cannot be attached: {error}"),
            "tcx (Linux 6.6) or the modules sch_ingress and cls_bpf are needed",
        ),
    }
}

fn tun(trial: &Result<Trial, String>) -> Section {
    const DEVICE_HINT: &str = "modprobe tun; in a container, give it /dev/net/tun";
    let mut section = Section::new("TAP");
    let trial = match trial {
        Ok(trial) => trial,
        Err(error) => {
            let text = format!("a TAP could not be tried: {error}");
            section.add("tun", Outcome::Unknown, text, "run this as root");
            return section;
        }
    };
    match &trial.tun {
        Err(error) => section.add("tun", Outcome::Fail, error, DEVICE_HINT),
        Ok(flags) => {
            section.ok("tun", "a TAP with virtio-net headers can be opened");
            for (flag, taken) in flags {
                // Without partial checksums there are no super-packets at all.
                let outcome = match (*taken, *flag) {
                    (true, _) => Outcome::Ok,
                    (false, "TUN_F_CSUM") => Outcome::Fail,
                    (false, _) => Outcome::Warn,
                };
                let (text, hint) = match taken {
                    true => (format!("{flag} is taken"), ""),
                    false => (
                        format!("{flag} is not taken"),
                        "such super-packets are cut before they come up: slower, nothing worse \
                         (UDP's need Linux 6.2)",
                    ),
                };
                section.add("tun-offload", outcome, text, hint);
            }
        }
    }
    match &trial.queues {
        Ok(()) => section.ok("tun-queues", "it can have several queues"),
        Err(error) => section.add("tun-queues", Outcome::Fail, error, DEVICE_HINT),
    }
    section
}

fn directories(config: &Config) -> (Section, Option<PolicySet>) {
    let mut section = Section::new("Files");
    let set = policy(&mut section, config);
    match writable(&config.run_dir) {
        Ok(()) => section.ok(
            "run-dir",
            format!("{} can be written", config.run_dir.display()),
        ),
        Err(error) => section.add(
            "run-dir",
            Outcome::Fail,
            format!("{}: {error}", config.run_dir.display()),
            "another place: runDir",
        ),
    }
    pins(&mut section, &config.pin_dir);
    match is_running(&config.run_dir) {
        true => section.add(
            "agent",
            Outcome::Warn,
            format!("an agent runs already in {}", config.run_dir.display()),
            "`tollgate check --post` checks it",
        ),
        false => section.ok("agent", "no agent runs yet"),
    }
    (section, set)
}

fn policy(section: &mut Section, config: &Config) -> Option<PolicySet> {
    let dir = &config.policy_dir;
    if !dir.exists() {
        let text = format!("{} is not there yet", dir.display());
        let hint = "make it, or name another one: policyDir";
        section.add("policy", Outcome::Warn, text, hint);
        return None;
    }
    let loaded = sources::read_dir(dir)
        .and_then(|files| sources::compile_files(&files, &config.node_addresses));
    match loaded {
        Ok(loaded) => {
            let (policies, endpoints) = (loaded.set.policies().len(), loaded.set.endpoints().len());
            let text = format!(
                "{policies} policies, {endpoints} endpoints in {}",
                dir.display()
            );
            section.ok("policy", text);
            Some(loaded.set)
        }
        Err(error) => {
            let lines = error.lines();
            let first = lines.first().map_or("", String::as_str);
            let text = format!("{} fault(s) in {}: {first}", lines.len(), dir.display());
            let hint = format!("tollgate policy lint {}", dir.display());
            section.add("policy", Outcome::Fail, text, &hint);
            None
        }
    }
}

/// Could files be made in a directory, which may have to be made first?
fn writable(dir: &Path) -> io::Result<()> {
    let nearest = dir.ancestors().find(|path| path.exists());
    let nearest = nearest.ok_or(io::ErrorKind::NotFound)?;
    if !nearest.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(access(nearest, Access::WRITE_OK | Access::EXEC_OK)?)
}

fn pins(section: &mut Section, dir: &Path) {
    let place = dir.display();
    match bpf::pins(dir) {
        Ok(Pins::None) => section.ok("pin-dir", format!("{place} is free")),
        Ok(Pins::Ours) => section.ok("pin-dir", format!("{place} has maps to take over")),
        Ok(Pins::OtherLayout(found)) => section.add(
            "pin-dir",
            Outcome::Fail,
            format!("{place} has maps of another version ({found})"),
            "tollgate cleanup",
        ),
        Ok(Pins::Foreign(names)) => section.add(
            "pin-dir",
            Outcome::Fail,
            format!("{place} has pins of somebody else: {}", names.join(", ")),
            "use another place: pinDir",
        ),
        Err(error) => {
            let hint = "reading pins needs root";
            section.add("pin-dir", Outcome::Unknown, error, hint);
        }
    }
}

/// An agent holds a lock on its run directory for as long as it lives.
fn is_running(run_dir: &Path) -> bool {
    File::open(run_dir.join("agent.lock"))
        .is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}
