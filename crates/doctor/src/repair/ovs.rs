//! Columns of Open vSwitch's database, through `ovs-vsctl`.

use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::repair::RepairError;
use crate::repair::mss::run;

/// Seconds that `ovs-vsctl` waits for the database and for the switch to take the change.
const TIMEOUT: &str = "--timeout=10";

/// What a column was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Identity of the record: one that was made anew is another.
    uuid: String,
    /// The value as `ovs-vsctl` prints it; `None` where a map had no such key.
    value: Option<String>,
}

/// How to reach the database.
#[derive(Clone, Debug, Default)]
pub struct Ovs {
    /// `--db` of `ovs-vsctl`; `None` for its own default.
    pub db: Option<String>,
}

impl Ovs {
    /// What it is now; `None` if there is no such record.
    pub fn read(
        &self,
        table: &str,
        record: &str,
        column: &str,
    ) -> Result<Option<Before>, RepairError> {
        let uuid = self.run(&["--if-exists", "get", table, record, "_uuid"])?;
        if uuid.is_empty() {
            return Ok(None);
        }
        let value = self.run(&["--if-exists", "get", table, record, column])?;
        Ok(Some(Before {
            uuid,
            value: Some(value).filter(|value| !value.is_empty()),
        }))
    }

    /// Sets it.
    pub fn set(
        &self,
        table: &str,
        record: &str,
        column: &str,
        value: &str,
    ) -> Result<(), RepairError> {
        self.run(&["set", table, record, &format!("{column}={value}")])
            .map(drop)
    }

    /// Makes it what it was; false if the record is gone or another one.
    pub fn restore(
        &self,
        table: &str,
        record: &str,
        column: &str,
        before: &Before,
    ) -> Result<bool, RepairError> {
        match self.read(table, record, column)? {
            Some(now) if now.uuid == before.uuid => {}
            _ => return Ok(false),
        }
        match (&before.value, column.split_once(':')) {
            (Some(value), _) => self.set(table, record, column, value)?,
            (None, Some((map, key))) => {
                self.run(&["remove", table, record, map, key])?;
            }
            (None, None) => {
                self.run(&["clear", table, record, column])?;
            }
        }
        Ok(true)
    }

    fn run(&self, args: &[&str]) -> Result<String, RepairError> {
        let mut command = Command::new("ovs-vsctl");
        // The switch may be down; its database is what is changed.
        command.args([TIMEOUT, "--no-wait"]);
        if let Some(db) = &self.db {
            command.arg(format!("--db={db}"));
        }
        command.args(args);
        Ok(run(command, None)?.trim().to_owned())
    }
}

impl Before {
    /// Is the column this value already?
    pub fn is(&self, value: &str) -> bool {
        let plain = |text: &str| text.trim_matches('"').to_owned();
        self.value
            .as_deref()
            .is_some_and(|now| plain(now) == plain(value))
    }
}
