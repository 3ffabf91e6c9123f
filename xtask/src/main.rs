//! Development tasks: `cargo xtask bpf [--check]`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

/// The compiler of Debian 12. Another version makes another object, and `--check` compares bytes.
const CLANG: &str = "clang-14";
const STRIP: &str = "llvm-strip-14";
/// Every object of `bpf/`, named after its source: the gate, and the switch of the test bed.
const OBJECTS: [&str; 2] = ["tollgate.bpf", "detour.bpf"];
const USAGE: &str = "usage: cargo xtask bpf [--check]";

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["bpf"] => OBJECTS
            .iter()
            .try_for_each(|name| build(name, &bpf_dir()?.join(format!("{name}.o")))),
        ["bpf", "--check"] => OBJECTS.iter().try_for_each(|name| check(name)),
        _ => bail!(USAGE),
    }
}

/// The directory of the C sources.
fn bpf_dir() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask has no parent")?;
    Ok(root.join("bpf"))
}

/// Compiles and strips; the paths and directory of the build leave no trace in the object.
fn build(name: &str, object: &Path) -> Result<()> {
    let dir = bpf_dir()?;
    let mut clang = Command::new(CLANG);
    clang
        .current_dir(&dir)
        .args([
            "-g", "-O2", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror",
        ])
        .arg(format!("-fdebug-prefix-map={}=.", dir.display()))
        .args(["-fdebug-compilation-dir=.", "-c"])
        .arg(format!("{name}.c"))
        .arg("-o")
        .arg(object);
    run(clang)?;
    let mut strip = Command::new(STRIP);
    strip.arg("-g").arg(object);
    run(strip)
}

/// Fails if the committed object is not what the sources make.
fn check(name: &str) -> Result<()> {
    let committed = bpf_dir()?.join(format!("{name}.o"));
    let fresh = env::temp_dir().join(format!("{name}-{}.o", std::process::id()));
    let compared = build(name, &fresh).and_then(|()| same_bytes(&committed, &fresh));
    // A file that was never written need not be removed.
    let _ = fs::remove_file(&fresh);
    ensure!(
        compared?,
        "bpf/{name}.o is not what the sources make; run `cargo xtask bpf`"
    );
    println!("bpf/{name}.o is what the sources make");
    Ok(())
}

fn same_bytes(a: &Path, b: &Path) -> Result<bool> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    Ok(read(a)? == read(b)?)
}

fn run(mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| {
        format!(
            "starting {:?} (apt install clang-14 llvm-14)",
            command.get_program()
        )
    })?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
