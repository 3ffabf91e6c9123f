//! `tollgate status`

use std::io::Write;
use std::time::Duration;

use tokio::time::Instant;
use tollgate_agent::api::{self, EndpointState, EndpointStatus, Health, Status};

use crate::client::{AgentArgs, Client};
use crate::exit::{Code, Failure, Outcome};
use crate::output::{Format, Style, json, or_dash, table, yes};

/// How often an agent that is not ready yet is asked again.
const POLL: Duration = Duration::from_millis(100);

/// Show whether the agent does its work. Exit code 0: it does; 1: something needs attention; 3: it
/// cannot be reached or is not ready.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    agent: AgentArgs,
    /// Wait until everything is in order, at most so many seconds
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// Shape of the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Asks and shows.
pub async fn run(args: Args, style: Style) -> Outcome {
    let client = Client::new(&args.agent);
    let status = wait(&client, Duration::from_secs(args.wait.unwrap_or(0))).await?;
    let out = &mut std::io::stdout().lock();
    match args.output {
        Format::Json => json(out, &status)?,
        Format::Table => writeln!(out, "{}", render(&status, style))?,
    }
    Ok(match status.health {
        Health::Ok => Code::Ok,
        Health::Degraded => Code::Finding,
        Health::Starting => Code::Unreachable,
    })
}

async fn wait(client: &Client, patience: Duration) -> Result<Status, Failure> {
    let end = Instant::now() + patience;
    loop {
        let status = client.get::<Status>(api::STATUS, &()).await;
        let done = match &status {
            Ok(status) => status.health == Health::Ok,
            Err(failure) => failure.code() != Code::Unreachable,
        };
        if done || Instant::now() >= end {
            return status;
        }
        tokio::time::sleep_until((Instant::now() + POLL).min(end)).await;
    }
}

fn render(status: &Status, style: Style) -> String {
    let health = match status.health {
        Health::Ok => style.good("OK"),
        Health::Degraded => style.odd("DEGRADED"),
        Health::Starting => style.odd("STARTING"),
    };
    let policy = &status.policy;
    let path = &status.datapath;
    let adopted = if path.adopted {
        ", taken over from an earlier agent"
    } else {
        ""
    };
    let stale = policy.stale.as_ref().map_or(String::new(), |stale| {
        format!("; {}", style.bad(&format!("stale since {}", stale.since)))
    });
    let log = match (&status.events.log, status.events.log_writable) {
        (None, _) => "off".to_owned(),
        (Some(path), true) => path.clone(),
        (Some(path), false) => format!("{path} {}", style.bad("not writable")),
    };
    let place = match &path.bridge {
        Some(bridge) => format!("bridge {bridge}"),
        None => format!("pins in {}", path.pin_dir),
    };
    let mut lines = vec![
        format!(
            "Agent      {health}  version {}, process {}, node {}, since {}",
            status.version, status.pid, status.node, status.started
        ),
        format!(
            "Policy     generation {}, {} policies in {} files of {}, loaded {}{stale}",
            policy.generation,
            policy.policies,
            policy.files,
            policy.directory,
            or_dash(policy.loaded.as_ref())
        ),
        format!(
            "Data path  tap {}, {} workers, {} flows, {place}{adopted}",
            path.tap, path.workers, path.flows
        ),
        format!("Events     log {log}, {} dropped", status.events.dropped),
    ];
    if let Some(offloads) = &status.offloads {
        lines.push(format!(
            "Offloads   {} values as declared on {} interfaces, {} not",
            offloads.held,
            offloads.interfaces,
            offloads.problems.len()
        ));
    }
    lines.extend(
        status
            .warnings
            .iter()
            .map(|text| format!("Warning    {}", style.odd(text))),
    );
    if !status.endpoints.is_empty() {
        lines.push(String::new());
        lines.push(endpoint_table(&status.endpoints));
    }
    lines.join("\n")
}

/// The endpoints as a table.
pub fn endpoint_table(endpoints: &[EndpointStatus]) -> String {
    let row = |endpoint: &EndpointStatus| {
        let state = match endpoint.state {
            EndpointState::Attached => "attached",
            EndpointState::Waiting => "waiting",
            EndpointState::Failed => "failed",
        };
        [
            endpoint.name.clone(),
            endpoint.interface.clone(),
            or_dash(endpoint.id),
            state.to_owned(),
            yes(endpoint.egress),
            yes(endpoint.ingress),
        ]
    };
    table(
        ["ENDPOINT", "INTERFACE", "ID", "STATE", "EGRESS", "INGRESS"],
        endpoints.iter().map(row),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        serde_json::from_value(serde_json::json!({
            "health": "degraded",
            "warnings": ["policy: stale since 2026-11-23T10:00:00Z: web.yaml:3: no"],
            "version": "0.1.0", "pid": 7, "node": "n1", "started": "2026-11-23T09:00:00Z",
            "policy": {"directory": "/p", "generation": 2, "loaded": "2026-11-23T09:30:00Z",
                "files": 3, "policies": 4,
                "stale": {"since": "2026-11-23T10:00:00Z", "reasons": ["web.yaml:3: no"]}},
            "datapath": {"tap": "tollgate0", "pinDir": "/b", "workers": 2, "adopted": true,
                "flows": 12, "kernel": [], "engine": []},
            "endpoints": [{"name": "shop/web-0", "interface": "veth1", "id": 3,
                "state": "attached", "egress": true, "ingress": false}],
            "events": {"log": "/r/v.jsonl", "logWritable": true, "dropped": 0},
        }))
        .unwrap()
    }

    #[test]
    fn one_screen_says_it_all() {
        let expected = "\
Agent      DEGRADED  version 0.1.0, process 7, node n1, since 2026-11-23T09:00:00Z
Policy     generation 2, 4 policies in 3 files of /p, loaded 2026-11-23T09:30:00Z; \
stale since 2026-11-23T10:00:00Z
Data path  tap tollgate0, 2 workers, 12 flows, pins in /b, taken over from an earlier agent
Events     log /r/v.jsonl, 0 dropped
Warning    policy: stale since 2026-11-23T10:00:00Z: web.yaml:3: no

ENDPOINT    INTERFACE  ID  STATE     EGRESS  INGRESS
shop/web-0  veth1      3   attached  yes     no";
        assert_eq!(render(&status(), Style::plain()), expected);
    }
}
