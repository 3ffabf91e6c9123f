//! HAProxy and nginx as proxies on the node, in the way of the pod's connections.
//!
//! nftables redirects what the pod sends to the bench's four ports to the proxy, which looks at the
//! server name (HAProxy also at the host of each HTTP request) and connects to the external host. That
//! sees the node's address, as it does without a proxy: the node translates the pod's address anyway.

use std::fmt::Write;
use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use super::peer::{NGINX_STREAM, Peer};
use crate::bench::measure::{SINK_HTTP, SINK_HTTPS};
use crate::blind::GATEWAY_IF;
use crate::error::{IoContext, LabError, Result};
use crate::interrupt;
use crate::lab::{Lab, Place};
use crate::names::{API_HOST, Names, OUT_V4};
use crate::net::{self, SYSCTL_ENDS, SYSCTL_ENDS_OPTIONAL};
use crate::procs;
use crate::run::{Cmd, kill_group, shorten};

/// Where the proxy listens for what goes to a port: so much higher.
const LISTEN_ABOVE: u16 = 20_000;
/// Ports of the bench in the clear.
const HTTP_PORTS: [u16; 2] = [80, SINK_HTTP];
/// Ports of the bench with TLS.
const TLS_PORTS: [u16; 2] = [443, SINK_HTTPS];
/// Connections that may wait to be accepted, as the external host's servers have it.
const BACKLOG: u16 = 16_384;
/// Connections at a time: far more than the bench has, and far fewer than the file descriptors that a
/// process may have in a container.
const CONNECTIONS: u16 = 4000;
/// Bytes of a proxy's buffer for each direction of a connection: a large one for few system calls in
/// bulk transfers.
const BUFFER_KIB: u32 = 256;
/// How long a proxy may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(20);
/// Bytes of its log that an error shows.
const SHOWN: usize = 1000;

/// A running proxy with the redirection to it; dropping it removes both.
#[derive(Debug)]
pub struct Proxy {
    names: Names,
    peer: Peer,
    child: Child,
}

impl Proxy {
    /// Starts it, waits until it listens, and redirects the pod's connections to it.
    ///
    /// # Errors
    /// It is not installed, refuses its configuration or does not listen; nftables refuses.
    pub fn start(lab: &Lab, peer: Peer) -> Result<Proxy> {
        let names = &lab.names;
        // The node connects as often as the pod does.
        net::sysctl(&names.node, &SYSCTL_ENDS)?;
        net::sysctl_if_known(&names.node, &SYSCTL_ENDS_OPTIONAL)?;
        let conf = names.dir().join(format!("peer-{peer}.conf"));
        let (text, cmd, ports) = match peer {
            Peer::HaProxy => {
                let cmd = Cmd::new("haproxy").args(["-db", "-f"]).arg(&conf);
                (haproxy(), cmd, [HTTP_PORTS, TLS_PORTS].concat())
            }
            _ => {
                let cmd = Cmd::new("nginx").arg("-p").arg(names.dir());
                let cmd = cmd.arg("-c").arg(&conf).args(["-e", "stderr"]);
                (nginx(names), cmd, TLS_PORTS.to_vec())
            }
        };
        fs::write(&conf, text).doing("writing", conf)?;
        let child = lab.at(Place::Node, cmd).spawn(&names.log(peer.name()))?;
        let mut proxy = Proxy {
            names: names.clone(),
            peer,
            child,
        };
        procs::record(&names.procs(), peer.name(), proxy.pid())?;
        proxy.wait_listening(lab, &ports)?;
        let nft = Cmd::line("nft -f -").stdin(redirection(&ports));
        lab.at(Place::Node, nft).run()?;
        Ok(proxy)
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    fn wait_listening(&mut self, lab: &Lab, ports: &[u16]) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let listening = lab.at(Place::Node, Cmd::line("ss -Hltn")).run()?.stdout;
            let listens = |port: &u16| listening.contains(&format!(":{} ", port + LISTEN_ABOVE));
            if ports.iter().all(listens) {
                return Ok(());
            }
            if self.ended() || Instant::now() > deadline {
                let log = fs::read_to_string(self.names.log(self.peer.name())).unwrap_or_default();
                let (peer, said) = (self.peer, shorten(&log, SHOWN));
                return Err(LabError::NotReady(format!("{peer} does not start: {said}")));
            }
            interrupt::sleep(POLL)?;
        }
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Processor seconds that it and its workers have used so far.
    pub fn cpu_seconds(&self) -> f64 {
        procs::family_cpu_seconds(self.pid())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let delete = Cmd::line("nft delete table ip peer").in_netns(&self.names.node);
        // Not there if the start failed; with the lab it goes in any case.
        let _ = delete.run_even_if_interrupted();
        kill_group(&mut self.child);
        procs::forget(&self.names.procs(), self.peer.name());
    }
}

/// What the pod sends to these ports of the external host goes to the proxy.
fn redirection(ports: &[u16]) -> String {
    let mut rules = String::new();
    for port in ports {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            rules,
            "  iifname {GATEWAY_IF} ip daddr {OUT_V4} tcp dport {port} redirect to :{}",
            port + LISTEN_ABOVE
        );
    }
    format!(
        "table ip peer {{\n chain prerouting {{\n  type nat hook prerouting priority -100;\n{rules} }}\n}}\n"
    )
}

/// TLS in the mode for streams with splicing, HTTP in the mode that judges each request; threads as
/// many as processors.
fn haproxy() -> String {
    let mut text = format!(
        "global\n  maxconn {CONNECTIONS}\ndefaults\n  timeout connect 5s\n  timeout client 60s\n  \
         timeout server 60s\n  backlog {BACKLOG}\n"
    );
    for port in TLS_PORTS {
        let listen = port + LISTEN_ABOVE;
        let _ = writeln!(
            text,
            "listen tls-{port}\n  mode tcp\n  bind :{listen}\n  option splice-auto\n  \
             tcp-request inspect-delay 5s\n  \
             tcp-request content accept if {{ req.ssl_sni -i -m end .example.com }}\n  \
             tcp-request content reject\n  server out {OUT_V4}:{port}"
        );
    }
    for port in HTTP_PORTS {
        let listen = port + LISTEN_ABOVE;
        let _ = writeln!(
            text,
            "listen http-{port}\n  mode http\n  bind :{listen}\n  option splice-auto\n  \
             http-request deny unless {{ req.hdr(host) -i {API_HOST} }}\n  \
             server out {OUT_V4}:{port}"
        );
    }
    text
}

/// Streams by server name, workers as many as processors.
fn nginx(names: &Names) -> String {
    let dir = names.dir();
    let dir = dir.display();
    let mut text = format!(
        "load_module {NGINX_STREAM};\nuser root;\nworker_processes auto;\n\
         daemon off;\npid {dir}/peer-nginx.pid;\n\
         error_log stderr crit;\nevents {{\n  worker_connections {CONNECTIONS};\n  multi_accept on;\n}}\n\
         stream {{\n  proxy_buffer_size {BUFFER_KIB}k;\n  tcp_nodelay on;\n  \
         map $ssl_preread_server_name $to {{\n    hostnames;\n    *.example.com {OUT_V4};\n  }}\n"
    );
    for port in TLS_PORTS {
        let listen = port + LISTEN_ABOVE;
        let _ = writeln!(
            text,
            "  server {{\n    listen {listen} backlog={BACKLOG};\n    ssl_preread on;\n    \
             proxy_pass $to:{port};\n  }}"
        );
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_that_is_redirected_is_listened_on() {
        let names = Names::new("x").unwrap();
        for (text, ports) in [
            (haproxy(), [HTTP_PORTS, TLS_PORTS].concat()),
            (nginx(&names), TLS_PORTS.to_vec()),
        ] {
            for port in &ports {
                let listen = (port + LISTEN_ABOVE).to_string();
                assert!(text.contains(&listen), "{text}");
                assert!(redirection(&ports).contains(&format!("{port} redirect to :{listen}")));
            }
        }
    }
}
