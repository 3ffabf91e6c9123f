//! What can stand in the path, and which cases each can take.

use std::path::Path;

use serde::{Serialize, Serializer};

use crate::bench::Case;
use crate::blind::suricata::Suricata;
use crate::error::{LabError, Result};
use crate::run::Cmd;

/// nginx's module for streams, where Debian's package has it.
pub(super) const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// What can stand in the path and enforce the bench's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Tollgate's own data path.
    Tollgate,
    /// No policy, but TX checksums off in the pod and at the gateway: what an inline engine that is
    /// blind to offloads costs before it does anything.
    Workaround,
    /// Suricata inline, with the workaround.
    Suricata,
    /// Tollgate in Suricata's place: the same ports, rules and configuration, without the workaround.
    DropIn,
    /// HAProxy on the node: TLS by server name, HTTP by host.
    HaProxy,
    /// nginx on the node: TLS by server name.
    Nginx,
}

impl Peer {
    /// All of them, in the order of reports.
    pub const ALL: [Peer; 6] = [
        Peer::Tollgate,
        Peer::Workaround,
        Peer::Suricata,
        Peer::DropIn,
        Peer::HaProxy,
        Peer::Nginx,
    ];

    /// Its name, stable.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Tollgate => "tollgate",
            Peer::Workaround => "workaround",
            Peer::Suricata => "suricata",
            Peer::DropIn => "dropin",
            Peer::HaProxy => "haproxy",
            Peer::Nginx => "nginx",
        }
    }

    /// Whether it can take a case.
    pub fn takes(self, case: Case) -> bool {
        match self {
            Peer::Tollgate | Peer::Suricata | Peer::DropIn => true,
            // It has no process and no rules.
            Peer::Workaround => !matches!(case, Case::CpuPerGb | Case::Rules(_)),
            // Many rules would be lists of its own kind, of which there are several: not comparable.
            Peer::HaProxy => !matches!(case, Case::Rules(_)),
            Peer::Nginx => matches!(
                case,
                Case::Bulk { tls: true, .. } | Case::TlsConnections | Case::CpuPerGb
            ),
        }
    }

    /// Whether it judges HTTP.
    pub(super) fn judges_http(self) -> bool {
        !matches!(self, Peer::Workaround | Peer::Nginx)
    }

    /// Whether it judges TLS.
    pub(super) fn judges_tls(self) -> bool {
        self != Peer::Workaround
    }

    /// Looks whether it is installed.
    ///
    /// # Errors
    /// [`LabError::Usage`] with what to install.
    pub(super) fn check(self, suricata_root: Option<&Path>) -> Result<()> {
        match self {
            Peer::Tollgate | Peer::DropIn | Peer::Workaround => Ok(()),
            Peer::Suricata => match suricata_root {
                Some(root) => Suricata::check(root),
                None => Err(LabError::Usage(
                    "suricata: name a directory that has it by --suricata-root; \
                     `scripts/suricata-chroot.sh DIR` makes one"
                        .into(),
                )),
            },
            Peer::HaProxy => installed("haproxy", "haproxy", "haproxy"),
            Peer::Nginx if !Path::new(NGINX_STREAM).is_file() => Err(LabError::Usage(format!(
                "nginx: there is no {NGINX_STREAM}; on Debian: apt-get install libnginx-mod-stream"
            ))),
            Peer::Nginx => installed("nginx", "nginx", "nginx-light"),
        }
    }
}

fn installed(peer: &str, program: &str, package: &str) -> Result<()> {
    match Cmd::new(program).arg("-v").output() {
        Err(LabError::MissingProgram { .. }) => Err(LabError::Usage(format!(
            "{peer}: `{program}` is not installed; on Debian: apt-get install {package}"
        ))),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

impl std::str::FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Peer::ALL.into_iter().find(|peer| peer.name() == text);
        found.ok_or_else(|| {
            let all = Peer::ALL.map(Peer::name).join(", ");
            format!("peer {text:?}: use {all}")
        })
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Peer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_by_their_names() {
        for peer in Peer::ALL {
            assert_eq!(peer.name().parse(), Ok(peer));
        }
        let error = "envoy".parse::<Peer>().unwrap_err();
        assert!(error.contains("suricata"), "{error}");
    }

    #[test]
    fn nginx_takes_nothing_in_the_clear() {
        let taken: Vec<&str> = Case::ALL
            .into_iter()
            .filter(|case| Peer::Nginx.takes(*case))
            .map(Case::name)
            .collect();
        assert_eq!(
            taken.join(" "),
            "https-download-1 https-download-16 https-upload-1 https-upload-16 tls-connections \
             cpu-per-gb"
        );
    }

    #[test]
    fn what_is_not_there_is_named_with_where_to_get_it() {
        let error = Peer::Suricata.check(None).unwrap_err().to_string();
        assert!(error.contains("scripts/suricata-chroot.sh"), "{error}");
        let nowhere = Path::new("/nonexistent");
        let error = Peer::Suricata.check(Some(nowhere)).unwrap_err().to_string();
        assert!(error.contains("/nonexistent"), "{error}");
        let error = installed("x", "tollgate-no-such-program", "some-package");
        let error = error.unwrap_err().to_string();
        assert!(error.contains("apt-get install some-package"), "{error}");
    }
}
