//! `tollgate policy explain`

mod carried;

use std::fmt::Write as _;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tollgate_agent::config::DEFAULT_POLICY_DIR;
use tollgate_agent::sources::{self, LoadError};
use tollgate_policy::{EndpointPolicy, Explanation, FlowQuery, Missing, PolicySet, Side, Verdict};

use self::carried::{Carried, Refusal};

use crate::commands::lint::unreadable;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{Format, Style, json, printable};

/// Say which rule decides a flow or a request, and why. Needs no agent: the policy files are read
/// here. Exit code 0: allowed; 1: denied; 5: it depends on something that was not given, which is
/// then named.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tollgate policy explain --endpoint shop/web-0 --to 203.0.113.7:80 --http 'GET api.example.com/v1'\n  \
    tollgate policy explain --endpoint shop/web-0 --to 203.0.113.7:80 --http 'GET api.example.com/v1' -H 'X-Team: red'\n  \
    tollgate policy explain --endpoint shop/web-0 --to 203.0.113.7:50051 --grpc shop.v1.Catalog/GetItem\n  \
    tollgate policy explain --endpoint shop/web-0 --to '[2001:db8::7]:443' --sni www.example.com --alpn h2\n  \
    tollgate policy explain --endpoint shop/web-0 --to 203.0.113.7:443 --quic --sni www.example.com\n  \
    tollgate policy explain --endpoint shop/web-0 --from 10.0.3.4 --to 8080")]
pub struct Args {
    /// Directory of policy files, or a single file
    #[arg(long, value_name = "DIR", default_value = DEFAULT_POLICY_DIR)]
    policy_dir: PathBuf,
    /// The endpoint: `namespace/name`
    #[arg(long, value_name = "NAME")]
    endpoint: String,
    /// Destination, address:port. With --from: the endpoint's port, with or without its address
    #[arg(long, value_name = "ADDR:PORT")]
    to: String,
    /// A name for which the endpoint was told the destination's address, for `fqdn` peers
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    to_name: Vec<String>,
    /// For a flow towards the endpoint: who opens it, address or address:port
    #[arg(long, value_name = "ADDR")]
    from: Option<String>,
    /// tcp, udp, sctp, icmp, icmpv6 or a protocol number [default: tcp; udp with --quic]
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    #[command(flatten)]
    carried: carried::CarriedArgs,
    /// Source port of the flow; any ephemeral port unless given
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    /// Type and code of an ICMP message [default: echo request]
    #[arg(long, value_name = "TYPE/CODE")]
    icmp: Option<String>,
    /// Addresses of the node itself, which Kubernetes policies never shut out
    #[arg(long, value_name = "ADDR")]
    node_address: Vec<IpAddr>,
    /// Show also the policies that do not apply to the endpoint
    #[arg(long)]
    all: bool,
    /// Shape of the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// IP protocol numbers of what carries L7.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// First port of the range that IANA leaves to clients.
const EPHEMERAL: u16 = 49_152;

/// Explains and shows.
pub fn run(args: &Args, style: Style) -> Outcome {
    let files = sources::read_paths(std::slice::from_ref(&args.policy_dir)).map_err(unreadable)?;
    let loaded = sources::compile_files(&files, &args.node_address).map_err(faulty)?;
    let endpoint = find(&loaded.set, &args.endpoint)?;
    let query = flow_query(args, endpoint.addresses())?;
    let carried = args.carried.carried(query.protocol == UDP)?;
    if let Carried::Refused(refusal) = &carried {
        return show_refused(args, endpoint, &query, refusal, style);
    }
    let l7 = carried.query();
    let explanation = endpoint.explain_named(&query, &names(args), l7.as_ref());
    show(args, &explanation, style)
}

/// The names as DNS answers teach them: lower case, no trailing dot.
fn names(args: &Args) -> Vec<Arc<str>> {
    let plain = |name: &String| name.trim_end_matches('.').to_ascii_lowercase().into();
    args.to_name.iter().map(plain).collect()
}

fn faulty(error: LoadError) -> Failure {
    match &error {
        LoadError::Invalid(_) => Failure::new(Code::Usage, error.lines().join("\n"))
            .hint("the policy files have faults; nothing can be explained until they are mended"),
        _ => unreadable(error),
    }
}

fn find<'a>(set: &'a PolicySet, name: &str) -> Result<&'a EndpointPolicy, Failure> {
    if let Some(endpoint) = set.endpoint(name) {
        return Ok(endpoint);
    }
    let known: Vec<_> = set
        .endpoints()
        .iter()
        .map(|endpoint| endpoint.name())
        .collect();
    let hint = match known.is_empty() {
        true => "the policy files name no endpoint at all".to_owned(),
        false => format!("there are: {}", known.join(", ")),
    };
    Err(Failure::usage(format!("no endpoint is called {name}")).hint(hint))
}

fn flow_query(args: &Args, addresses: &[IpAddr]) -> Result<FlowQuery, Failure> {
    let (protocol, has_ports) = flow_protocol(args)?;
    let source_port = if has_ports {
        args.source_port.unwrap_or(EPHEMERAL)
    } else {
        0
    };
    let (side, local, local_port, remote, remote_port) = match &args.from {
        None => {
            let to = destination(&args.to, has_ports)?;
            (
                Side::Egress,
                own(addresses, to.ip())?,
                source_port,
                to.ip(),
                to.port(),
            )
        }
        Some(from) => {
            let from = source(from, source_port)?;
            let (address, port) = own_destination(&args.to, has_ports)?;
            let local = match address {
                Some(address) => address,
                None => own(addresses, from.ip())?,
            };
            (Side::Ingress, local, port, from.ip(), from.port())
        }
    };
    if local.is_ipv4() != remote.is_ipv4() {
        return Err(Failure::usage(format!(
            "{local} and {remote} are of two address families"
        )));
    }
    let icmp = icmp(args.icmp.as_deref(), protocol)?;
    Ok(FlowQuery {
        side,
        remote,
        local,
        protocol,
        local_port,
        remote_port,
        icmp,
    })
}

/// The protocol that was named, or that what the flow carries goes over.
fn flow_protocol(args: &Args) -> Result<(u8, bool), Failure> {
    let default = if args.carried.quic { "udp" } else { "tcp" };
    let name = args.protocol.as_deref().unwrap_or(default);
    let (number, has_ports) = protocol(name)?;
    if args.carried.quic && number != UDP {
        return Err(Failure::usage(format!(
            "--quic is UDP, not --protocol {name}"
        )));
    }
    if args.carried.needs_tcp() && number != TCP {
        return Err(Failure::usage(format!(
            "requests are read on TCP alone, not on --protocol {name}"
        ))
        .hint("in QUIC they are encrypted: ask with --quic --sni NAME"));
    }
    Ok((number, has_ports))
}

/// The number, and whether there are ports.
fn protocol(name: &str) -> Result<(u8, bool), Failure> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "tcp" | "http" | "tls" | "6" => (TCP, true),
        "udp" | "quic" | "17" => (UDP, true),
        "sctp" | "132" => (132, true),
        "icmp" => (1, false),
        "icmpv6" => (58, false),
        other => {
            let number = other.parse().map_err(|_| {
                Failure::usage(format!("--protocol {name}: unknown"))
                    .hint("tcp, udp, sctp, icmp, icmpv6 or a number up to 255")
            })?;
            (number, false)
        }
    })
}

fn destination(text: &str, has_ports: bool) -> Result<SocketAddr, Failure> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Ok(socket);
    }
    match text.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) if !has_ports => Ok(SocketAddr::new(address, 0)),
        Ok(_) => Err(Failure::usage(format!("--to {text}: the port is missing"))
            .hint("such as 203.0.113.7:443 or [2001:db8::7]:443")),
        Err(_) => Err(Failure::usage(format!("--to {text}: not an address and port")).hint(
            "such as 203.0.113.7:443; names are not resolved: policies see addresses, and names \
             only in --http, --grpc and --sni",
        )),
    }
}

fn source(text: &str, port: u16) -> Result<SocketAddr, Failure> {
    let address = || {
        text.trim_matches(['[', ']'])
            .parse()
            .map(|ip| SocketAddr::new(ip, port))
    };
    text.parse::<SocketAddr>()
        .or_else(|_| address())
        .map_err(|_| {
            Failure::usage(format!("--from {text}: not an address")).hint("such as 10.0.3.4")
        })
}

/// The endpoint's own end: a port, with or without an address before it.
fn own_destination(text: &str, has_ports: bool) -> Result<(Option<IpAddr>, u16), Failure> {
    if let Ok(port) = text.trim_start_matches(':').parse::<u16>() {
        return Ok((None, port));
    }
    destination(text, has_ports).map(|socket| (Some(socket.ip()), socket.port()))
}

/// The endpoint's address of the same family.
fn own(addresses: &[IpAddr], other: IpAddr) -> Result<IpAddr, Failure> {
    let same = addresses
        .iter()
        .find(|address| address.is_ipv4() == other.is_ipv4());
    same.copied().ok_or_else(|| {
        let family = if other.is_ipv4() { "IPv4" } else { "IPv6" };
        Failure::usage(format!(
            "the endpoint has no {family} address to talk to {other} with"
        ))
    })
}

fn icmp(text: Option<&str>, protocol: u8) -> Result<Option<(u8, u8)>, Failure> {
    let default = match protocol {
        1 => Some((8, 0)),
        58 => Some((128, 0)),
        _ => None,
    };
    let Some(text) = text else { return Ok(default) };
    let pair = text.split_once('/').unwrap_or((text, "0"));
    match (pair.0.parse(), pair.1.parse(), default) {
        (Ok(kind), Ok(code), Some(_)) => Ok(Some((kind, code))),
        (.., None) => Err(Failure::usage("--icmp needs --protocol icmp or icmpv6")),
        _ => Err(Failure::usage(format!("--icmp {text}: not TYPE/CODE")).hint("such as 8/0")),
    }
}

fn code(verdict: Verdict) -> Code {
    match verdict {
        Verdict::Allowed => Code::Ok,
        Verdict::Denied => Code::Finding,
        Verdict::Undecided => Code::Undecided,
    }
}

fn show(args: &Args, explanation: &Explanation, style: Style) -> Outcome {
    let out = &mut std::io::stdout().lock();
    match args.output {
        Format::Json => json(out, explanation)?,
        Format::Table => write!(out, "{}", render(explanation, args.all, style))?,
    }
    Ok(code(explanation.outcome.verdict))
}

/// The request is refused for its form, if the flow is inspected at all.
fn show_refused(
    args: &Args,
    endpoint: &EndpointPolicy,
    query: &FlowQuery,
    refusal: &Refusal,
    style: Style,
) -> Outcome {
    let mut explanation = endpoint.explain(query, None);
    if explanation.outcome.verdict == Verdict::Undecided {
        explanation.outcome.verdict = Verdict::Denied;
        explanation.outcome.reason = refusal.reason;
        explanation.outcome.missing.clear();
        explanation.outcome.detail =
            format!("no policy can allow such a request: {}", refusal.detail);
    }
    show(args, &explanation, style)
}

fn render(explanation: &Explanation, all: bool, style: Style) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", question(explanation));
    for step in &explanation.steps {
        let mark = match (step.matched, step.audit) {
            (true, false) => "=>",
            (true, true) => "~>",
            (false, _) => "  ",
        };
        let tier = step
            .tier
            .as_ref()
            .map_or(String::new(), |tier| format!(" tier {tier}"));
        let priority = step
            .priority
            .map_or(String::new(), |p| format!(" priority {p}"));
        let rule = step
            .rule
            .as_ref()
            .map_or(String::new(), |rule| format!(" rule {rule}"));
        let action = step
            .action
            .map_or(String::new(), |action| format!(" {}", action.as_str()));
        let _ = writeln!(
            text,
            "{mark} {}{tier}{priority} {}{rule}{action}: {}",
            step.stage, step.policy, step.why
        );
    }
    if explanation.steps.is_empty() {
        let _ = writeln!(text, "   no rule of any policy is asked");
    }
    if all && !explanation.not_selecting.is_empty() {
        let names: Vec<&str> = explanation
            .not_selecting
            .iter()
            .map(|name| &**name)
            .collect();
        let _ = writeln!(
            text,
            "   not for this endpoint and direction: {}",
            names.join(", ")
        );
    }
    let outcome = &explanation.outcome;
    let word = outcome.verdict.to_string();
    let word = match outcome.verdict {
        Verdict::Allowed => style.good(&word),
        Verdict::Denied => style.bad(&word),
        Verdict::Undecided => style.odd(&word),
    };
    let policy = outcome
        .policy
        .as_ref()
        .map_or(String::new(), |name| format!(" by {name}"));
    let rule = outcome
        .rule
        .as_ref()
        .map_or(String::new(), |name| format!(" rule {name}"));
    let how = outcome
        .how
        .map_or(String::new(), |how| format!(" ({how:?})").to_lowercase());
    let _ = writeln!(
        text,
        "{word}{policy}{rule}: {}: {}{how}",
        outcome.reason, outcome.detail
    );
    if let Some(audit) = &explanation.audit {
        let policy = audit.policy.as_deref().unwrap_or_default();
        let rule = audit.rule.as_deref().unwrap_or_default();
        let _ = writeln!(
            text,
            "under audit, not enforced: {} by {policy} rule {rule}: {}: {}",
            audit.verdict, audit.reason, audit.detail
        );
    }
    if !outcome.missing.is_empty() {
        let _ = writeln!(text, "give {}", what_to_give(&outcome.missing));
    }
    text
}

/// The options that would say what is missing: one of the first, or all of the others.
fn what_to_give(missing: &[Missing]) -> String {
    let options: Vec<_> = missing.iter().map(option).collect();
    let any_of = |m: &Missing| matches!(m, Missing::Request | Missing::Hello);
    match missing.iter().all(any_of) {
        true => options.join(", or "),
        false => options.join(" and "),
    }
}

fn option(missing: &Missing) -> String {
    match missing {
        Missing::Request => "--http 'METHOD host/path' or --grpc SERVICE/METHOD".to_owned(),
        Missing::Hello => "--sni NAME".to_owned(),
        Missing::Host => "the host: --grpc HOST/SERVICE/METHOD".to_owned(),
        Missing::Header(name) => {
            format!("--header '{name}: value' ('{name}:' if there is none)")
        }
        Missing::ServerName => "--sni NAME ('' if there is none)".to_owned(),
        Missing::Alpn => "--alpn PROTOCOL (for each; '' if there is none)".to_owned(),
        Missing::TlsVersion => "--tls-version VERSION".to_owned(),
    }
}

fn question(explanation: &Explanation) -> String {
    let protocol = tollgate_agent::record::protocol_name(explanation.protocol);
    let (own, other) = (explanation.local, explanation.remote);
    let name = printable(&explanation.endpoint);
    let port = explanation.destination_port;
    let to = |address: IpAddr| match port {
        0 => address.to_string(),
        port => SocketAddr::new(address, port).to_string(),
    };
    match explanation.side {
        Side::Egress => format!("{name} ({own}) -> {} {protocol}, egress", to(other)),
        Side::Ingress => format!("{other} -> {name} ({}) {protocol}, ingress", to(own)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_and_icmp() {
        assert_eq!(protocol("TCP").unwrap(), (6, true));
        assert_eq!(protocol("47").unwrap(), (47, false));
        assert!(protocol("gre").is_err());
        assert_eq!(icmp(None, 58).unwrap(), Some((128, 0)));
        assert_eq!(icmp(Some("3/1"), 1).unwrap(), Some((3, 1)));
        assert_eq!(icmp(Some("3"), 1).unwrap(), Some((3, 0)));
        assert!(icmp(Some("3"), 6).is_err());
        assert!(icmp(Some("x"), 1).is_err());
    }
}
