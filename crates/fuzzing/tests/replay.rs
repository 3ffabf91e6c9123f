//! Every input of the corpus, and every one that once broke something, through its target.
#![allow(clippy::unwrap_used, reason = "part of tests")]

use std::fs;
use std::path::{Path, PathBuf};

use tollgate_fuzzing::{TARGETS, Target};

/// Most files and bytes of all corpora: they are in the repository.
const FILES_MAX: usize = 300;
const BYTES_MAX: usize = 2 << 20;

fn folder(kind: &str, target: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    root.join(kind).join(target)
}

/// The content of the files in a folder, with their paths; none if there is no such folder.
fn inputs(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// Names the input if its target panics.
struct Named<'a>(&'a Path);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("while reading {}", self.0.display());
        }
    }
}

fn replay((name, run): Target) -> usize {
    let corpus = inputs(&folder("corpus", name));
    assert!(!corpus.is_empty(), "fuzz/corpus/{name} is empty");
    assert!(corpus.len() <= FILES_MAX, "fuzz/corpus/{name} is too large");
    let regressions = inputs(&folder("regressions", name));
    for (path, input) in corpus.iter().chain(&regressions) {
        let _named = Named(path);
        run(input);
    }
    corpus.iter().map(|(_, input)| input.len()).sum()
}

#[test]
fn every_input_keeps_every_promise() {
    let bytes: usize = TARGETS.iter().copied().map(replay).sum();
    assert!(bytes <= BYTES_MAX, "the corpora have {bytes} bytes");
}

#[test]
fn every_target_has_a_fuzz_target() {
    for (name, _) in TARGETS {
        let path = folder("fuzz_targets", &format!("{name}.rs"));
        let text = fs::read_to_string(&path).unwrap();
        let call = format!("tollgate_fuzzing::{name}(data)");
        assert!(text.contains(&call), "{}", path.display());
    }
}
