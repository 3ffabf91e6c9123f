//! Open vSwitch as the data path: endpoints are ports of a bridge, and so is the TAP. Flows in front of
//! the bridge's own pipeline send undecided frames to the engine; decisions are kept at the switch's
//! tracked connections. docs/ovs.md has the picture and the limits.

pub mod flows;
mod mac;
pub mod switch;
pub mod tools;

/// Why something could not be done with the switch.
#[derive(Debug, thiserror::Error)]
pub enum OvsError {
    /// A program of Open vSwitch cannot be run.
    #[error("running {program}: {source} (on Debian: apt-get install openvswitch-switch)")]
    Start {
        /// Which.
        program: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// It did not do what it was told.
    #[error("{program} {what}: {said}")]
    Refused {
        /// Which.
        program: &'static str,
        /// What it was told.
        what: String,
        /// What it said.
        said: String,
    },
    /// An interface is no working port of the bridge.
    #[error("{port} is no working port of bridge {bridge}: {why}")]
    NoPort {
        /// The bridge.
        bridge: String,
        /// The port.
        port: String,
        /// What the switch says.
        why: String,
    },
    /// Frames to an endpoint cannot be told from others.
    #[error(
        "the MAC address behind port {0} cannot be told: set external_ids:attached-mac of its interface"
    )]
    NoMac(String),
}
