//! The field `ovs` of the configuration file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tollgate_datapath::ovs::flows::{Place, TABLES};
use tollgate_datapath::ovs::tools::DEFAULT_RUN_DIR;

use crate::config::ConfigError;

/// What brings frames to the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatapathKind {
    /// Programs at the endpoints' interfaces.
    #[default]
    Ebpf,
    /// Flows on an Open vSwitch bridge.
    Ovs,
}

/// The bridge, and what of it the gate may use. What else uses the bridge must leave these alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ovs {
    /// The bridge whose ports the endpoints are.
    pub bridge: String,
    /// Where the switch has its sockets.
    pub run_dir: PathBuf,
    /// First of the tables, which follow each other.
    pub first_table: u8,
    /// Priority of the flows in table 0; the two above are used too.
    pub priority: u16,
    /// Number of the register.
    pub register: u8,
    /// Connection tracking zone.
    pub zone: u16,
    /// Cookie of the flows; the next number is used too.
    pub cookie: u64,
}

impl Default for Ovs {
    fn default() -> Self {
        Self {
            bridge: "br-int".to_owned(),
            run_dir: PathBuf::from(DEFAULT_RUN_DIR),
            // Pipelines number their tables from 0 up; 254 is the last that they may use.
            first_table: 200,
            // Above any flow that controllers usually write, and still leaves room for more.
            priority: 65_000,
            register: 15,
            zone: 64_999,
            // "tollgate", cut short, in ASCII.
            cookie: 0x746f_6c6c_6761_7400,
        }
    }
}

impl Ovs {
    /// The place of the gate on the bridge.
    pub fn place(&self) -> Place {
        Place {
            first_table: self.first_table,
            priority: self.priority,
            register: self.register,
            zone: self.zone,
            cookie: self.cookie,
        }
    }

    /// Whether the values can be used.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        /// The last table that flows may be written to (`TBL_INTERNAL` is 254).
        const LAST_TABLE: u8 = 253;
        /// The switch has 16 registers of 32 bits.
        const REGISTERS: u8 = 16;
        let bad = |field, message: String| Err(ConfigError::Value { field, message });
        let last_first = LAST_TABLE - TABLES + 1;
        if self.bridge.is_empty()
            || self
                .bridge
                .contains(|c: char| c == '/' || c.is_whitespace())
        {
            return bad(
                "ovs.bridge",
                format!("`{}` is no name of a bridge", self.bridge),
            );
        }
        if !(1..=last_first).contains(&self.first_table) {
            let message = format!("{TABLES} tables are needed: at least 1, at most {last_first}");
            return bad("ovs.firstTable", message);
        }
        if self.priority == 0 || self.priority > u16::MAX - 2 {
            let message = format!("at least 1, at most {}", u16::MAX - 2);
            return bad("ovs.priority", message);
        }
        if self.register >= REGISTERS {
            return bad("ovs.register", format!("at most {}", REGISTERS - 1));
        }
        if self.zone == 0 {
            return bad("ovs.zone", "zone 0 is everybody's; at least 1".to_owned());
        }
        if self.cookie == 0 || self.cookie >= u64::MAX - 1 {
            return bad(
                "ovs.cookie",
                "0 and the last two are everybody's".to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Overrides};

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("agent.yaml"), text, Overrides::default())
    }

    #[test]
    fn a_bridge_is_asked_for_by_name() {
        let config = parse("datapath: ovs\novs: {bridge: br7, zone: 9}").unwrap();
        assert_eq!(config.datapath, DatapathKind::Ovs);
        assert_eq!((config.ovs.bridge.as_str(), config.ovs.zone), ("br7", 9));
        assert_eq!(config.ovs.register, Ovs::default().register);
        assert_eq!(config.workers, 1);
        assert_eq!(parse("").unwrap().datapath, DatapathKind::Ebpf);
        let error = parse("datapath: ovs\nworkers: 2").unwrap_err();
        assert!(error.to_string().starts_with("workers: "), "{error}");
        assert!(parse("ovs: {brigde: br7}").is_err());
    }

    #[test]
    fn the_defaults_can_be_used_and_nonsense_cannot() {
        Ovs::default().check().unwrap();
        let wrong: [fn(&mut Ovs); 6] = [
            |ovs| ovs.bridge = String::new(),
            |ovs| ovs.first_table = 240,
            |ovs| ovs.priority = 65_534,
            |ovs| ovs.register = 16,
            |ovs| ovs.zone = 0,
            |ovs| ovs.cookie = 0,
        ];
        for change in wrong {
            let mut ovs = Ovs::default();
            change(&mut ovs);
            assert!(ovs.check().is_err(), "{ovs:?}");
        }
    }
}
