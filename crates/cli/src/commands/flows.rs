//! `tollgate flows`

use std::io::Write;

use tollgate_agent::api::{self, FlowInfo, FlowQuery};

use crate::client::{AgentArgs, Client};
use crate::commands::observe::FilterArgs;
use crate::exit::{Code, Outcome};
use crate::line::{asked, peer};
use crate::output::{Format, bytes, json, or_dash, printable, table, yes};

/// List the flows that the agent knows. KERNEL says whether the kernel passes (part of) a flow on
/// its own.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    agent: AgentArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Shape of the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Asks and shows.
pub async fn run(args: Args) -> Outcome {
    let query = FlowQuery {
        filter: args.filter.query()?,
        limit: args.limit,
    };
    let flows: Vec<FlowInfo> = Client::new(&args.agent).get(api::FLOWS, &query).await?;
    let out = &mut std::io::stdout().lock();
    match args.output {
        Format::Json => json(out, &flows)?,
        Format::Table => writeln!(out, "{}", render(&flows))?,
    }
    Ok(Code::Ok)
}

fn render(flows: &[FlowInfo]) -> String {
    let row = |flow: &FlowInfo| {
        let policy = match (&flow.policy, &flow.rule) {
            (Some(policy), Some(rule)) => Some(format!("{policy}:{rule}")),
            (policy, _) => policy.clone(),
        };
        [
            flow.flow.clone(),
            flow.protocol.clone(),
            peer(&Some(flow.source.clone())),
            peer(&Some(flow.destination.clone())),
            flow.state.clone(),
            yes(flow.cached),
            bytes(flow.traffic.bytes_out),
            bytes(flow.traffic.bytes_in),
            or_dash(policy.as_deref().map(printable)),
            or_dash(flow.l7.as_ref().map(asked)),
        ]
    };
    let header = [
        "FLOW",
        "PROTO",
        "SOURCE",
        "DESTINATION",
        "STATE",
        "KERNEL",
        "OUT",
        "IN",
        "POLICY",
        "LAST",
    ];
    table(header, flows.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_one_line() {
        let flow: FlowInfo = serde_json::from_value(serde_json::json!({
            "flow": "0-5", "endpoint": "shop/web-0", "direction": "egress", "protocol": "tcp",
            "source": {"address": "10.0.0.2", "port": 40000, "name": "shop/web-0"},
            "destination": {"address": "fd00::7", "port": 443}, "state": "open", "cached": true,
            "l7": {"protocol": "tls", "sni": "a.example", "alpn": []},
            "policy": "ClusterNetworkPolicy/web", "rule": "read",
            "traffic": {"bytesOut": 700, "bytesIn": 2_000_000, "packetsOut": 3, "packetsIn": 40},
        }))
        .unwrap();
        let text = render(&[flow]);
        let line = text.lines().nth(1).unwrap();
        let words: Vec<_> = line
            .split("  ")
            .filter(|w| !w.is_empty())
            .map(str::trim)
            .collect();
        assert_eq!(
            words,
            [
                "0-5",
                "tcp",
                "shop/web-0:40000 (10.0.0.2)",
                "[fd00::7]:443",
                "open",
                "yes",
                "700 B",
                "2.0 MB",
                "ClusterNetworkPolicy/web:read",
                "SNI a.example",
            ]
        );
    }
}
