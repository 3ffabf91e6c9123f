//! `tollgate policy list`

use std::io::Write;

use tollgate_agent::api::{self, PolicyReport};

use crate::client::{AgentArgs, Client};
use crate::commands::status::endpoint_table;
use crate::exit::{Code, Outcome};
use crate::output::{Format, json, table};

/// List the policies in force, in the order in which they are evaluated.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    agent: AgentArgs,
    /// Shape of the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Asks and shows.
pub async fn run(args: Args) -> Outcome {
    let report: PolicyReport = Client::new(&args.agent).get(api::POLICY, &()).await?;
    let out = &mut std::io::stdout().lock();
    match args.output {
        Format::Json => json(out, &report)?,
        Format::Table => writeln!(out, "{}", render(&report))?,
    }
    Ok(Code::Ok)
}

fn render(report: &PolicyReport) -> String {
    let fields = [
        "name",
        "tier",
        "priority",
        "egressRules",
        "ingressRules",
        "appliedTo",
        "enforcement",
    ];
    let rows = report
        .policies
        .iter()
        .map(|policy| fields.map(|name| cell(policy, name)));
    let policies = table(
        [
            "POLICY",
            "TIER",
            "PRIORITY",
            "EGRESS",
            "INGRESS",
            "ENDPOINTS",
            "ENFORCEMENT",
        ],
        rows,
    );
    format!("{policies}\n\n{}", endpoint_table(&report.endpoints))
}

/// A field in either spelling; a dash where there is none.
fn cell(policy: &serde_json::Value, name: &str) -> String {
    let snake: String = name
        .chars()
        .flat_map(|c| match c.is_ascii_uppercase() {
            true => vec!['_', c.to_ascii_lowercase()],
            false => vec![c],
        })
        .collect();
    match policy.get(name).or_else(|| policy.get(&snake)) {
        None | Some(serde_json::Value::Null) => "-".to_owned(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
