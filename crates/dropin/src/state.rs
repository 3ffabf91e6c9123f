//! Tenants as a daemon that died leaves them to the one that follows it: a small file, replaced as a
//! whole. It holds the rules themselves, because that is what was in force; the files that they came
//! from may have changed since.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A tenant's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantFile {
    /// Its configuration.
    pub filename: PathBuf,
    /// The rules as last read.
    pub rules: String,
}

/// All there is to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// By number.
    pub tenants: BTreeMap<u32, TenantFile>,
    /// The tenant of each VLAN.
    pub handlers: BTreeMap<u16, u32>,
}

/// Where it lies, beside the command socket.
pub fn path(socket: &Path) -> PathBuf {
    socket.with_file_name("tollgate-tenants.json")
}

impl Saved {
    /// Reads it; there is none in the beginning.
    ///
    /// # Errors
    /// It cannot be read, or is no such file.
    pub fn read(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Replaces it.
    ///
    /// # Errors
    /// The system refuses; the old one stays.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        drop(file);
        fs::rename(&new, path)
    }
}
