//! A node with a bridge, two pods on it, and an external host behind a masquerading gateway.
//!
//! ```text
//!  tg-ovs-X-a  eth0 10.20.0.2 --- va \
//!  tg-ovs-X-b  eth0 10.20.0.3 --- vb  br0 (tg-ovs-X-node) 10.20.0.1 | up0 192.0.2.1 --- eth0 192.0.2.10
//!  tg-ovs-X-c  eth0 10.20.0.4 --- vc /                                            tg-ovs-X-out
//! ```

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tollgate_lab::run::{Cmd, Output};

/// The binary under test.
pub const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");
/// Bridge and TAP.
pub const BRIDGE: &str = "br0";
pub const TAP: &str = "tgovs0";
/// Bytes of the large object.
pub const BIG: usize = 32 << 20;
/// Bound of every wait for something that takes milliseconds; generous for a busy machine.
pub const SOON: Duration = Duration::from_secs(20);
/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

const PODS: [(&str, u8); 3] = [("a", 2), ("b", 3), ("c", 4)];

/// Pods a and b are governed, c is not.
pub const INVENTORY: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: policy.tollgate.dev/v1alpha1
kind: Endpoint
metadata: {name: a, namespace: shop, labels: {app: client}}
spec: {interface: va, addresses: [10.20.0.2, 'fd20::2']}
---
apiVersion: policy.tollgate.dev/v1alpha1
kind: Endpoint
metadata: {name: b, namespace: shop, labels: {app: server}}
spec: {interface: vb, addresses: [10.20.0.3, 'fd20::3']}
";

/// What a may ask for, and what b may be asked for.
pub const POLICY: &str = "\
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: client}
spec:
  priority: 5
  tier: application
  appliedTo: [{podSelector: {matchLabels: {app: client}}}]
  egress:
    - name: api
      action: Allow
      ports: [{protocol: TCP, port: 80}, {protocol: TCP, port: 443}]
      l7Protocols:
        - http: {host: api.example.com, path: /v2/*}
        - tls: {sni: '*.example.com'}
    - {name: plain, action: Allow, ports: [{protocol: TCP, port: 9000}]}
    - {name: echo, action: Allow, ports: [{protocol: UDP, port: 7000}]}
    - {name: rest, action: Reject}
---
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: server}
spec:
  priority: 5
  tier: application
  appliedTo: [{podSelector: {matchLabels: {app: server}}}]
  ingress:
    - name: public
      action: Allow
      ports: [{protocol: TCP, port: 80}]
      l7Protocols:
        - http: {path: /v2/public/*}
        - http: {path: /v2/big.bin}
    - {name: plain, action: Allow, ports: [{protocol: TCP, port: 9000}]}
    - {name: rest, action: Reject}
";

/// How a bed is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// `other_config:userspace-tso-enable`.
    pub userspace_tso: bool,
}

/// A bed; everything goes with it.
#[derive(Debug)]
pub struct Bed {
    name: String,
    dir: tempfile::TempDir,
    agent: Option<Child>,
    processes: Vec<Child>,
    options: Options,
}

impl Bed {
    /// A bed with nginx in b, c and the outside, and an agent under [`POLICY`].
    pub fn new(name: &str) -> Self {
        let mut bed = Self::without_agent(name, Options::default());
        bed.start();
        bed
    }

    /// The same without an agent.
    pub fn without_agent(name: &str, options: Options) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests need root"
        );
        let mut bed = Self {
            name: name.to_owned(),
            dir: tempfile::tempdir().unwrap(),
            agent: None,
            processes: Vec::new(),
            options,
        };
        bed.clear();
        for dir in ["policy", "run", "ovs", "www/v2/public", "www/v2/secret"] {
            fs::create_dir_all(bed.path(dir)).unwrap();
        }
        bed.replace("inventory.yaml", INVENTORY);
        bed.replace("policy.yaml", POLICY);
        bed.network();
        bed.switch();
        bed.connect();
        bed.servers();
        bed
    }

    /// Something in the bed's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A namespace's name.
    pub fn netns(&self, place: &str) -> String {
        format!("tg-ovs-{}-{place}", self.name)
    }

    /// Runs a shell line in a namespace.
    pub fn try_sh(&self, place: &str, line: &str) -> Output {
        let cmd = Cmd::new("bash").args(["-o", "pipefail", "-c", line]);
        cmd.env("OVS_RUNDIR", self.path("ovs"))
            .timeout(Duration::from_secs(120))
            .in_netns(&self.netns(place))
            .output()
            .unwrap()
    }

    /// The same; it must succeed. Returns its standard output.
    pub fn sh(&self, place: &str, line: &str) -> String {
        let output = self.try_sh(place, line);
        assert!(
            output.status.success(),
            "{place}: {line}: {}{}",
            output.stdout,
            output.stderr
        );
        output.stdout.trim().to_owned()
    }

    /// Starts something that goes on in a namespace.
    pub fn spawn(&mut self, place: &str, line: &str, log: &str) -> usize {
        let cmd = Cmd::new("bash").args(["-c", &format!("exec {line}")]);
        let cmd = cmd
            .env("OVS_RUNDIR", self.path("ovs"))
            .in_netns(&self.netns(place));
        let child = cmd.spawn(&self.path(log)).unwrap();
        self.processes.push(child);
        self.processes.len() - 1
    }

    /// Ends such a process.
    pub fn end(&mut self, process: usize) {
        let child = &mut self.processes[process];
        kill_process(Pid::from_child(child), Signal::TERM).unwrap();
        child.wait().unwrap();
    }

    /// Waits for such a process; whether it succeeded, and what it said.
    pub fn finish(&mut self, process: usize, log: &str) -> (bool, String) {
        let child = &mut self.processes[process];
        let status = until_in(Duration::from_secs(120), "it ends", || {
            child.try_wait().unwrap()
        });
        let said = fs::read_to_string(self.path(log)).unwrap_or_default();
        (status.success(), said)
    }

    fn network(&self) {
        for (place, _) in PODS {
            self.add_netns(place);
        }
        self.add_netns("out");
        self.add_netns("node");
        for (pod, _) in PODS {
            let peer = self.netns(pod);
            self.sh(
                "node",
                &format!(
                    "ip link add v{pod} type veth peer name eth0 netns {peer} && ip link set v{pod} up"
                ),
            );
        }
        let out = self.netns("out");
        self.sh(
            "node",
            &format!(
                "ip link add up0 type veth peer name eth0 netns {out} && ip link set up0 up && \
                 ip addr add 192.0.2.1/24 dev up0 && ip addr add 2001:db8:2::1/64 dev up0 nodad && \
                 sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 && \
                 nft 'table inet t {{ chain c {{ type nat hook postrouting priority 100; \
                 oifname \"up0\" masquerade; }}; }}'"
            ),
        );
        self.sh(
            "out",
            "ip link set eth0 up && ip addr add 192.0.2.10/24 dev eth0 && \
             ip addr add 2001:db8:2::10/64 dev eth0 nodad && \
             ip route add default via 192.0.2.1 && ip -6 route add default via 2001:db8:2::1",
        );
    }

    fn add_netns(&self, place: &str) {
        let ns = self.netns(place);
        Cmd::line(&format!("ip netns add {ns}")).run().unwrap();
        self.sh(
            place,
            "ip link set lo up && sysctl -qw net.ipv6.conf.all.accept_dad=0 \
             net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.accept_ra=0",
        );
    }

    /// The kind of data path under test.
    pub fn datapath_type() -> String {
        std::env::var("TOLLGATE_OVS_DATAPATH").unwrap_or_else(|_| "netdev".to_owned())
    }

    /// Database and switch.
    fn switch(&mut self) {
        let at = self.path("ovs").display().to_string();
        self.sh(
            "node",
            &format!("ovsdb-tool create {at}/conf.db /usr/share/openvswitch/vswitch.ovsschema"),
        );
        self.spawn(
            "node",
            &format!(
                "ovsdb-server {at}/conf.db --remote=punix:{at}/db.sock --pidfile={at}/ovsdb-server.pid \
                 --unixctl={at}/ovsdb-server.ctl"
            ),
            "ovsdb.log",
        );
        until("the database answers", || {
            let done = self.try_sh("node", "ovs-vsctl --timeout=1 --no-wait init");
            done.status.success().then_some(())
        });
        if self.options.userspace_tso {
            self.sh(
                "node",
                "ovs-vsctl --no-wait set Open_vSwitch . other_config:userspace-tso-enable=true",
            );
        }
        self.start_switch();
        let kind = Self::datapath_type();
        self.sh(
            "node",
            &format!(
                "ovs-vsctl --timeout=20 add-br {BRIDGE} -- set Bridge {BRIDGE} datapath_type={kind}"
            ),
        );
    }

    /// Starts `ovs-vswitchd`; returns its place among the processes.
    pub fn start_switch(&mut self) -> usize {
        let at = self.path("ovs").display().to_string();
        self.spawn(
            "node",
            &format!("ovs-vswitchd unix:{at}/db.sock --pidfile={at}/ovs-vswitchd.pid"),
            "vswitchd.log",
        )
    }

    /// Kills `ovs-vswitchd`.
    pub fn stop_switch(&mut self) {
        let pid = fs::read_to_string(self.path("ovs/ovs-vswitchd.pid")).unwrap();
        let pid: i32 = pid.trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        for child in &mut self.processes {
            if i32::try_from(child.id()) == Ok(pid) {
                child.wait().unwrap();
            }
        }
    }

    /// Starts `ovs-vswitchd` again after [`Self::stop_switch`].
    pub fn restart_switch(&mut self) {
        self.start_switch();
        until("the switch answers", || {
            let done = self.try_sh("node", "ovs-ofctl --timeout=1 show br0");
            done.status.success().then_some(())
        });
    }

    fn connect(&self) {
        for (pod, host) in PODS {
            self.sh(
                "node",
                &format!("ovs-vsctl --timeout=20 add-port {BRIDGE} v{pod}"),
            );
            // Without TSO the userspace data path takes whole checksums and single segments only.
            if Self::datapath_type() == "netdev" && !self.options.userspace_tso {
                self.sh(pod, "ethtool -K eth0 tx off");
            }
            self.sh(
                pod,
                &format!(
                    "ip link set eth0 up && ip addr add 10.20.0.{host}/24 dev eth0 && \
                     ip addr add fd20::{host}/64 dev eth0 nodad && \
                     ip route add default via 10.20.0.1 && ip -6 route add default via fd20::1"
                ),
            );
        }
        self.sh(
            "node",
            &format!(
                "ip link set {BRIDGE} up && ip addr add 10.20.0.1/24 dev {BRIDGE} && \
                 ip addr add fd20::1/64 dev {BRIDGE} nodad"
            ),
        );
    }

    fn servers(&mut self) {
        let www = self.path("www").display().to_string();
        self.sh(
            "node",
            &format!(
                "cd {www}/v2 && echo public > public/x && echo secret > secret/x && echo ok > status && \
                 head -c {BIG} /dev/urandom > big.bin && cd {www}/.. && \
                 openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                 -subj /CN=example.com -keyout key.pem -out cert.pem 2>/dev/null"
            ),
        );
        for place in ["b", "c", "out"] {
            let dir = self.path(&format!("nginx-{place}"));
            fs::create_dir_all(&dir).unwrap();
            let conf = nginx_conf(self.dir.path(), &dir);
            fs::write(dir.join("nginx.conf"), conf).unwrap();
            let dir = dir.display();
            self.spawn(
                place,
                &format!("nginx -p {dir} -c {dir}/nginx.conf -e stderr"),
                &format!("nginx-{place}.log"),
            );
            until("nginx answers", || {
                let done = self.try_sh(place, "curl -sf -o /dev/null http://127.0.0.1/v2/status");
                done.status.success().then_some(())
            });
        }
    }

    /// Replaces a policy file atomically.
    pub fn replace(&self, name: &str, text: &str) {
        let new = self.path("new.yaml");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path("policy").join(name)).unwrap();
    }

    /// Starts the agent and waits until it is ready and everything is attached.
    pub fn start(&mut self) {
        self.start_at("");
    }

    /// The same with further settings of the bridge, each with a comma before it.
    pub fn start_at(&mut self, place: &str) {
        assert!(self.agent.is_none(), "one agent a bed");
        let show = |name: &str| self.path(name).display().to_string();
        let text = format!(
            "datapath: ovs\novs: {{bridge: {BRIDGE}, runDir: {}{place}}}\npolicyDir: {}\nrunDir: {}\n\
             pinDir: {}\ntap: {TAP}\nmetrics: 'off'\nnodeName: gate\n",
            show("ovs"),
            show("policy"),
            show("run"),
            show("pins"),
        );
        let config = self.path("agent.yaml");
        fs::write(&config, text).unwrap();
        let cmd = Cmd::new(TOLLGATE)
            .args(["agent", "--config"])
            .arg(config)
            .in_netns(&self.netns("node"));
        self.agent = Some(cmd.spawn(&self.path("agent.log")).unwrap());
        let status = self.tollgate(&["status", "--wait", "30"]);
        assert!(
            status.status.success(),
            "the agent is not ready: {}{}{}",
            status.stdout,
            status.stderr,
            self.agent_log()
        );
        self.settled();
    }

    /// Waits until the switch takes decisions under the policy in force.
    pub fn settled(&self) {
        until("the switch takes decisions", || {
            let flows = self.sh("node", "ovs-ofctl dump-flows br0");
            let code = self.generation() % 6 + 1;
            flows
                .contains(&format!("dl_vlan_pcp={code} "))
                .then_some(())
        });
    }

    /// The agent's own log.
    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// Ends the agent with a signal and waits until it is gone.
    pub fn stop(&mut self, signal: Signal) {
        let mut agent = self.agent.take().expect("an agent");
        kill_process(Pid::from_child(&agent), signal).unwrap();
        until("the agent ends", || agent.try_wait().unwrap());
    }

    /// Runs `tollgate` towards this bed's agent.
    pub fn tollgate(&self, args: &[&str]) -> Output {
        Cmd::new(TOLLGATE)
            .args(args)
            .env("TOLLGATE_RUN_DIR", self.path("run"))
            .timeout(Duration::from_secs(60))
            .in_netns(&self.netns("node"))
            .output()
            .unwrap()
    }

    /// Removes what the agent left; what the command printed.
    pub fn cleanup(&self) -> String {
        let pins = self.path("pins").display().to_string();
        let output = self.tollgate(&["cleanup", "--pin-dir", &pins, "--tap", TAP]);
        assert!(
            output.status.success(),
            "{}{}",
            output.stdout,
            output.stderr
        );
        output.stdout
    }

    /// `tollgate status`.
    pub fn status(&self) -> Value {
        let output = self.tollgate(&["status", "-o", "json"]);
        let parsed = serde_json::from_str(&output.stdout);
        parsed.unwrap_or_else(|e| panic!("{e}: {}{}", output.stdout, output.stderr))
    }

    /// Generation of the policy in force.
    pub fn generation(&self) -> u64 {
        self.status()["policy"]["generation"].as_u64().unwrap()
    }

    /// Changes the policy and waits until the switch follows.
    pub fn change(&self, name: &str, text: &str) {
        let before = self.generation();
        self.replace(name, text);
        until("the new policy is in force", || {
            (self.generation() > before).then_some(())
        });
        self.settled();
    }

    /// Everything that the agent counts.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let status = self.status();
        let lists = ["kernel", "engine"].map(|list| status["datapath"][list].as_array().cloned());
        let named = lists.into_iter().flatten().flatten();
        let pair = |c: Value| {
            (
                c["name"].as_str().unwrap().into(),
                c["value"].as_u64().unwrap(),
            )
        };
        named.map(pair).collect()
    }

    /// Frames that the switch gave to the TAP.
    pub fn tap_frames(&self) -> u64 {
        // Field 10 of /proc/net/dev: packets sent.
        let line = format!("awk '$1 == \"{TAP}:\" {{ print $11 }}' /proc/net/dev");
        let text = self.sh("node", &line);
        text.parse().unwrap()
    }

    /// curl in a pod: exit code and status codes.
    pub fn curl(&self, place: &str, args: &str) -> (i32, String) {
        let line = format!("curl -sk -o /dev/null -w '%{{http_code}} ' --max-time 30 {args}");
        let output = self.try_sh(place, &line);
        (
            output.status.code().unwrap_or(-1),
            output.stdout.trim().to_owned(),
        )
    }

    /// Checksum errors of every namespace, those that are not zero.
    pub fn checksum_errors(&self) -> Vec<String> {
        let mut errors = Vec::new();
        for place in ["a", "b", "c", "node", "out"] {
            let text = self.sh(
                place,
                "nstat -asz | awk '/InCsumErrors|Ip6InCsum/ {print $1\"=\"int($2)}'",
            );
            assert!(text.contains("TcpInCsumErrors="), "{text}");
            let wrong = text.lines().filter(|line| !line.ends_with("=0"));
            errors.extend(wrong.map(|line| format!("{place} {line}")));
        }
        errors
    }

    /// What is on the bridge: flows without counters, and the configuration.
    pub fn bridge(&self) -> (Vec<String>, String) {
        let flows = self.sh("node", "ovs-ofctl --no-stats dump-flows br0");
        let mut flows: Vec<String> = flows.lines().map(|l| l.trim().to_owned()).collect();
        flows.sort();
        let ports = self.sh(
            "node",
            "ovs-vsctl show | tail -n +2; ovs-vsctl --columns=name,tag,trunks,vlan_mode list Port; \
             ovs-vsctl --columns=name,external_ids,other_config,fail_mode list Bridge",
        );
        (flows, ports)
    }

    fn clear(&self) {
        for place in ["a", "b", "c", "out", "node"] {
            let ns = self.netns(place);
            if Path::new("/run/netns").join(&ns).exists() {
                Cmd::line(&format!("ip netns del {ns}")).run_even_if_interrupted();
            }
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.agent_log());
        }
        for child in self.agent.iter_mut().chain(self.processes.iter_mut().rev()) {
            if let Ok(None) = child.try_wait() {
                // Not killed at once: the switch takes its devices along, nginx its workers.
                let _ = kill_process(Pid::from_child(child), Signal::TERM);
                let end = Instant::now() + Duration::from_secs(5);
                while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
                    std::thread::sleep(POLL);
                }
                let _ = child.kill();
            }
            let _ = child.wait();
        }
        self.clear();
    }
}

fn nginx_conf(bed: &Path, dir: &Path) -> String {
    let (bed, dir) = (bed.display(), dir.display());
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {dir}/{kind};\n"))
        .collect();
    format!(
        "user root;\nworker_processes 1;\ndaemon off;\npid {dir}/nginx.pid;\nerror_log stderr warn;\n\
         events {{ worker_connections 1024; }}\nhttp {{\n  access_log off;\n  keepalive_timeout 300s;\n\
         {temp}  client_max_body_size 0;\n  server {{\n    listen 80;\n    listen [::]:80;\n    listen 9000;\n    \
         listen [::]:9000;\n    listen 443 ssl;\n    listen [::]:443 ssl;\n    \
         ssl_certificate {bed}/cert.pem;\n    ssl_certificate_key {bed}/key.pem;\n    root {bed}/www;\n    \
         location /upload/ {{ root {dir}; dav_methods PUT; create_full_put_path on; }}\n  }}\n}}\n"
    )
}

/// Looks at a condition until it holds; fails after [`SOON`].
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_in(SOON, what, look)
}

/// Looks at a condition until it holds; fails after `limit`.
pub fn until_in<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// Compares with the values in the message.
pub fn same<T: PartialEq + Debug>(what: &str, found: T, expected: T) {
    assert!(
        found == expected,
        "{what}: found {found:?}, expected {expected:?}"
    );
}
