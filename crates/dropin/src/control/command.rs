//! The commands, as objects and as people type them.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

/// What a client may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The names of all commands.
    CommandList,
    /// The version.
    Version,
    /// Seconds since the start.
    Uptime,
    /// How it runs; here always `workers`.
    RunningMode,
    /// How packets come in; here always `AF_PACKET_DEV`.
    CaptureMode,
    /// The interfaces.
    IfaceList,
    /// Counters of an interface.
    IfaceStat(String),
    /// All counters.
    DumpCounters,
    /// Read the rule files again.
    ReloadRules,
    /// How many rules there are.
    RulesetStats,
    /// A tenant comes.
    RegisterTenant(Tenant),
    /// Its rules are read again.
    ReloadTenant(Tenant),
    /// Those of all tenants are.
    ReloadTenants,
    /// A tenant goes.
    UnregisterTenant(u32),
    /// A VLAN is judged by a tenant.
    RegisterTenantHandler(Handler),
    /// It is no more.
    UnregisterTenantHandler(Handler),
    /// Ends the daemon.
    Shutdown,
}

/// A tenant and its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its number.
    pub id: u32,
    /// Its configuration; `reload-tenant` may leave it out, which means the one that is known.
    pub filename: Option<PathBuf>,
}

/// Which VLAN is whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handler {
    /// The tenant.
    pub id: u32,
    /// The VLAN.
    pub vlan: u16,
}

/// An argument of a command.
struct Argument {
    name: &'static str,
    number: bool,
    optional: bool,
}

const fn text(name: &'static str) -> Argument {
    Argument {
        name,
        number: false,
        optional: false,
    }
}

const fn number(name: &'static str) -> Argument {
    Argument {
        name,
        number: true,
        optional: false,
    }
}

const fn optional(argument: Argument) -> Argument {
    Argument {
        optional: true,
        ..argument
    }
}

/// Every command with its arguments, in the order that they are typed in.
const COMMANDS: [(&str, &[Argument]); 20] = [
    ("command-list", &[]),
    ("version", &[]),
    ("uptime", &[]),
    ("running-mode", &[]),
    ("capture-mode", &[]),
    ("iface-list", &[]),
    ("iface-stat", &[text("iface")]),
    ("dump-counters", &[]),
    ("reload-rules", &[]),
    ("ruleset-reload-rules", &[]),
    ("ruleset-reload-nonblocking", &[]),
    ("ruleset-stats", &[]),
    ("register-tenant", &[number("id"), text("filename")]),
    ("reload-tenant", &[number("id"), optional(text("filename"))]),
    ("reload-tenants", &[]),
    ("unregister-tenant", &[number("id")]),
    (
        "register-tenant-handler",
        &[number("id"), text("htype"), optional(number("hargs"))],
    ),
    (
        "unregister-tenant-handler",
        &[number("id"), text("htype"), optional(number("hargs"))],
    ),
    ("shutdown", &[]),
    ("help", &[]),
];

/// The names of all commands.
pub fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|(name, _)| *name)
}

/// The object that asks for what somebody typed: a command and its arguments, apart by blanks.
///
/// # Errors
/// What is wrong with it, in words.
pub fn from_line(line: &str) -> Result<Value, String> {
    let mut words = line.split_whitespace();
    let name = words.next().ok_or("no command")?;
    let known = COMMANDS.iter().find(|(known, _)| *known == name);
    let (_, arguments) = known.ok_or_else(|| format!("unknown command {name}"))?;
    let mut values = Map::new();
    for argument in *arguments {
        let Some(word) = words.next() else {
            if argument.optional {
                break;
            }
            return Err(format!("{name}: missing argument {}", argument.name));
        };
        let value = if argument.number {
            let number: u32 = word
                .parse()
                .map_err(|_| format!("{name}: {} must be a number, not {word}", argument.name))?;
            json!(number)
        } else {
            json!(word)
        };
        values.insert(argument.name.to_owned(), value);
    }
    if let Some(surplus) = words.next() {
        return Err(format!("{name}: too many arguments at {surplus}"));
    }
    Ok(if values.is_empty() {
        json!({ "command": name })
    } else {
        json!({ "command": name, "arguments": values })
    })
}

impl Command {
    /// Reads a client's object.
    ///
    /// # Errors
    /// What is wrong with it, in words for the client.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let name = value.get("command").and_then(Value::as_str);
        let name = name.ok_or("no command in message")?;
        let arguments = Arguments(value.get("arguments"));
        Ok(match name {
            "command-list" | "help" => Self::CommandList,
            "version" => Self::Version,
            "uptime" => Self::Uptime,
            "running-mode" => Self::RunningMode,
            "capture-mode" => Self::CaptureMode,
            "iface-list" => Self::IfaceList,
            "iface-stat" => Self::IfaceStat(arguments.text("iface")?.to_owned()),
            "dump-counters" => Self::DumpCounters,
            "reload-rules" | "ruleset-reload-rules" | "ruleset-reload-nonblocking" => {
                Self::ReloadRules
            }
            "ruleset-stats" => Self::RulesetStats,
            "register-tenant" => Self::RegisterTenant(Tenant {
                id: arguments.number("id")?,
                filename: Some(arguments.text("filename")?.into()),
            }),
            "reload-tenant" => Self::ReloadTenant(Tenant {
                id: arguments.number("id")?,
                filename: arguments.text("filename").ok().map(PathBuf::from),
            }),
            "reload-tenants" => Self::ReloadTenants,
            "unregister-tenant" => Self::UnregisterTenant(arguments.number("id")?),
            "register-tenant-handler" => Self::RegisterTenantHandler(arguments.handler()?),
            "unregister-tenant-handler" => Self::UnregisterTenantHandler(arguments.handler()?),
            "shutdown" => Self::Shutdown,
            _ => return Err("Unknown command".to_owned()),
        })
    }
}

/// The arguments of a client's object.
struct Arguments<'a>(Option<&'a Value>);

impl<'a> Arguments<'a> {
    fn get(&self, name: &str) -> Result<&'a Value, String> {
        let value = self.0.and_then(|arguments| arguments.get(name));
        value.ok_or_else(|| format!("{name} is missing"))
    }

    fn text(&self, name: &str) -> Result<&'a str, String> {
        let text = self.get(name)?.as_str();
        text.ok_or_else(|| format!("{name} is not a string"))
    }

    fn number(&self, name: &str) -> Result<u32, String> {
        let number = self.get(name)?.as_u64().and_then(|n| n.try_into().ok());
        number.ok_or_else(|| format!("{name} is not an integer"))
    }

    fn handler(&self) -> Result<Handler, String> {
        let id = self.number("id")?;
        match self.text("htype")? {
            "vlan" => {}
            other => return Err(format!("selector {other} is not known here; known is vlan")),
        }
        let vlan = self.number("hargs")?;
        let vlan = u16::try_from(vlan).ok().filter(|vlan| *vlan < 4095);
        let vlan = vlan.ok_or("hargs is no number of a VLAN")?;
        Ok(Handler { id, vlan })
    }
}
