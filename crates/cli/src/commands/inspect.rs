//! `tollgate inspect`

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};
use tollgate_agent::record::{Names, Record, RecordKind, Recorder, Stamped, What, rfc3339};
use tollgate_agent::sources;
use tollgate_engine::FlowSummary;
use tollgate_engine::event::{Event, EventKind, VerdictWord};
use tollgate_engine::key::FlowKey;
use tollgate_inspect::capture::{CaptureError, Reader};
use tollgate_inspect::write::PcapngWriter;
use tollgate_inspect::{Replay, Report, Setup, Sink};
use tollgate_l7::dns::Answer;
use tollgate_l7::refusal::{QUIC_FIXED_BIT, QUIC_MALFORMED, QUIC_UNKNOWN_VERSION, Refusal};
use tollgate_wire::tag::EndpointId;

use crate::commands::lint::unreadable;
use crate::exit::{Code, Failure, Outcome};
use crate::line::{asked, peer};
use crate::output::{Format, Style, bytes, or_dash, printable, table};

/// What is said of a flow or request that was read, where nothing judges.
const READ: &str = "READ";
/// What is said of one that could not be read.
const UNREAD: &str = "UNREAD";
/// Reason in the `closed` record of a flow that the capture does not see the end of.
const CAPTURE_END: &str = "capture-end";

/// Show what a capture contains, and what a policy would say to it. Neither an agent nor privileges
/// are needed.
///
/// The capture runs through the engine that governs live traffic. Without --policy it is only
/// read: READ is what the engine could read, UNREAD what a rule with l7Protocols would refuse for
/// its form. Exit code 2: the file cannot be read, or not to its end; what was read is shown.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Capture: pcap or pcapng
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Judge by the policy in this directory
    #[arg(long, value_name = "DIR")]
    policy: Option<PathBuf>,
    /// Address of an endpoint; several times for several [default: the policy's Endpoint objects;
    /// without a policy, who opens a flow]
    #[arg(long = "endpoint", value_name = "ADDRESS")]
    endpoints: Vec<IpAddr>,
    /// Keep what follows the ? of a request target
    #[arg(long)]
    query_strings: bool,
    /// Write what the policy lets through, and what the engine answers, as pcapng
    #[arg(long, value_name = "FILE", requires = "policy")]
    write: Option<PathBuf>,
    /// Shape of the result; json gives a line for each event
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Reads, and shows what was read.
pub fn run(args: &Args, style: Style) -> Outcome {
    let setup = setup(args)?;
    let bad = |error: &CaptureError| Failure::usage(format!("{}: {error}", args.file.display()));
    let file = File::open(&args.file)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", args.file.display())))?;
    let mut reader = Reader::new(file).map_err(|error| bad(&error))?;
    let mut show = Show::new(args, &setup, style)?;
    let mut replay = Replay::new(setup);
    let end = loop {
        match reader.next_packet() {
            Ok(Some(packet)) => replay.packet(&packet, &mut show),
            Ok(None) => break Ok(Code::Ok),
            Err(error) => break Err(bad(&error)),
        }
        show.check()?;
    };
    let time = replay.time();
    let (report, open) = replay.finish(&mut show);
    show.finish(time, &open)?;
    warn(&args.file, &report);
    end
}

fn setup(args: &Args) -> Result<Setup, Failure> {
    let Some(dir) = &args.policy else {
        return Setup::reading(&args.endpoints).map_err(|error| Failure::new(Code::Failed, error));
    };
    let loaded = sources::load(dir, &[]).map_err(|error| match &error {
        sources::LoadError::Invalid(_) => Failure::usage(error.lines().join("\n")),
        _ => unreadable(error),
    })?;
    Setup::by_policy(&loaded.set, &args.endpoints)
        .map_err(|error| Failure::usage(format!("{}: {error}", dir.display())))
}

/// Says on standard error what the engine did not see, or had to leave aside.
fn warn(file: &Path, report: &Report) {
    let engine = &report.engine;
    for (count, what) in [
        (
            report.cut,
            "skipped: the capture has only their beginning (snap length)",
        ),
        (report.unknown_link, "skipped: their link type is not known"),
        (report.malformed, "skipped: their headers are malformed"),
        (report.too_many_flows, "skipped: too many flows at a time"),
        (
            report.not_governed,
            "without verdict: neither side is an endpoint",
        ),
        (
            report.tagged_twice,
            "with more than one VLAN tag; all were taken off",
        ),
        (
            report.out_of_order,
            "earlier than a packet before them; taken for as late",
        ),
        (
            engine.unknown_flow,
            "of connections whose beginning the capture does not have",
        ),
        (
            engine.before_handshake,
            "dropped: the capture has no SYN-ACK before them",
        ),
        (engine.held_full, "dropped: too much is missing before them"),
        (
            engine.fragment_refused,
            "dropped: fragments of TCP cannot be read",
        ),
        (
            engine.fragment_unknown,
            "dropped: their first fragment is missing",
        ),
        (engine.flow_table_full, "dropped: too many flows at a time"),
    ] {
        if count > 0 {
            let (file, packets) = (file.display(), report.packets);
            eprintln!("warning: {file}: {count} of {packets} packet(s) {what}");
        }
    }
}

/// Shows events as they fall (JSON), or together at the end (tables).
struct Show {
    format: Format,
    style: Style,
    judged: bool,
    recorder: Recorder,
    names: Names,
    rows: Vec<[String; 8]>,
    flows: Vec<Record>,
    answers: Vec<[String; 5]>,
    writer: Option<PcapngWriter<BufWriter<File>>>,
    /// The first thing that went wrong.
    failure: Option<Failure>,
}

/// A line where nothing was judged: a [`Record`] with another word in it.
#[derive(Serialize)]
struct ReadLine {
    time: String,
    event: RecordKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Sink for Show {
    fn event(&mut self, time: Duration, event: Event) {
        let shown = self.show(time, event, None);
        self.note(shown);
    }

    fn answer(&mut self, time: Duration, to: IpAddr, resolver: IpAddr, answer: Answer) {
        let line = AnswerLine::new(time, to, resolver, answer, &self.recorder.node);
        match self.format {
            Format::Json => {
                let shown = self.line(&line);
                self.note(shown);
            }
            Format::Table => self.answers.push(line.row()),
        }
    }

    fn frame(&mut self, time: Duration, ethernet: &[u8]) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let written = writer.frame(time, ethernet);
        self.note(written.map_err(|error| writing(&error)));
    }
}

fn writing(error: &std::io::Error) -> Failure {
    Failure::new(Code::Failed, format!("writing the capture: {error}"))
}

impl Show {
    fn new(args: &Args, setup: &Setup, style: Style) -> Result<Self, Failure> {
        let mut names = Names::default();
        for (id, endpoint) in setup.endpoints() {
            names.insert(*id, endpoint.name(), endpoint.addresses());
        }
        let name = args.file.file_name().unwrap_or_default();
        let create = |out: &PathBuf| create(out, &args.file);
        let writer = args.write.as_ref().map(create).transpose()?;
        Ok(Self {
            format: args.output,
            style,
            judged: args.policy.is_some(),
            recorder: Recorder {
                node: name.to_string_lossy().into(),
                keep_queries: args.query_strings,
            },
            names,
            rows: Vec::new(),
            flows: Vec::new(),
            answers: Vec::new(),
            writer,
            failure: None,
        })
    }

    fn note(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.failure.get_or_insert(failure);
        }
    }

    /// The first thing that went wrong, if anything did.
    fn check(&mut self) -> Result<(), Failure> {
        self.failure.take().map_or(Ok(()), Err)
    }

    fn show(&mut self, time: Duration, event: Event, reason: Option<&str>) -> Result<(), Failure> {
        let flow = event.flow_id.to_string();
        let stamped = Stamped {
            time: timestamp(time),
            what: What::Flow { worker: 0, event },
        };
        let mut record = self.recorder.record(&stamped, &self.names);
        record.flow = Some(flow);
        if let Some(reason) = reason {
            record.reason = Some(reason.to_owned());
        }
        match (self.format, record.event) {
            (Format::Json, _) => self.json(record),
            (Format::Table, RecordKind::Closed) => {
                self.flows.push(record);
                Ok(())
            }
            (Format::Table, _) => {
                let row = self.row(&record);
                self.rows.push(row);
                Ok(())
            }
        }
    }

    fn json(&self, record: Record) -> Result<(), Failure> {
        match self.judged {
            true => self.line(&record),
            false => self.line(&read_line(record)?),
        }
    }

    fn line(&self, line: &impl Serialize) -> Result<(), Failure> {
        let out = &mut std::io::stdout().lock();
        serde_json::to_writer(&mut *out, line)?;
        Ok(writeln!(out)?)
    }

    fn row(&self, record: &Record) -> [String; 8] {
        let what = match &record.l7 {
            Some(facts) => asked(facts),
            None => "-".to_owned(),
        };
        [
            record.time.clone(),
            or_dash(record.flow.as_deref()),
            or_dash(record.protocol.as_deref()),
            peer(&record.source),
            peer(&record.destination),
            self.word(record),
            self.why(record),
            what,
        ]
    }

    fn word(&self, record: &Record) -> String {
        match (self.judged, read_word(record)) {
            (true, _) => record
                .verdict
                .map_or_else(|| "-".to_owned(), |word| self.style.verdict(word)),
            (false, Some(READ)) => self.style.good(READ),
            (false, word) => word.map_or_else(|| "-".to_owned(), |word| self.style.odd(word)),
        }
    }

    /// Policy and rule, if they decided, else the reason.
    fn why(&self, record: &Record) -> String {
        let rule = match (&record.policy, &record.rule) {
            (Some(policy), Some(rule)) if self.judged => Some(format!("{policy}:{rule}")),
            (Some(policy), None) if self.judged => Some(policy.to_string()),
            _ => None,
        };
        let reason = record.reason.as_deref().filter(|reason| {
            // A rule that decided is named, and without a policy there is none.
            *reason != "rule" && (self.judged || read_word(record) == Some(UNREAD))
        });
        let parts: Vec<_> = [rule.as_deref(), reason].into_iter().flatten().collect();
        match parts.is_empty() {
            true => "-".to_owned(),
            false => printable(&parts.join(" ")),
        }
    }

    /// Shows the flows that the capture leaves open, and the tables.
    fn finish(mut self, time: Duration, open: &[FlowSummary]) -> Result<(), Failure> {
        self.check()?;
        for flow in open {
            if let Some(event) = closed(flow) {
                self.show(time, event, Some(CAPTURE_END))?;
            }
        }
        if let Some(writer) = self.writer.take() {
            writer.finish().map_err(|error| writing(&error))?;
        }
        if matches!(self.format, Format::Table) {
            self.tables()?;
        }
        Ok(())
    }

    fn tables(mut self) -> Result<(), Failure> {
        let out = &mut std::io::stdout().lock();
        let word = if self.judged { "VERDICT" } else { "READ" };
        let header = [
            "TIME",
            "FLOW",
            "PROTOCOL",
            "SOURCE",
            "DESTINATION",
            word,
            "BY",
            "ASKED",
        ];
        writeln!(out, "{}", table(header, std::mem::take(&mut self.rows)))?;
        self.flows.sort_by_key(|flow| {
            let number = flow.flow.as_deref().and_then(|id| id.parse::<u64>().ok());
            number.unwrap_or_default()
        });
        let header = [
            "FLOW",
            "PROTOCOL",
            "SOURCE",
            "DESTINATION",
            "STATE",
            "OUT",
            "IN",
            "PACKETS",
        ];
        let rows = self.flows.iter().map(flow_row);
        writeln!(out, "\n{}", table(header, rows))?;
        if self.answers.is_empty() {
            return Ok(());
        }
        let header = ["TIME", "TOLD TO", "BY", "NAME", "ADDRESSES"];
        Ok(writeln!(out, "\n{}", table(header, self.answers))?)
    }
}

fn create(path: &Path, input: &Path) -> Result<PcapngWriter<BufWriter<File>>, Failure> {
    // Creating it would empty what is about to be read.
    if let (Ok(path), Ok(input)) = (path.canonicalize(), input.canonicalize())
        && path == input
    {
        let path = path.display();
        return Err(Failure::usage(format!(
            "--write {path}: this is the capture itself"
        )));
    }
    let file = File::create(path)
        .map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))?;
    PcapngWriter::new(BufWriter::new(file)).map_err(|error| writing(&error))
}

/// Within what a time can be: the reader of captures has bounded it.
fn timestamp(time: Duration) -> Timestamp {
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    Timestamp::from_duration(time).unwrap_or(Timestamp::MAX)
}

fn flow_row(record: &Record) -> [String; 8] {
    let state = match record.reason.as_deref() {
        Some(CAPTURE_END) => "open",
        _ => "closed",
    };
    let traffic = record.traffic;
    let count = |bytes_of: fn(&tollgate_agent::record::Traffic) -> u64| {
        or_dash(traffic.as_ref().map(|t| bytes(bytes_of(t))))
    };
    [
        or_dash(record.flow.as_deref()),
        or_dash(record.protocol.as_deref()),
        peer(&record.source),
        peer(&record.destination),
        state.to_owned(),
        count(|t| t.bytes_out),
        count(|t| t.bytes_in),
        or_dash(traffic.map(|t| t.packets_out + t.packets_in)),
    ]
}

/// Reasons why the first datagram of a flow cannot be read that mean that it is not QUIC, as far as
/// can be told.
const NOT_QUIC: [Refusal; 3] = [QUIC_FIXED_BIT, QUIC_UNKNOWN_VERSION, QUIC_MALFORMED];

/// The word for what was read without a policy; nothing for what has nothing to be read.
fn read_word(record: &Record) -> Option<&'static str> {
    let is_reason = |not: &Refusal| record.reason.as_deref() == Some(not.reason);
    match (record.verdict?, &record.l7) {
        (VerdictWord::Denied, None) if NOT_QUIC.iter().any(is_reason) => None,
        (VerdictWord::Denied, _) => Some(UNREAD),
        (_, Some(_)) => Some(READ),
        (_, None) => None,
    }
}

/// A DNS answer: what an endpoint was told about a name.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AnswerLine {
    time: String,
    event: &'static str,
    node: String,
    told_to: IpAddr,
    resolver: IpAddr,
    name: String,
    addresses: Vec<Told>,
}

/// An address of a name, and for how long it may be used.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    address: IpAddr,
    ttl_seconds: u32,
}

impl AnswerLine {
    fn new(time: Duration, to: IpAddr, resolver: IpAddr, answer: Answer, node: &str) -> Self {
        let told = |(address, ttl_seconds)| Told {
            address,
            ttl_seconds,
        };
        Self {
            time: rfc3339(timestamp(time)),
            event: "answer",
            node: node.to_owned(),
            told_to: to,
            resolver,
            name: answer.question.name,
            addresses: answer.addresses.into_iter().map(told).collect(),
        }
    }

    fn row(self) -> [String; 5] {
        let told = |told: &Told| format!("{} ({} s)", told.address, told.ttl_seconds);
        let addresses: Vec<_> = self.addresses.iter().map(told).collect();
        [
            self.time,
            self.told_to.to_string(),
            self.resolver.to_string(),
            printable(&self.name),
            match addresses.is_empty() {
                true => "-".to_owned(),
                false => addresses.join(", "),
            },
        ]
    }
}

/// A record without what the built-in policy says: it is nobody's policy.
fn read_line(record: Record) -> Result<ReadLine, Failure> {
    let verdict = read_word(&record);
    let keeps_reason = verdict == Some(UNREAD) || record.event == RecordKind::Closed;
    let line = ReadLine {
        time: record.time.clone(),
        event: record.event,
        verdict,
        rest: Map::new(),
    };
    let bare = Record {
        verdict: None,
        endpoint: None,
        namespace: None,
        policy: None,
        rule: None,
        reason: record.reason.filter(|_| keeps_reason),
        ..record
    };
    let rest = match serde_json::to_value(&bare)? {
        Value::Object(mut fields) => {
            fields.retain(|name, _| name != "time" && name != "event");
            fields
        }
        _ => Map::new(),
    };
    Ok(ReadLine { rest, ..line })
}

/// The end of a flow that the capture does not have.
fn closed(flow: &FlowSummary) -> Option<Event> {
    let [packets_out, packets_in] = flow.packets;
    let [bytes_out, bytes_in] = flow.bytes;
    Some(Event {
        flow_id: flow.id,
        key: FlowKey {
            endpoint: EndpointId::new(flow.endpoint)?,
            protocol: flow.protocol,
            local: flow.local.ip(),
            local_port: flow.local.port(),
            remote: flow.remote.ip(),
            remote_port: flow.remote.port(),
        },
        side: flow.side,
        kind: EventKind::Closed {
            bytes_out,
            bytes_in,
            packets_out,
            packets_in,
        },
    })
}
