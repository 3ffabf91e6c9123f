//! `tollgate observe`

use std::io::Write;

use jiff::{SignedDuration, Timestamp};
use tollgate_agent::api::{self, ObserveQuery};
use tollgate_agent::filter::Filter;
use tollgate_agent::record::{Record, rfc3339};

use crate::client::{AgentArgs, Client};
use crate::exit::{Code, Failure, Outcome};
use crate::line::compact;
use crate::output::{StreamFormat, Style};

/// Which events or flows.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FilterArgs {
    /// Governed endpoint: `namespace/name`, or `namespace/` for all of a namespace
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// ALLOWED, DENIED, AUDITED or BYPASSED
    #[arg(long, value_name = "WORD", value_parser = ["ALLOWED", "DENIED", "AUDITED", "BYPASSED"])]
    #[arg(ignore_case = true)]
    verdict: Option<String>,
    /// http, http2, grpc, tls, quic, or a transport protocol: tcp, udp, icmp, ...
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    /// Destination: address, port, address:port, host or server name, or endpoint
    #[arg(long, value_name = "WHAT")]
    to: Option<String>,
    /// Source: address, port, address:port or endpoint
    #[arg(long, value_name = "WHAT")]
    from: Option<String>,
    /// Policy that decided: its full name, or the last part of it
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
}

impl FilterArgs {
    /// As a request carries it; `None`: everything.
    pub fn query(self) -> Result<Option<String>, Failure> {
        let filter = Filter {
            endpoint: self.endpoint,
            verdict: self.verdict,
            protocol: self.protocol,
            to: self.to,
            from: self.from,
            policy: self.policy,
        };
        match filter == Filter::default() {
            true => Ok(None),
            false => Ok(Some(serde_json::to_string(&filter)?)),
        }
    }
}

/// Show verdicts, a line each: the recent ones, with --follow also those to come.
///
/// Without an observer or a log that wants them, the agent reports only what is refused and what a
/// rule with enableLogging allows; while --follow runs, it reports everything.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    agent: AgentArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Go on with new events until interrupted
    #[arg(short, long)]
    follow: bool,
    /// At most so many of the recent events [default: 20 with --follow, else all]
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Not older than: a duration such as 5m, or an RFC 3339 time
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Shape of a line
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: StreamFormat,
}

/// Recent events shown before new ones, so that the beginning is not a flood.
const LAST_BEFORE_FOLLOW: usize = 20;

/// Asks and shows.
pub async fn run(args: Args, style: Style) -> Outcome {
    let since = args
        .since
        .as_deref()
        .map(|text| since(text, Timestamp::now()))
        .transpose()?;
    let query = ObserveQuery {
        follow: args.follow,
        last: match (args.last, args.follow, &since) {
            (None, true, None) => Some(LAST_BEFORE_FOLLOW),
            (last, ..) => last,
        },
        since: since.map(rfc3339),
        filter: args.filter.query()?,
    };
    let client = Client::new(&args.agent);
    let format = args.output;
    client
        .lines(api::OBSERVE, &query, |line| show(line, format, style))
        .await?;
    Ok(Code::Ok)
}

fn show(line: &[u8], format: StreamFormat, style: Style) -> Result<(), Failure> {
    let out = &mut std::io::stdout().lock();
    let text = match format {
        StreamFormat::Json => line.to_vec(),
        StreamFormat::Compact => match serde_json::from_slice::<Record>(line) {
            Ok(record) => compact(&record, style).into_bytes(),
            // From an agent of another version: better raw than not.
            Err(_) => line.to_vec(),
        },
    };
    out.write_all(&text)?;
    out.write_all(b"\n")?;
    // Whoever waits for a line wants it now.
    Ok(out.flush()?)
}

fn since(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let bad = || {
        Failure::usage(format!(
            "--since {text}: neither a duration such as 30s, 5m or 2h nor a time"
        ))
        .hint("a time looks like 2026-11-23T10:00:00Z")
    };
    let ago = text.parse::<SignedDuration>().map_err(|_| bad())?;
    now.checked_sub(ago.abs()).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_durations_and_times() {
        let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("5m", "2026-11-23T09:55:00Z"),
            ("1h30m", "2026-11-23T08:30:00Z"),
            ("2026-11-23T01:02:03Z", "2026-11-23T01:02:03Z"),
        ] {
            assert_eq!(since(text, now).unwrap().to_string(), expected);
        }
        for text in ["", "5", "yesterday", "999999999999h"] {
            assert_eq!(since(text, now).unwrap_err().code(), Code::Usage, "{text}");
        }
    }

    #[test]
    fn no_filter_is_no_query() {
        assert_eq!(FilterArgs::default().query().unwrap(), None);
        let args = FilterArgs {
            to: Some("80".into()),
            ..FilterArgs::default()
        };
        assert_eq!(args.query().unwrap().as_deref(), Some(r#"{"to":"80"}"#));
    }
}
