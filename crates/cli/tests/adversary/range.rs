//! The lab of the adversary: servers that write down what they act on, and a way without address
//! translation, so that the servers see each client's own port and nothing between the agent and
//! them drops what looks odd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use tollgate_lab::lab::Place;
use tollgate_lab::names::{INNER_IF, NODE_OUT_V4, NODE_OUT_V6, Names, POD_HOST_IF};
use tollgate_lab::run::Cmd;

use crate::bed::{API, Bed, options, success, until};
use crate::records::{Record, Row};
use crate::source;

/// Addresses of the raw client; nobody's kernel owns them.
const SPARE: [&str; 2] = ["10.10.0.66", "fd10::66"];
/// Debian's, which has the packages that the scripts import, whatever else is in `PATH`.
const PYTHON: &str = "/usr/bin/python3";
/// The only requests and names that are allowed.
const POLICY: &str = "\
apiVersion: crd.antrea.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: web}
spec:
  priority: 5
  tier: application
  appliedTo: [{podSelector: {matchLabels: {app: web}}}]
  egress:
    - name: api
      action: Allow
      ports: [{protocol: TCP, port: 8081, endPort: 8089}, {protocol: TCP, port: 8441, endPort: 8449}]
      l7Protocols:
        - http: {host: api.example.com, method: GET, path: /v2/*}
        - tls: {sni: api.example.com}
    - name: quic
      action: Allow
      ports: [{protocol: UDP, port: 7443}]
      l7Protocols: [{tls: {sni: api.example.com}}]
    - {name: echo, action: Allow, ports: [{protocol: UDP, port: 7000}]}
    - {name: rest, action: Reject}
";

/// The only request in the table of honest clients that is not allowed.
const DENIED_CALL: &str = "/shop.Admin/Drop";

/// A governed lab with its servers. They end before the lab goes.
#[derive(Debug)]
pub struct Range {
    servers: Vec<Server>,
    bed: Bed,
}

/// A server process.
#[derive(Debug)]
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Range {
    /// Brings everything up.
    pub fn up(name: &str) -> Range {
        let mut small = options(name);
        small.big_bytes = 1 << 20;
        let mut bed = Bed::without_agent(&small);
        bed.replace("policy.yaml", POLICY);
        without_translation(&bed);
        bed.start();
        let mut range = Range {
            servers: Vec::new(),
            bed,
        };
        range.start_servers();
        range
    }

    fn dir(&self) -> PathBuf {
        self.bed.lab.names.dir()
    }

    fn start_servers(&mut self) {
        let names = &self.bed.lab.names;
        let conf = names.dir().join("adversary.conf");
        fs::write(&conf, nginx(names)).unwrap();
        let nginx = Cmd::new("nginx").args(["-e", "stderr", "-p"]);
        let nginx = nginx.arg(names.dir()).arg("-c").arg(conf);
        let python = Cmd::new(PYTHON).arg("-B").arg(source("servers.py"));
        let (cert, key) = names.server_pem();
        let python = python.arg(self.log("python")).arg(&cert).arg(&key);
        let node = Cmd::new("node").arg(source("servers.js"));
        let node = node.arg(self.log("node")).arg(cert).arg(key);
        let started = [("nginx", nginx), ("python", python), ("node", node)].map(|(label, cmd)| {
            let log = names.log(&format!("adversary-{label}"));
            let child = self.bed.lab.at(Place::Out, cmd).spawn(&log).unwrap();
            (Server(child), log)
        });
        for (server, log) in started {
            self.servers.push(server);
            self.wait_for(&log);
        }
    }

    /// nginx says nothing when it is ready; its port does.
    fn wait_for(&self, log: &Path) {
        let is_nginx = log.to_string_lossy().contains("nginx");
        until("a server is ready", || {
            if is_nginx {
                let host = format!("Host: {API}");
                let curl = Cmd::new("curl").args(["-so", "/dev/null", "-H", &host]);
                let curl = curl.arg("http://[::1]:8081/v2/up");
                let output = self.bed.lab.at(Place::Out, curl).output().unwrap();
                return output.status.success().then_some(());
            }
            let text = fs::read_to_string(log).unwrap_or_default();
            text.contains("ready").then_some(())
        });
    }

    /// Where a server writes its records.
    fn log(&self, label: &str) -> PathBuf {
        self.dir().join(format!("records-{label}"))
    }

    /// Runs the table of honest clients, which may upload as well; what the agent denied them comes
    /// with it.
    pub fn honest(&mut self, limit: Duration) -> (Vec<Row>, Vec<String>) {
        self.bed
            .change(|bed| bed.replace("policy.yaml", &with_uploads()));
        let ca = self.bed.lab.names.ca();
        let rows = self.table("honest.py", Some(&ca), limit);
        let denials = self.denials();
        self.records();
        self.bed.change(|bed| bed.replace("policy.yaml", POLICY));
        self.start_servers();
        (rows, denials)
    }

    /// What the agent says that it denied, but for what honest clients were meant to be denied.
    fn denials(&self) -> Vec<String> {
        let output = self
            .bed
            .tollgate(&["observe", "--verdict", "denied", "-o", "json"]);
        let lines = success(&output).lines();
        let is_meant = |line: &&str| line.contains(DENIED_CALL);
        lines
            .filter(|line| !is_meant(line))
            .map(str::to_owned)
            .collect()
    }

    /// Runs the table of attacks; what the servers acted on comes with it. The servers are gone.
    pub fn attack(&mut self, limit: Duration) -> (Vec<Row>, Vec<Record>) {
        let rows = self.table("attacks.py", None, limit);
        (rows, self.records())
    }

    fn table(&self, script: &str, ca: Option<&Path>, limit: Duration) -> Vec<Row> {
        let out = self.dir().join("rows");
        let gateway = mac(&self.bed, Place::Node, POD_HOST_IF);
        let cmd = Cmd::new(PYTHON).arg("-B").arg(source(script));
        let cmd = cmd.arg(&out).arg(gateway).args(ca).timeout(limit);
        let output = self.bed.lab.at(Place::Pod, cmd).output().unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            output.stdout,
            output.stderr
        );
        let text = fs::read_to_string(out).unwrap();
        text.lines().map(Row::parse).collect()
    }

    /// What the servers acted on. Ends them, so that nothing is still under way.
    fn records(&mut self) -> Vec<Record> {
        self.servers.clear();
        let mut found = Vec::new();
        for label in ["nginx", "python", "node"] {
            let log = self.log(label);
            let text = fs::read_to_string(&log).unwrap_or_default();
            found.extend(text.lines().map(Record::parse));
            let _ = fs::remove_file(log);
        }
        found
    }
}

/// The policy with uploads and gRPC.
fn with_uploads() -> String {
    let line = "        - tls: {sni: api.example.com}\n";
    let more = [
        "HEAD, path: /v2/*",
        "POST, path: /up/*",
        "PUT, path: /up/*",
        "POST, path: /shop.Orders/Get*",
    ];
    let more =
        more.map(|item| format!("        - http: {{host: api.example.com, method: {item}}}\n"));
    POLICY.replace(line, &format!("{}{line}", more.concat()))
}

/// An interface's MAC address.
fn mac(bed: &Bed, place: Place, device: &str) -> String {
    bed.sh(
        place,
        &format!("ip -br link show dev {device} | awk '{{print $3}}'"),
    )
}

/// Routes instead of masquerade, and neighbours for the addresses that nobody answers for.
fn without_translation(bed: &Bed) {
    bed.sh(Place::Node, "nft delete table inet lab");
    bed.sh(
        Place::Out,
        &format!(
            "ip route replace 10.10.0.0/24 via {NODE_OUT_V4} && \
             ip -6 route replace fd10::/64 via {NODE_OUT_V6} && \
             sysctl -qw net.ipv4.tcp_fastopen=0x603"
        ),
    );
    // Above the ports that the tables choose for themselves.
    bed.sh(
        Place::Pod,
        "sysctl -qw net.ipv4.ip_local_port_range='50000 65000'",
    );
    let pod = mac(bed, Place::Pod, INNER_IF);
    for address in SPARE {
        bed.sh(
            Place::Node,
            &format!("ip neigh replace {address} lladdr {pod} dev {POD_HOST_IF}"),
        );
    }
}

/// nginx: one server of each kind, each request that it acts on in its log. `$uri` is the path as
/// nginx understands it.
fn nginx(names: &Names) -> String {
    let dir = names.dir();
    let (dir, log) = (dir.display(), dir.join("records-nginx"));
    let (cert, key) = names.server_pem();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {dir}/adversary-temp;\n"))
        .collect();
    format!(
        r#"user root;
worker_processes 1;
daemon off;
master_process off;
pid {dir}/adversary-nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  log_format record escape=json '{{"server":"nginx","port":$remote_port,"method":"$request_method","hosts":["$host","$http_host"],"paths":["$uri"]}}';
  map $status $acted {{ 200 1; 204 1; 404 1; default 0; }}
  access_log {log} record if=$acted;
  client_max_body_size 0;
  large_client_header_buffers 8 64k;
{temp}  server {{
    listen [::]:8081 ipv6only=off backlog=1024;
    listen [::]:8085 ipv6only=off backlog=1024 http2;
    location / {{ return 200 "ok\n"; }}
  }}
  server {{
    listen [::]:8444 ssl ipv6only=off backlog=1024;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    location / {{ return 200 "ok\n"; }}
  }}
}}
"#,
        log = log.display(),
        cert = cert.display(),
        key = key.display(),
    )
}
