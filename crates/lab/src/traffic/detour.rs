//! The lab's switch: holds the detour to an engine's ports as long as it runs.

use std::time::Duration;

use tollgate_datapath::detour::{Detour, Route};

use super::args::Args;
use crate::error::{LabError, Result};
use crate::interrupt;

/// Length of one sleep; an end asked for ends it at once.
const NAP: Duration = Duration::from_secs(3600);

/// Sends what comes in by `--endpoint` and `--gateway` to `--to-engine`, tagged with `--vlan`, and
/// what comes back by `--from-engine` on its way: to the gateway what has its `--gateway-mac`, else to
/// the endpoint. Prints `{"ready":true}` once it does; ends it all at SIGTERM or SIGINT.
pub fn run(args: &Args) -> Result<()> {
    interrupt::install();
    let names = ["endpoint", "gateway", "to-engine", "from-engine"];
    let [endpoint, gateway, to_engine, from_engine] = names.map(|name| args.need::<String>(name));
    let mac: String = args.need("gateway-mac")?;
    let gateway_mac = parse_mac(&mac)
        .ok_or_else(|| LabError::Usage(format!("--gateway-mac {mac:?}: cannot be read")))?;
    let _detour = Detour::start(Route {
        endpoint: &endpoint?,
        gateway: &gateway?,
        gateway_mac,
        to_engine: &to_engine?,
        from_engine: &from_engine?,
        vlan: args.need("vlan")?,
    })?;
    super::print(&serde_json::json!({ "ready": true }))?;
    while interrupt::sleep(NAP).is_ok() {}
    Ok(())
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut words = text.trim().split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(words.next()?, 16).ok()?;
    }
    words.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses() {
        let expected = Some([0x02, 0, 0, 0xab, 0xcd, 0xef]);
        assert_eq!(parse_mac("02:00:00:ab:cd:ef\n"), expected);
        for bad in [
            "",
            "02",
            "02:00:00:ab:cd",
            "02:00:00:ab:cd:ef:00",
            "x:0:0:0:0:0",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
