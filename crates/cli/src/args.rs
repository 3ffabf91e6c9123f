//! The command line.

use clap::{Parser, Subcommand};

use crate::commands::{
    agent, bench, check, cleanup, conformance, doctor, explain, flows, inspect, lab, lint, observe,
    policies, status, version,
};
use crate::output::Colour;

/// Layer-7 network policy at the speed of no policy
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 done, allowed; 1 something was found: faults, a denial, a \
    degraded agent; 2 usage; 3 the agent is not reachable or not ready; 4 the system refused; \
    5 cannot be told."
)]
pub struct Cli {
    /// When to colour
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Colour,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Govern traffic: run the agent
    Agent(agent::Args),
    /// Show whether the agent does its work
    Status(status::Args),
    /// Check what a node needs, or whether everything is in place
    Check(check::Args),
    /// Find what in the way of packets makes policy slow or breaks it, and repair it
    Doctor(Box<doctor::Args>),
    /// Show verdicts, a line each, as they fall
    Observe(observe::Args),
    /// List the flows that the agent knows
    Flows(flows::Args),
    /// Check, explain and list policies
    Policy(PolicyArgs),
    /// Show what a capture contains, and what a policy says to it
    Inspect(inspect::Args),
    /// Remove programs, maps and the TAP; traffic passes ungoverned afterwards
    Cleanup(cleanup::Args),
    /// Measure with and without policy, in a lab of its own
    Bench(bench::Args),
    /// Test what this node does to packets, between two namespaces or in a lab of its own
    Conformance(conformance::Args),
    /// Make and use a test bed in network namespaces
    Lab(lab::Args),
    /// Show versions
    Version(version::Args),
}

/// Check, explain and list policies.
#[derive(Debug, clap::Args)]
pub struct PolicyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Check policy files; no agent is needed
    Lint(lint::Args),
    /// Say which rule decides, and why; no agent is needed
    Explain(Box<explain::Args>),
    /// List the policies in force
    List(policies::Args),
    /// Print the JSON Schema of policy files, for editors; no agent is needed
    Schema,
}
