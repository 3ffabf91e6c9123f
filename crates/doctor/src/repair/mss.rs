//! The clamp of the MSS, in a table of our own that nobody else's rules are in.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::repair::RepairError;

/// Our table.
const TABLE: &str = "inet tollgate_doctor";
/// The interfaces whose connections are clamped.
const SET: &str = "interfaces";

/// The rules with this interface among those that are clamped; one transaction, and the same however
/// often it is run. `rt mtu` is the smaller of the MTUs of the routes to both sides.
pub fn script(ifname: &str) -> String {
    let name = string(ifname);
    let base = base();
    format!("{base} add element {TABLE} {SET} {{ {name} }}")
}

fn base() -> String {
    let clamp = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu";
    format!(
        "add table {TABLE}; \
         add set {TABLE} {SET} {{ type ifname; }}; \
         add chain {TABLE} forward {{ type filter hook forward priority mangle; policy accept; }}; \
         flush chain {TABLE} forward; \
         add rule {TABLE} forward oifname @{SET} {clamp}; \
         add rule {TABLE} forward iifname @{SET} {clamp};"
    )
}

/// A string as nft reads it. It knows no escapes, so a name with a quote cannot be written.
fn string(name: &str) -> String {
    format!("\"{name}\"")
}

/// The interfaces that are clamped now; `None` without our table.
pub fn read() -> Result<Option<Vec<String>>, RepairError> {
    let tables = nft(&["-j", "list", "tables"], None)?;
    let ours = |item: &serde_json::Value| {
        item.get("table").is_some_and(|table| {
            table.get("family").is_some_and(|family| family == "inet")
                && table
                    .get("name")
                    .is_some_and(|name| name == "tollgate_doctor")
        })
    };
    if !items(&tables).iter().any(ours) {
        return Ok(None);
    }
    let sets = nft(&["-j", "list", "table", "inet", "tollgate_doctor"], None)?;
    let mut names = Vec::new();
    for set in items(&sets).iter().filter_map(|item| item.get("set")) {
        let elements = set.get("elem").and_then(|elements| elements.as_array());
        let text = |element: &serde_json::Value| element.as_str().map(str::to_owned);
        names.extend(elements.into_iter().flatten().filter_map(text));
    }
    names.sort();
    Ok(Some(names))
}

fn items(text: &str) -> Vec<serde_json::Value> {
    let document: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let items = document.get("nftables").and_then(|items| items.as_array());
    items.cloned().unwrap_or_default()
}

/// Refuses a name that the rules cannot hold.
pub fn check(ifname: &str) -> Result<(), RepairError> {
    match ifname.contains(['"', '\\', '*']) {
        false => Ok(()),
        true => Err(RepairError::Unfit(format!(
            "nft cannot name the interface {ifname:?}; rename it"
        ))),
    }
}

/// Adds an interface.
pub fn add(ifname: &str) -> Result<(), RepairError> {
    nft(&["-f", "-"], Some(&script(ifname))).map(drop)
}

/// Makes it what it was.
pub fn restore(before: Option<&[String]>) -> Result<(), RepairError> {
    // Adding first makes deleting succeed where there is nothing.
    let script = match before {
        None => format!("add table {TABLE}; delete table {TABLE};"),
        Some(names) => {
            let names: Vec<String> = names.iter().map(|name| string(name)).collect();
            let elements = match names.is_empty() {
                true => String::new(),
                false => format!(" add element {TABLE} {SET} {{ {} }}", names.join(", ")),
            };
            format!("{} flush set {TABLE} {SET};{elements}", base())
        }
    };
    nft(&["-f", "-"], Some(&script)).map(drop)
}

fn nft(args: &[&str], input: Option<&str>) -> Result<String, RepairError> {
    let mut command = Command::new("nft");
    command.args(args);
    run(command, input)
}

/// Runs a program in the calling thread's namespaces; its output.
pub fn run(mut command: Command, input: Option<&str>) -> Result<String, RepairError> {
    let shown = format!("{command:?}").replace('"', "");
    let failed = |why: String| RepairError::Program {
        command: shown.clone(),
        why,
    };
    let child = command
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => failed("not found; install it".to_owned()),
        _ => failed(error.to_string()),
    })?;
    if let (Some(mut pipe), Some(text)) = (child.stdin.take(), input) {
        // What it says when it closes the pipe early is in its output.
        let _ = pipe.write_all(text.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}
