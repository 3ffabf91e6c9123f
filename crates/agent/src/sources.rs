//! Policy files: read from a directory, within bounds, and compiled.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tollgate_policy::{CompileOptions, Diagnostic, PolicySet, SourceFile, compile};

/// Files read from one directory.
const MAX_FILES: usize = 10_000;

/// Bytes of one file: some 10,000 policies.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Bytes of all files together; a compiler needs a multiple of it.
const MAX_TOTAL_BYTES: u64 = 64 << 20;

/// Why a directory of policies cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or the directory cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A bound is exceeded.
    #[error("{}: {message}", path.display())]
    TooMuch {
        /// What is too large.
        path: PathBuf,
        /// Which bound.
        message: String,
    },
    /// A file is not text.
    #[error("{}: byte {at} is not UTF-8", path.display())]
    NotText {
        /// Which file.
        path: PathBuf,
        /// Offset of the first byte that is not.
        at: usize,
    },
    /// The files have faults.
    #[error("{} fault(s) in the policy files, the first: {}", .0.len(), first(.0))]
    Invalid(Vec<Diagnostic>),
}

fn first(diagnostics: &[Diagnostic]) -> String {
    diagnostics
        .first()
        .map(Diagnostic::to_string)
        .unwrap_or_default()
}

impl LoadError {
    /// Every fault, a line each.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Invalid(diagnostics) => diagnostics.iter().map(Diagnostic::to_string).collect(),
            other => vec![other.to_string()],
        }
    }
}

/// One policy file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    /// Name for diagnostics.
    pub name: String,
    /// Content.
    pub text: String,
}

/// A policy and where it came from.
#[derive(Debug)]
pub struct Loaded {
    /// The compiled policy.
    pub set: PolicySet,
    /// Files it was read from.
    pub files: usize,
}

/// Reads and compiles a directory.
pub fn load(dir: &Path, node_addresses: &[IpAddr]) -> Result<Loaded, LoadError> {
    compile_files(&read_dir(dir)?, node_addresses)
}

/// Compiles what was read.
pub fn compile_files(files: &[PolicyFile], node_addresses: &[IpAddr]) -> Result<Loaded, LoadError> {
    let options = CompileOptions {
        node_addresses: node_addresses.to_vec(),
    };
    let files: Vec<_> = files
        .iter()
        .map(|file| SourceFile {
            name: &file.name,
            text: &file.text,
        })
        .collect();
    let set = compile(&files, &options).map_err(LoadError::Invalid)?;
    Ok(Loaded {
        set,
        files: files.len(),
    })
}

/// Reads a directory's `*.yaml` and `*.yml` in the order of their names. Names with a leading dot
/// are left out: editors' and ConfigMap's own.
pub fn read_dir(dir: &Path) -> Result<Vec<PolicyFile>, LoadError> {
    let mut reader = Reader::default();
    for path in listing(dir)? {
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        reader.file(&path, name)?;
    }
    Ok(reader.files)
}

/// Reads files and directories as named on a command line; names in diagnostics are the paths.
pub fn read_paths(paths: &[PathBuf]) -> Result<Vec<PolicyFile>, LoadError> {
    let mut reader = Reader::default();
    for path in paths {
        if path.is_dir() {
            for inner in listing(path)? {
                reader.file(&inner, inner.display().to_string())?;
            }
        } else {
            reader.file(path, path.display().to_string())?;
        }
    }
    Ok(reader.files)
}

fn listing(dir: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source| LoadError::Read {
        path: dir.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if is_policy_file(&path) {
            paths.push(path);
        }
        if paths.len() > MAX_FILES {
            let message = format!("more than {MAX_FILES} policy files");
            return Err(LoadError::TooMuch {
                path: dir.to_owned(),
                message,
            });
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether a directory's entry is read: a regular file (or a link to one) with the right name.
fn is_policy_file(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let yaml = path
        .extension()
        .is_some_and(|ext| ext == "yaml" || ext == "yml");
    // A directory, socket or FIFO of that name is not ours; opening a FIFO would even block. A
    // dangling link stays, so that opening it reports it.
    yaml && !hidden && std::fs::metadata(path).map_or(true, |meta| meta.is_file())
}

#[derive(Default)]
struct Reader {
    files: Vec<PolicyFile>,
    total: u64,
}

impl Reader {
    fn file(&mut self, path: &Path, name: String) -> Result<(), LoadError> {
        let failed = |source| LoadError::Read {
            path: path.to_owned(),
            source,
        };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        let too_much = |message| LoadError::TooMuch {
            path: path.to_owned(),
            message,
        };
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(too_much(format!("more than {MAX_FILE_BYTES} bytes")));
        }
        self.total += bytes.len() as u64;
        if self.total > MAX_TOTAL_BYTES {
            return Err(too_much(format!(
                "all files together have more than {MAX_TOTAL_BYTES} bytes"
            )));
        }
        let text = String::from_utf8(bytes).map_err(|error| LoadError::NotText {
            path: path.to_owned(),
            at: error.utf8_error().valid_up_to(),
        })?;
        self.files.push(PolicyFile { name, text });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[PolicyFile]) -> Vec<&str> {
        files.iter().map(|f| f.name.as_str()).collect()
    }

    #[test]
    fn only_policy_files_are_read_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "b.yml",
            "a.yaml",
            ".hidden.yaml",
            "a.yaml~",
            "notes.txt",
            "c.YAML",
        ] {
            std::fs::write(dir.path().join(name), "# x\n").unwrap();
        }
        std::fs::create_dir(dir.path().join("d.yaml")).unwrap();
        assert_eq!(names(&read_dir(dir.path()).unwrap()), ["a.yaml", "b.yml"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none");
        assert!(matches!(read_dir(&missing), Err(LoadError::Read { path, .. }) if path == missing));
        let bad = dir.path().join("a.yaml");
        std::fs::write(&bad, b"ok: \xff").unwrap();
        assert!(matches!(
            read_dir(dir.path()),
            Err(LoadError::NotText { at: 4, .. })
        ));
        std::fs::remove_file(&bad).unwrap();
        std::os::unix::fs::symlink("nowhere", &bad).unwrap();
        assert!(matches!(read_dir(dir.path()), Err(LoadError::Read { path, .. }) if path == bad));
        std::fs::remove_file(&bad).unwrap();
        File::create(&bad)
            .unwrap()
            .set_len(MAX_FILE_BYTES + 1)
            .unwrap();
        assert!(matches!(
            read_dir(dir.path()),
            Err(LoadError::TooMuch { .. })
        ));
    }
}
