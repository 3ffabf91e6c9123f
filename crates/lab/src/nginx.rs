//! The external host's web server: real nginx, with a configuration of its own.

use std::fs;
use std::time::{Duration, Instant};

use crate::error::{IoContext, LabError, Result};
use crate::interrupt;
use crate::names::{Family, Names};
use crate::procs;
use crate::run::{Cmd, shorten};

/// How long nginx may take to accept connections.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Label of its process record and log.
pub const LABEL: &str = "nginx";

/// The configuration: one worker, no limits that a bench could hit, head buffers for very large
/// request heads, uploads by PUT, and full TLS handshakes on every connection.
pub fn config(names: &Names) -> String {
    let (cert, key) = names.server_pem();
    let (www, dir) = (names.www(), names.dir());
    let (www, dir) = (www.display(), dir.display());
    let temp: String = ["proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {dir}/nginx-temp;\n"))
        .collect();
    format!(
        r#"user root;
worker_processes 1;
worker_rlimit_nofile 65536;
daemon off;
pid {dir}/nginx.pid;
error_log stderr warn;
events {{
  worker_connections 16384;
  multi_accept on;
}}
http {{
  access_log off;
  default_type application/json;
  sendfile on;
  sendfile_max_chunk 0;
  tcp_nopush on;
  tcp_nodelay on;
  keepalive_timeout 300s;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  client_body_buffer_size 1m;
  client_header_buffer_size 4k;
  large_client_header_buffers 8 64k;
  open_file_cache max=100 inactive=1h;
  open_file_cache_valid 1h;
  client_body_temp_path {www}/body;
{temp}  server {{
    listen 80 default_server backlog=16384;
    listen [::]:80 default_server backlog=16384;
    listen 443 ssl default_server backlog=16384;
    listen [::]:443 ssl default_server backlog=16384;
    server_name _;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache off;
    ssl_session_tickets off;
    root {www};
    location /upload/ {{
      dav_methods PUT DELETE;
      create_full_put_path on;
    }}
  }}
}}
"#,
        cert = cert.display(),
        key = key.display(),
    )
}

/// Starts nginx in the outside namespace and waits until it accepts connections.
///
/// # Errors
/// It is not installed, refuses its configuration, or does not come up.
pub fn start(names: &Names) -> Result<()> {
    let conf = names.dir().join("nginx.conf");
    fs::write(&conf, config(names)).doing("writing", &conf)?;
    let temp = names.dir().join("nginx-temp");
    fs::create_dir_all(&temp).doing("creating", temp)?;
    let cmd = Cmd::new("nginx")
        .arg("-p")
        .arg(names.dir())
        .arg("-c")
        .arg(&conf)
        .args(["-e", "stderr"]);
    let mut child = cmd.in_netns(&names.out).spawn(&names.log(LABEL))?;
    let pid = i32::try_from(child.id()).unwrap_or(0);
    procs::record(&names.procs(), LABEL, pid)?;
    let deadline = Instant::now() + START_LIMIT;
    while !accepts(names)? {
        if child.try_wait().ok().flatten().is_some() || Instant::now() > deadline {
            let log = fs::read_to_string(names.log(LABEL)).unwrap_or_default();
            return Err(LabError::NotReady(format!(
                "nginx does not start: {}",
                shorten(&log, 1000)
            )));
        }
        interrupt::sleep(Duration::from_millis(20))?;
    }
    Ok(())
}

fn accepts(names: &Names) -> Result<bool> {
    let url = format!("https://[{}]/v2/status", Family::V6.outside());
    let curl = Cmd::new("curl").args(["-skf", "-o", "/dev/null", "--max-time", "2", &url]);
    Ok(curl.in_netns(&names.out).output()?.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_only_the_labs_own_paths() {
        let text = config(&Names::new("x").unwrap());
        for line in text.lines().filter(|l| l.contains(" /")) {
            let own = line.contains("/run/tollgate-lab/x/") || line.contains("location /upload/");
            assert!(
                own || line.contains("root /run/tollgate-lab/x/www"),
                "{line}"
            );
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
