//! Every kind of repair in real network namespaces: carried out, taken back, and taken back after
//! the doctor was killed. What is compared is what `ethtool`, `ip`, `sysctl` and `nft` print.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set up its case has failed"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tollgate_doctor::action::Action;
use tollgate_doctor::repair::{RepairError, Repairer, Step, Word};

/// Tells [`child`] which namespace to repair.
const CHILD_NETNS: &str = "TOLLGATE_TEST_CHILD_NETNS";
/// Where its record lies.
const CHILD_STATE: &str = "TOLLGATE_TEST_CHILD_STATE";
/// The step at which it kills itself; absent: never.
const CHILD_STEP: &str = "TOLLGATE_TEST_CHILD_STEP";
/// `undo` rather than `apply`.
const CHILD_UNDO: &str = "TOLLGATE_TEST_CHILD_UNDO";
/// The signal that cannot be caught, as a shell sees it.
const SIGKILL: i32 = 9;

/// A namespace with a veth pair, a device on top of one end (macvlan follows its MTU as
/// a VLAN does) and a bridge; removed with this value.
struct Bed {
    name: String,
    state: tempfile::TempDir,
}

impl Bed {
    fn new(tag: &str) -> Self {
        let name = format!("tg-rep-{tag}-{}", std::process::id());
        let state = tempfile::tempdir().unwrap();
        run("ip", &["netns", "add", &name]);
        let bed = Self { name, state };
        for line in [
            "link set lo up",
            "link add v0 type veth peer name v1",
            "link add link v0 name v0.7 type macvlan",
            "link add br0 type bridge",
            "link set v1 master br0",
            "addr add 2001:db8::1/64 dev v0",
            "link set v0 up",
            "link set v1 up",
            "link set v0.7 up",
            "link set br0 up",
        ] {
            bed.ip(line);
        }
        bed
    }

    fn ip(&self, line: &str) -> String {
        let args = ["-n", &self.name].into_iter().chain(line.split(' '));
        run("ip", &args.collect::<Vec<_>>())
    }

    fn exec(&self, line: &str) -> String {
        let args = ["netns", "exec", &self.name]
            .into_iter()
            .chain(line.split(' '));
        run("ip", &args.collect::<Vec<_>>())
    }

    fn netns(&self) -> Option<PathBuf> {
        Some(Path::new("/run/netns").join(&self.name))
    }

    fn repairer(&self) -> Repairer {
        Repairer::new(self.state.path())
    }

    /// Everything that repairs may touch, as the usual programs print it.
    fn print(&self) -> String {
        let mut all = String::new();
        for dev in ["v0", "v1", "v0.7", "br0"] {
            all += &self.exec(&format!("ethtool -k {dev}"));
            let link = self.ip(&format!("-j -d link show dev {dev}"));
            let mut link: serde_json::Value = serde_json::from_str(&link).unwrap();
            // Timers of the bridge run by themselves.
            remove(&mut link, &["linkinfo", "operstate", "flags"]);
            all += &format!("{link}\n");
            all += &self.exec(&format!(
                "sysctl net.ipv4.conf.{}.forwarding",
                dev.replace('.', "/")
            ));
        }
        all += &self.exec("sysctl net.ipv4.tcp_mtu_probing net.ipv4.ip_local_port_range");
        all += &self.exec("nft list ruleset");
        all
    }

    fn record(&self) -> PathBuf {
        self.state.path().join("undo.json")
    }

    /// The actions of the kill tests: each kind that needs no other program but `nft`.
    fn actions(&self) -> Vec<Action> {
        actions(self.netns())
    }

    fn child(&self, step: Option<usize>, undo: bool) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD_NETNS, &self.name)
            .env(CHILD_STATE, self.state.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(step) = step {
            command.env(CHILD_STEP, step.to_string());
        }
        if undo {
            command.env(CHILD_UNDO, "1");
        }
        command.spawn().unwrap()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

fn remove(value: &mut serde_json::Value, keys: &[&str]) {
    if let Some(object) = value.get_mut(0).and_then(|link| link.as_object_mut()) {
        keys.iter().for_each(|key| {
            object.remove(*key);
        });
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn feature(netns: &Option<PathBuf>, ifname: &str, feature: &str, on: bool) -> Action {
    Action::Feature {
        netns: netns.clone(),
        ifname: ifname.into(),
        feature: feature.into(),
        on,
    }
}

fn actions(netns: Option<PathBuf>) -> Vec<Action> {
    let sizes = [("gso_max_size", 16384), ("gro_max_size", 30000)];
    vec![
        feature(&netns, "v0", "tx-checksum-ip-generic", false),
        feature(&netns, "v0", "rx-gro", true),
        feature(&netns, "v1", "tx-tcp-segmentation", false),
        Action::Mtu {
            netns: netns.clone(),
            ifname: "v0".into(),
            mtu: 1400,
        },
        Action::Sizes {
            netns: netns.clone(),
            ifname: "v1".into(),
            sizes: sizes.map(|(name, size)| (name.to_owned(), size)).to_vec(),
        },
        Action::Sysctl {
            netns: netns.clone(),
            key: "net.ipv4.tcp_mtu_probing".into(),
            value: "1".into(),
        },
        Action::Sysctl {
            netns: netns.clone(),
            key: "net.ipv4.conf.v0/7.forwarding".into(),
            value: "1".into(),
        },
        Action::ClampMss {
            netns: netns.clone(),
            ifname: "v0".into(),
        },
        Action::ClampMss {
            netns,
            ifname: "v0.7".into(),
        },
    ]
}

/// Not a test by itself: what [`Bed::child`] runs, so that it can be killed.
#[test]
fn child() {
    let Ok(name) = std::env::var(CHILD_NETNS) else {
        return;
    };
    let stop: Option<usize> = std::env::var(CHILD_STEP)
        .ok()
        .map(|step| step.parse().unwrap());
    let count = AtomicUsize::new(0);
    let repairer = Repairer::new(std::env::var(CHILD_STATE).unwrap()).on_step(move |_| {
        if Some(count.fetch_add(1, Ordering::SeqCst)) == stop {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
            thread::sleep(Duration::MAX);
        }
    });
    match std::env::var(CHILD_UNDO) {
        Ok(_) => drop(repairer.undo().unwrap()),
        Err(_) => drop(
            repairer
                .apply(&actions(Some(Path::new("/run/netns").join(name))))
                .unwrap(),
        ),
    }
}

#[test]
fn every_kind_is_carried_out_and_taken_back() {
    let bed = Bed::new("all");
    let before = bed.print();
    let applied = bed.repairer().apply(&bed.actions()).unwrap();
    for one in &applied {
        assert_eq!(one.word, Word::Done, "{one:?}");
    }
    let changed = bed.exec("ethtool -k v0");
    assert!(changed.contains("tx-checksum-ip-generic: off"), "{changed}");
    // What rests on checksums went with them.
    assert!(changed.contains("tx-tcp-segmentation: off"), "{changed}");
    let link = bed.ip("-d link show dev v1");
    assert!(
        link.contains("gso_max_size 16384") && link.contains("gro_max_size 30000"),
        "{link}"
    );
    assert!(bed.ip("link show dev v0.7").contains("mtu 1400"));
    let rules = bed.exec("nft list ruleset");
    assert!(
        rules.contains("table inet tollgate_doctor") && rules.contains("\"v0.7\""),
        "{rules}"
    );
    assert_eq!(bed.exec("sysctl -n net.ipv4.tcp_mtu_probing").trim(), "1");

    // Again: it is so already, and nothing is recorded.
    let lines = fs::read_to_string(bed.record()).unwrap();
    let again = bed.repairer().apply(&bed.actions()).unwrap();
    assert!(
        again.iter().all(|one| one.word == Word::Already),
        "{again:?}"
    );
    assert_eq!(fs::read_to_string(bed.record()).unwrap(), lines);

    let undone = bed.repairer().undo().unwrap();
    assert_eq!(undone.len(), applied.len());
    assert!(
        undone.iter().all(|one| one.word == Word::Done),
        "{undone:?}"
    );
    assert_eq!(bed.print(), before);
    assert!(!bed.record().exists());
    assert_eq!(bed.repairer().undo().unwrap(), []);
}

#[test]
fn the_printed_commands_do_the_same() {
    let (bed, typed) = (Bed::new("cmd"), Bed::new("typ"));
    bed.repairer().apply(&bed.actions()).unwrap();
    for action in typed.actions() {
        run(
            "sh",
            &["-c", &tollgate_doctor::repair::command_line(&action)],
        );
    }
    // Addresses of hardware are drawn at random.
    let plain = |bed: &Bed| {
        let text = bed.print();
        let lines = text.lines().filter(|line| !line.starts_with('['));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(plain(&bed), plain(&typed));
    for dev in ["v0", "v1", "v0.7"] {
        let sizes = |bed: &Bed| {
            let link = bed.ip(&format!("-j -d link show dev {dev}"));
            let link: serde_json::Value = serde_json::from_str(&link).unwrap();
            ["mtu", "gso_max_size", "gro_max_size", "gso_ipv4_max_size"]
                .map(|key| link[0][key].clone())
        };
        assert_eq!(sizes(&bed), sizes(&typed));
    }
}

#[test]
fn killed_at_every_step_it_can_be_taken_back() {
    let bed = Bed::new("step");
    let before = bed.print();
    let mut steps = 0;
    loop {
        let status = bed.child(Some(steps), false).wait().unwrap();
        let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(SIGKILL);
        assert!(killed || status.success(), "step {steps}: {status}");
        for one in bed.repairer().undo().unwrap() {
            assert_eq!(one.word, Word::Done, "step {steps}: {one:?}");
        }
        assert_eq!(bed.print(), before, "killed at step {steps}");
        assert!(!bed.record().exists());
        if !killed {
            break;
        }
        steps += 1;
    }
    // Read, half written, written, recorded, changed: of each action.
    assert_eq!(steps, bed.actions().len() * 5);
}

#[test]
fn killed_while_taking_back_it_goes_on() {
    let bed = Bed::new("undo");
    let before = bed.print();
    let mut steps = 0;
    loop {
        bed.repairer().apply(&bed.actions()).unwrap();
        let status = bed.child(Some(steps), true).wait().unwrap();
        bed.repairer().undo().unwrap();
        assert_eq!(bed.print(), before, "killed at step {steps}");
        assert!(!bed.record().exists());
        if status.success() {
            break;
        }
        steps += 1;
    }
    // Restored, half written, written, marked of each action, and removed.
    assert_eq!(steps, bed.actions().len() * 4 + 1);
}

#[test]
fn killed_at_any_time_it_can_be_taken_back() {
    let bed = Bed::new("any");
    let before = bed.print();
    let (mut killed, rounds) = (0, 30);
    for round in 0..rounds {
        let mut child = bed.child(None, false);
        // Spread over the time that the work takes, without a period that meets its steps.
        thread::sleep(Duration::from_micros(1500 + 7919 * round % 60_000));
        // It may have ended by itself.
        let _ = child.kill();
        killed += usize::from(!child.wait().unwrap().success());
        for one in bed.repairer().undo().unwrap() {
            assert_eq!(one.word, Word::Done, "round {round}: {one:?}");
        }
        assert_eq!(bed.print(), before, "round {round}");
    }
    assert!(killed > 0, "every child was done before it was killed");
}

#[test]
fn what_is_gone_is_skipped_and_said() {
    let bed = Bed::new("gone");
    let gone = Bed::new("pod");
    let before = bed.print();
    bed.repairer().apply(&bed.actions()).unwrap();
    bed.repairer().apply(&gone.actions()).unwrap();
    // The pod comes back under its name, but is another one.
    run("ip", &["netns", "del", &gone.name]);
    run("ip", &["netns", "add", &gone.name]);
    run(
        "ip",
        &[
            "-n", &gone.name, "link", "add", "v0", "type", "veth", "peer", "name", "v1",
        ],
    );
    // An interface is made anew under its name.
    bed.ip("link del v0.7");
    bed.ip("link add link v0 name v0.7 type macvlan");
    let undone = bed.repairer().undo().unwrap();
    let pod: Vec<_> = undone
        .iter()
        .filter(|one| one.command.contains(&gone.name))
        .collect();
    assert_eq!(pod.len(), gone.actions().len());
    assert!(pod.iter().all(|one| one.word == Word::Gone), "{pod:?}");
    assert!(pod[0].why.as_ref().unwrap().contains("is gone"));
    assert!(
        undone.iter().all(|one| one.word != Word::Failed),
        "{undone:?}"
    );
    assert_eq!(
        bed.exec("ethtool -k v0"),
        section(&before, "Features for v0:")
    );
    assert!(!bed.record().exists());
}

fn section(print: &str, head: &str) -> String {
    let lines = print.lines().skip_while(|line| *line != head);
    let taken = lines.take_while(|line| !line.starts_with('['));
    taken.map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_cannot_be_restored_stays_in_the_record() {
    let bed = Bed::new("part");
    let before = bed.print();
    let upper = Action::Mtu {
        netns: bed.netns(),
        ifname: "v0.7".into(),
        mtu: 1400,
    };
    let gro = feature(&bed.netns(), "v0", "rx-gro", true);
    bed.repairer().apply(&[upper, gro]).unwrap();
    // An upper device's MTU cannot exceed that of the one below.
    bed.ip("link set dev v0 mtu 1300");
    let undone = bed.repairer().undo().unwrap();
    let words: Vec<_> = undone.iter().map(|one| one.word).collect();
    assert_eq!(words, [Word::Done, Word::Failed], "{undone:?}");
    let left = bed.repairer().recorded().unwrap();
    assert_eq!(left.len(), 1);
    assert!(matches!(&left[0], Action::Mtu { ifname, .. } if ifname == "v0.7"));

    bed.ip("link set dev v0 mtu 1500");
    let undone = bed.repairer().undo().unwrap();
    assert!(
        undone.iter().all(|one| one.word == Word::Done),
        "{undone:?}"
    );
    assert_eq!(bed.print(), before);
    assert!(!bed.record().exists());
}

#[test]
fn what_cannot_be_done_changes_nothing() {
    let bed = Bed::new("bad");
    let before = bed.print();
    let netns = bed.netns();
    let mtu = |ifname: &str, mtu| Action::Mtu {
        netns: netns.clone(),
        ifname: ifname.into(),
        mtu,
    };
    let bad = [
        feature(&netns, "v0", "no-such-feature", true),
        feature(&netns, "v0", "tx-lockless", false),
        feature(&netns, "nothing", "tx-checksum-ip-generic", false),
        mtu("nothing", 1400),
        mtu("v0", 1200),
        Action::Sysctl {
            netns: netns.clone(),
            key: "kernel.panic".into(),
            value: "1".into(),
        },
        Action::GenericXdp {
            netns: netns.clone(),
            ifname: "v0".into(),
        },
        feature(&Some("/run/netns/tg-rep-none".into()), "v0", "rx-gro", true),
    ];
    let applied = bed.repairer().apply(&bad).unwrap();
    for one in &applied {
        assert_eq!(one.word, Word::Failed, "{one:?}");
        assert!(one.why.is_some());
    }
    assert!(!bed.record().exists());
    assert_eq!(bed.print(), before);
}

#[test]
fn after_a_restart_of_the_machine_nothing_is_restored() {
    let bed = Bed::new("boot");
    bed.repairer().apply(&bed.actions()).unwrap();
    let changed = bed.print();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let record = fs::read_to_string(bed.record()).unwrap();
    fs::write(bed.record(), record.replace(boot.trim(), "another")).unwrap();
    let undone = bed.repairer().undo().unwrap();
    assert_eq!(undone.len(), bed.actions().len());
    assert!(
        undone.iter().all(|one| one.word == Word::Gone),
        "{undone:?}"
    );
    assert_eq!(bed.print(), changed);
    assert!(!bed.record().exists());
}

#[test]
fn only_one_doctor_repairs() {
    let bed = Bed::new("lock");
    let state = bed.state.path().to_owned();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let inside = seen.clone();
    let first = bed.repairer().on_step(move |step| {
        if step == Step::Recorded {
            inside.lock().unwrap().push(Repairer::new(&state).undo());
        }
    });
    first.apply(&bed.actions()[..1]).unwrap();
    let seen = seen.lock().unwrap();
    assert!(matches!(seen[..], [Err(RepairError::Locked(_))]));
    bed.repairer().undo().unwrap();
}

#[test]
fn a_record_of_something_else_is_not_touched() {
    let bed = Bed::new("odd");
    fs::write(bed.record(), "{\"undone\":0}\nhello\n").unwrap();
    let error = bed.repairer().undo().unwrap_err().to_string();
    assert!(error.contains("undo.json:2: "), "{error}");
    assert_eq!(
        fs::read_to_string(bed.record()).unwrap(),
        "{\"undone\":0}\nhello\n"
    );
}

/// A database of Open vSwitch without the switch; ended with this value.
struct Database {
    dir: tempfile::TempDir,
    server: Child,
}

impl Database {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        run("ovsdb-tool", &["create", &path("conf.db"), schema]);
        let server = Command::new("ovsdb-server")
            .args([&path("conf.db"), &format!("--remote=punix:{}", path("db"))])
            .arg(format!("--unixctl={}", path("ctl")))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let database = Self { dir, server };
        // It answers once its socket is there; `ovs-vsctl` tries until then.
        database.vsctl("init");
        database.vsctl("add-br br0 -- add-port br0 gw0 -- set Interface gw0 type=internal");
        database
    }

    fn remote(&self) -> String {
        format!("unix:{}", self.dir.path().join("db").display())
    }

    fn vsctl(&self, line: &str) -> String {
        let db = format!("--db={}", self.remote());
        let args = ["--timeout=20", "--no-wait", "--retry", &db].into_iter();
        run(
            "ovs-vsctl",
            &args.chain(line.split(' ')).collect::<Vec<_>>(),
        )
    }

    fn print(&self) -> String {
        self.vsctl("list Interface") + &self.vsctl("list Open_vSwitch")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn column(table: &str, record: &str, column: &str, value: &str) -> Action {
    Action::Ovs {
        table: table.into(),
        record: record.into(),
        column: column.into(),
        value: value.into(),
    }
}

#[test]
fn columns_of_open_vswitch_are_set_and_restored() {
    let (database, state) = (Database::new(), tempfile::tempdir().unwrap());
    let repairer = || Repairer::new(state.path()).ovs_db(database.remote());
    database.vsctl("set Interface gw0 external_ids:kept=yes");
    let before = database.print();
    let actions = [
        column("Interface", "gw0", "mtu_request", "1450"),
        column(
            "Open_vSwitch",
            ".",
            "other_config:userspace-tso-enable",
            "true",
        ),
        column("Interface", "gw0", "external_ids:kept", "no"),
    ];
    let applied = repairer().apply(&actions).unwrap();
    assert!(
        applied.iter().all(|one| one.word == Word::Done),
        "{applied:?}"
    );
    assert_eq!(
        database.vsctl("get Interface gw0 mtu_request").trim(),
        "1450"
    );
    let again = repairer().apply(&actions).unwrap();
    assert!(
        again.iter().all(|one| one.word == Word::Already),
        "{again:?}"
    );
    let undone = repairer().undo().unwrap();
    assert!(
        undone.iter().all(|one| one.word == Word::Done),
        "{undone:?}"
    );
    let version = |text: String| {
        // Counts changes, back and forth.
        let lines = text.lines().filter(|line| !line.starts_with("next_cfg"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(version(database.print()), version(before));

    // A port that was made anew is another one.
    repairer().apply(&actions[..1]).unwrap();
    database.vsctl("del-port gw0 -- add-port br0 gw0");
    database.vsctl("set Interface gw0 mtu_request=9000");
    let undone = repairer().undo().unwrap();
    assert_eq!(undone[0].word, Word::Gone);
    assert_eq!(
        database.vsctl("get Interface gw0 mtu_request").trim(),
        "9000"
    );
    let missing = repairer().apply(&[column("Interface", "none", "mtu_request", "1450")]);
    assert_eq!(missing.unwrap()[0].word, Word::Failed);
}

/// A program that passes everything, as clang makes it.
const XDP: &str = "__attribute__((section(\"xdp\"), used)) int pass(void *x) { return 2; }\n\
    char l[] __attribute__((section(\"license\"), used)) = \"GPL\";\n";

/// The program's number and how it is attached.
fn attached(bed: &Bed) -> (u64, u64) {
    let link: serde_json::Value = serde_json::from_str(&bed.ip("-j -d link show dev v0")).unwrap();
    let xdp = &link[0]["xdp"];
    (
        xdp["mode"].as_u64().unwrap(),
        xdp["prog"]["id"].as_u64().unwrap(),
    )
}

#[test]
fn an_xdp_program_is_moved_and_moved_back() {
    let bed = Bed::new("xdp");
    let (source, object) = (bed.state.path().join("x.c"), bed.state.path().join("x.o"));
    fs::write(&source, XDP).unwrap();
    let (source, object) = (source.to_str().unwrap(), object.to_str().unwrap());
    run(
        "clang-14",
        &["-O2", "-g", "-target", "bpf", "-c", source, "-o", object],
    );
    bed.ip(&format!("link set dev v0 xdpdrv obj {object} sec xdp"));
    let before = attached(&bed);
    let action = Action::GenericXdp {
        netns: bed.netns(),
        ifname: "v0".into(),
    };
    for killed_at in 0..6 {
        let seen = std::sync::Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let steps = bed.repairer().on_step(move |_| {
            // A thread that ends here leaves what a doctor leaves that is killed here.
            if count.fetch_add(1, Ordering::SeqCst) == killed_at {
                std::panic::resume_unwind(Box::new("killed"));
            }
        });
        let actions = [action.clone()];
        let died = thread::spawn(move || steps.apply(&actions).is_ok()).join();
        assert!(died.is_err());
        bed.repairer().undo().unwrap();
        assert_eq!(attached(&bed), before, "killed at step {killed_at}");
    }
    let applied = bed.repairer().apply(&[action]).unwrap();
    assert_eq!(applied[0].word, Word::Done, "{applied:?}");
    // XDP_ATTACHED_DRV is 1, XDP_ATTACHED_SKB 2; the program is the same.
    assert_eq!((before.0, attached(&bed)), (1, (2, before.1)));
    let undone = bed.repairer().undo().unwrap();
    assert_eq!(undone[0].word, Word::Done, "{undone:?}");
    assert_eq!(attached(&bed), before);
    assert!(!Path::new(&format!("/sys/fs/bpf/tollgate-doctor/xdp-{}", before.1)).exists());
}

/// A connection from one namespace to another; prints the MSS that each side sends with.
const CONNECT: &str = "
import ctypes, os, socket, sys
def enter(name):
    with open('/run/netns/' + name) as f:
        assert ctypes.CDLL(None).setns(f.fileno(), 0x40000000) == 0
enter(sys.argv[2])
server = socket.create_server(('192.0.2.2', 80))
enter(sys.argv[1])
client = socket.create_connection(('192.0.2.2', 80), timeout=5)
peer = server.accept()[0]
for side in (client, peer):
    print(side.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
";

#[test]
fn the_clamp_reaches_both_sides() {
    let (client, router, server) = (Bed::new("mc"), Bed::new("mr"), Bed::new("ms"));
    router.ip(&format!(
        "link add a0 type veth peer name p0 netns {}",
        client.name
    ));
    router.ip(&format!(
        "link add b0 type veth peer name p0 netns {}",
        server.name
    ));
    for line in [
        "addr add 198.51.100.1/24 dev a0",
        "addr add 192.0.2.1/24 dev b0",
        "link set a0 up",
        "link set b0 mtu 1400 up",
    ] {
        router.ip(line);
    }
    router.exec("sysctl -w net.ipv4.ip_forward=1");
    for (bed, address, gateway) in [
        (&client, "198.51.100.2/24", "198.51.100.1"),
        (&server, "192.0.2.2/24", "192.0.2.1"),
    ] {
        bed.ip(&format!("addr add {address} dev p0"));
        bed.ip("link set p0 up");
        bed.ip(&format!("route add default via {gateway}"));
    }
    let sizes = || {
        let text = run("python3", &["-c", CONNECT, &client.name, &server.name]);
        let sizes = text.lines().map(|line| line.parse::<u32>().unwrap());
        sizes.collect::<Vec<_>>()
    };
    // 1400 bytes less 20 of IPv4 and 20 of TCP.
    assert!(sizes().iter().all(|&size| size > 1360), "{:?}", sizes());
    let clamp = Action::ClampMss {
        netns: router.netns(),
        ifname: "b0".into(),
    };
    router.repairer().apply(&[clamp]).unwrap();
    assert!(sizes().iter().all(|&size| size <= 1360), "{:?}", sizes());
    router.repairer().undo().unwrap();
    assert!(sizes().iter().all(|&size| size > 1360), "{:?}", sizes());
}
