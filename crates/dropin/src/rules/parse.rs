//! From text to rules.

use std::collections::HashMap;

use super::lex::{self, Keyword};
use super::{
    Action, Buffer, Condition, Content, FILE_BYTES_MAX, FlowBit, FlowOption, Problem, Protocol,
    Rule, RuleError,
};

/// Highest number of a VLAN (IEEE 802.1Q).
const VLAN_MAX: u16 = 4094;

/// Reads a rule file, all of it.
///
/// # Errors
/// The first rule that is not understood, with its line.
pub fn parse(file: &[u8]) -> Result<Vec<Rule>, RuleError> {
    let Parsed { rules, left_out } = parse_known(file)?;
    match left_out.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(rules),
    }
}

/// A rule file without the pass rules that are not understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The rules.
    pub rules: Vec<Rule>,
    /// What is wrong with each that is left out.
    pub left_out: Vec<RuleError>,
}

/// Reads a rule file; pass rules that are not understood are left out.
///
/// # Errors
/// The first other rule that is not understood, with its line.
pub fn parse_known(file: &[u8]) -> Result<Parsed, RuleError> {
    let whole_file = |problem| RuleError { line: 1, problem };
    if file.len() > FILE_BYTES_MAX {
        return Err(whole_file(Problem::TooLong));
    }
    let text = std::str::from_utf8(file).map_err(|_| whole_file(Problem::NotText))?;
    let mut lines_of_sids = HashMap::new();
    let mut parsed = Parsed::default();
    for (line, source) in lex::rules(text) {
        let read = rule(line, &source).and_then(|rule| {
            match lines_of_sids.insert((rule.gid, rule.sid), line) {
                Some(other) => Err(Problem::SameSid {
                    sid: rule.sid,
                    other,
                }),
                None => Ok(rule),
            }
        });
        match read.map_err(|problem| RuleError { line, problem }) {
            Ok(rule) => parsed.rules.push(rule),
            Err(error) if source.split_whitespace().next() == Some("pass") => {
                parsed.left_out.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(parsed)
}

fn rule(line: usize, source: &str) -> Result<Rule, Problem> {
    let (header, options) = lex::split(source)?;
    let (action, protocol, hook) = read_header(header)?;
    let mut draft = Draft {
        rule: Rule {
            line,
            action,
            protocol,
            msg: String::new(),
            sid: 0,
            gid: 1,
            rev: 0,
            flow: FlowOption::default(),
            vlan: None,
            flowbits: Vec::new(),
            noalert: false,
            contents: Vec::new(),
            conditions: hook.into_iter().collect(),
        },
        buffer: None,
    };
    for option in lex::options(options)? {
        draft.take(&option)?;
    }
    draft.finish()
}

fn read_header(header: &str) -> Result<(Action, Protocol, Option<Condition>), Problem> {
    let words: Vec<&str> = header.split_whitespace().collect();
    let [
        action,
        protocol,
        source,
        source_port,
        arrow,
        destination,
        port,
    ] = words[..]
    else {
        return Err(Problem::Header(header.to_owned()));
    };
    // `<>` is both directions; with `any` everywhere it is the same.
    if !matches!(arrow, "->" | "<>") {
        return Err(Problem::Header(header.to_owned()));
    }
    let places = [source, source_port, destination, port];
    if let Some(other) = places.into_iter().find(|place| *place != "any") {
        return Err(Problem::Address(other.to_owned()));
    }
    let action = match action {
        "pass" => Action::Pass,
        // A connection is always reset towards both sides here.
        "reject" | "rejectsrc" | "rejectboth" => Action::Reject,
        "drop" => Action::Drop,
        "alert" => Action::Alert,
        other => return Err(Problem::Action(other.to_owned())),
    };
    let (protocol, hook) = match protocol {
        "http1:request_headers" => ("http", Some(Condition::HeadComplete)),
        "tls:client_hello_done" => ("tls", Some(Condition::HeadComplete)),
        plain => (plain, None),
    };
    let protocol = match protocol {
        "ip" | "pkthdr" => Protocol::Ip,
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "http" | "http1" => Protocol::Http,
        "tls" => Protocol::Tls,
        other => return Err(Problem::Protocol(other.to_owned())),
    };
    Ok((action, protocol, hook))
}

/// A rule while its options are read.
struct Draft {
    rule: Rule,
    /// The sticky buffer that contents are looked for in from here on.
    buffer: Option<Buffer>,
}

impl Draft {
    fn take(&mut self, option: &Keyword<'_>) -> Result<(), Problem> {
        let rule = &mut self.rule;
        match (option.name, option.value) {
            ("msg", Some(value)) => rule.msg = message(value)?,
            ("sid", Some(value)) => rule.sid = number("sid", value)?,
            ("gid", Some(value)) => rule.gid = number("gid", value)?,
            ("rev", Some(value)) => rule.rev = number("rev", value)?,
            ("flow", Some(value)) => rule.flow = flow(value)?,
            ("vlan.id", Some(value)) => rule.vlan = Some(vlan(value)?),
            ("flowbits", Some("noalert")) | ("noalert", None) => rule.noalert = true,
            ("flowbits", Some(value)) => rule.flowbits.push(flowbit(value)?),
            ("http.uri", None) => self.buffer = Some(Buffer::HttpUri),
            ("http.method", None) => self.buffer = Some(Buffer::HttpMethod),
            ("http.host", None) => self.buffer = Some(Buffer::HttpHost),
            ("tls.sni", None) => self.buffer = Some(Buffer::TlsSni),
            ("content", Some(value)) => self.content(value)?,
            ("startswith", None) => self.last("startswith")?.startswith = true,
            ("endswith", None) => self.last("endswith")?.endswith = true,
            ("nocase", None) => self.last("nocase")?.nocase = true,
            ("app-layer-protocol", Some(value)) => {
                rule.conditions.push(app_layer_protocol(value)?);
            }
            ("flow.bytes_toserver", Some(value)) => {
                let bound = more_than("flow.bytes_toserver", value)?;
                rule.conditions.push(Condition::BytesToServer(bound));
            }
            ("flow.age", Some(value)) => {
                let bound = more_than("flow.age", value)?;
                rule.conditions.push(Condition::Age(bound));
            }
            // They say something to people, and nothing of what matches.
            ("metadata" | "reference" | "classtype" | "priority", Some(_)) => {}
            (other, _) => return Err(Problem::Option(other.to_owned())),
        }
        Ok(())
    }

    fn content(&mut self, value: &str) -> Result<(), Problem> {
        let buffer = self.buffer.ok_or(Problem::Order {
            option: "content",
            needs: "http.uri, http.method, http.host or tls.sni",
        })?;
        let wrong = |what| Problem::Value {
            option: "content",
            value: value.to_owned(),
            what,
        };
        if value.starts_with('!') {
            return Err(wrong("is negated, which is not known here"));
        }
        let mut bytes = lex::unescape(lex::unquote("content", value)?)?;
        // A host has no case; Suricata refuses the rule, and then everything is denied.
        if buffer == Buffer::HttpHost {
            bytes.make_ascii_lowercase();
        }
        self.rule.contents.push(Content {
            buffer,
            bytes,
            startswith: false,
            endswith: false,
            nocase: false,
        });
        Ok(())
    }

    /// The content that a modifier is about.
    fn last(&mut self, option: &'static str) -> Result<&mut Content, Problem> {
        self.rule.contents.last_mut().ok_or(Problem::Order {
            option,
            needs: "a content",
        })
    }

    fn finish(self) -> Result<Rule, Problem> {
        let rule = self.rule;
        if rule.sid == 0 {
            return Err(Problem::NoSid);
        }
        let stranger = rule
            .contents
            .iter()
            .find(|content| !fits(content.buffer, rule.protocol));
        match stranger {
            Some(content) => Err(Problem::OtherProtocol {
                keyword: content.buffer,
                protocol: rule.protocol,
            }),
            None => Ok(rule),
        }
    }
}

fn fits(buffer: Buffer, protocol: Protocol) -> bool {
    match buffer {
        Buffer::HttpUri | Buffer::HttpMethod | Buffer::HttpHost => protocol == Protocol::Http,
        Buffer::TlsSni => protocol == Protocol::Tls,
    }
}

/// A message is for people: escapes are undone where there are any, and nothing else is asked of it.
fn message(value: &str) -> Result<String, Problem> {
    let text = lex::unquote("msg", value)?;
    let mut message = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => message.extend(characters.next()),
            plain => message.push(plain),
        }
    }
    Ok(message)
}

fn number(option: &'static str, value: &str) -> Result<u32, Problem> {
    value.parse().map_err(|_| Problem::Value {
        option,
        value: value.to_owned(),
        what: "is no number",
    })
}

fn app_layer_protocol(value: &str) -> Result<Condition, Problem> {
    match value.trim() {
        "!http" => Ok(Condition::NotProtocol(Protocol::Http)),
        "!tls" => Ok(Condition::NotProtocol(Protocol::Tls)),
        "failed" => Ok(Condition::NoProtocol),
        _ => Err(Problem::Value {
            option: "app-layer-protocol",
            value: value.to_owned(),
            what: "is not known here; known are !http, !tls and failed",
        }),
    }
}

fn more_than(option: &'static str, value: &str) -> Result<u64, Problem> {
    let bound = value.trim().strip_prefix('>').map(str::trim);
    let bound = bound.and_then(|bound| bound.parse().ok());
    bound.ok_or_else(|| Problem::Value {
        option,
        value: value.to_owned(),
        what: "is not known here; known is >NUMBER",
    })
}

fn vlan(value: &str) -> Result<u16, Problem> {
    let wrong = |what| Problem::Value {
        option: "vlan.id",
        value: value.to_owned(),
        what,
    };
    // `N` or `N,LAYER`; only the outermost tag is looked at.
    let (id, layer) = value.split_once(',').unwrap_or((value, "0"));
    if layer.trim() != "0" {
        return Err(wrong("is about another tag than the outermost"));
    }
    match id.trim().parse() {
        Ok(id) if id <= VLAN_MAX => Ok(id),
        _ => Err(wrong("is no number of a VLAN")),
    }
}

fn flow(value: &str) -> Result<FlowOption, Problem> {
    let mut option = FlowOption::default();
    for word in value.split(',').map(str::trim) {
        match word {
            "to_server" | "from_client" => option.to_server = true,
            "to_client" | "from_server" => option.to_client = true,
            "established" => option.established = true,
            _ => {
                return Err(Problem::Value {
                    option: "flow",
                    value: word.to_owned(),
                    what: "is not known here",
                });
            }
        }
    }
    if option.to_server && option.to_client {
        return Err(Problem::Value {
            option: "flow",
            value: value.to_owned(),
            what: "is both directions",
        });
    }
    Ok(option)
}

fn flowbit(value: &str) -> Result<FlowBit, Problem> {
    let wrong = |what| Problem::Value {
        option: "flowbits",
        value: value.to_owned(),
        what,
    };
    let (what, name) = value.split_once(',').ok_or_else(|| wrong("names no bit"))?;
    let name = name.trim();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(wrong("names no bit"));
    }
    match what.trim() {
        "set" => Ok(FlowBit::Set(name.to_owned())),
        "isset" => Ok(FlowBit::IsSet(name.to_owned())),
        "isnotset" => Ok(FlowBit::IsNotSet(name.to_owned())),
        _ => Err(wrong("does something that is not known here")),
    }
}
