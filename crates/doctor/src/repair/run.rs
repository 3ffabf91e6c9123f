//! Carrying out and taking back.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::repair::journal::{Entry, FILE, Journal, Step};
use crate::repair::links::{self, State, Xdp};
use crate::repair::namespace::{Mark, OWN, within};
use crate::repair::ovs::{self, Ovs};
use crate::repair::{RepairError, command_line, features, mss, sysctl, xdp};

/// What something was before it was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Before {
    /// Every feature that can be switched.
    Features(Vec<features::Was>),
    /// Every interface of the namespace: others follow an MTU.
    Links(Vec<State>),
    /// Sizes of super-packets.
    Sizes(Vec<(String, u32)>),
    /// A setting.
    Sysctl(String),
    /// The interfaces whose connections were clamped.
    Clamped(Option<Vec<String>>),
    /// A column.
    Ovs(ovs::Before),
    /// A program in the driver.
    Xdp(Xdp),
}

/// What became of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Changed, or changed back.
    Done,
    /// It was so already; nothing was changed or recorded.
    Already,
    /// What it was about is gone, and its state with it.
    Gone,
    /// It could not be done.
    Failed,
}

/// An action that was to be carried out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Applied {
    /// As a person would type it.
    pub command: String,
    /// What became of it.
    pub word: Word,
    /// Why, where that needs saying.
    pub why: Option<String>,
}

/// An action that was to be taken back.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Undone {
    /// What had been done, as a person would type it.
    pub command: String,
    /// What became of taking it back.
    pub word: Word,
    /// Why, where that needs saying.
    pub why: Option<String>,
}

/// Carries out and takes back, with a record on disk.
pub struct Repairer {
    dir: PathBuf,
    ovs: Ovs,
    step: Box<dyn Fn(Step) + Send + Sync>,
}

impl Repairer {
    /// With the record in this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            ovs: Ovs::default(),
            step: Box::new(|_| ()),
        }
    }

    /// With another database of Open vSwitch, as `ovs-vsctl --db` names it.
    pub fn ovs_db(mut self, db: impl Into<String>) -> Self {
        self.ovs.db = Some(db.into());
        self
    }

    /// Calls this at every step.
    pub fn on_step(mut self, step: impl Fn(Step) + Send + Sync + 'static) -> Self {
        self.step = Box::new(step);
        self
    }

    /// Carries out actions in order. One that fails does not stop the others; the record failing
    /// does, because nothing may be changed without it.
    pub fn apply(&self, actions: &[Action]) -> Result<Vec<Applied>, RepairError> {
        let mut journal = Journal::open(&self.dir)?;
        let mut all = Vec::new();
        for action in actions {
            let result = self.apply_one(&mut journal, action);
            let (word, why) = match result {
                Ok(word) => (word, None),
                Err(error @ RepairError::Journal(_)) => return Err(error),
                Err(error) => (Word::Failed, Some(error.to_string())),
            };
            all.push(Applied {
                command: command_line(action),
                word,
                why,
            });
        }
        Ok(all)
    }

    fn apply_one(&self, journal: &mut Journal, action: &Action) -> Result<Word, RepairError> {
        if let Action::Ovs { .. } = action {
            return self.change_recorded(journal, action, None);
        }
        let path = action.netns().unwrap_or(Path::new(OWN));
        let mark = Mark::of(path)?;
        within(path, || self.change_recorded(journal, action, Some(mark)))
    }

    fn change_recorded(
        &self,
        journal: &mut Journal,
        action: &Action,
        netns: Option<Mark>,
    ) -> Result<Word, RepairError> {
        let before = self.read(action)?;
        if is_so(&before, action) {
            return Ok(Word::Already);
        }
        (self.step)(Step::Read);
        let ifindex = interface(action).map(links::index).transpose()?;
        let entry = Entry {
            number: journal.next(),
            boot: boot()?,
            netns,
            ifindex,
            action: action.clone(),
            before,
        };
        let recorded = journal.record(entry, &self.step);
        recorded.map_err(|error| RepairError::Journal(Box::new(error)))?;
        self.change(action)?;
        (self.step)(Step::Changed);
        Ok(Word::Done)
    }

    fn read(&self, action: &Action) -> Result<Before, RepairError> {
        Ok(match action {
            Action::Feature {
                ifname, feature, ..
            } => {
                links::index(ifname)?;
                let all = features::read(ifname)?;
                features::check(ifname, feature, &all)?;
                Before::Features(all)
            }
            Action::Mtu { ifname, mtu, .. } => {
                links::index(ifname)?;
                links::check_mtu(ifname, *mtu)?;
                Before::Links(links::all()?)
            }
            Action::Sizes { ifname, .. } => Before::Sizes(links::one(ifname)?.sizes),
            Action::Sysctl { key, .. } => match sysctl::read(key)? {
                Some(value) => Before::Sysctl(value),
                None => return Err(RepairError::Unfit(format!("there is no setting {key}"))),
            },
            Action::ClampMss { ifname, .. } => {
                mss::check(ifname)?;
                Before::Clamped(mss::read()?)
            }
            Action::Ovs {
                table,
                record,
                column,
                ..
            } => match self.ovs.read(table, record, column)? {
                Some(before) => Before::Ovs(before),
                None => {
                    let why = format!("Open vSwitch has no {record} in {table}");
                    return Err(RepairError::Unfit(why));
                }
            },
            Action::GenericXdp { ifname, .. } => match links::one(ifname)?.xdp {
                Some(program) => Before::Xdp(program),
                None => {
                    let why = format!("{ifname} has no XDP program");
                    return Err(RepairError::Unfit(why));
                }
            },
        })
    }

    fn change(&self, action: &Action) -> Result<(), RepairError> {
        match action {
            Action::Feature {
                ifname,
                feature,
                on,
                ..
            } => features::set(ifname, feature, *on),
            Action::Mtu { ifname, mtu, .. } => links::set_mtu(ifname, *mtu),
            Action::Sizes { ifname, sizes, .. } => links::set_sizes(ifname, sizes),
            Action::Sysctl { key, value, .. } => sysctl::write(key, value),
            Action::ClampMss { ifname, .. } => mss::add(ifname),
            Action::Ovs {
                table,
                record,
                column,
                value,
            } => self.ovs.set(table, record, column, value),
            Action::GenericXdp { ifname, .. } => xdp::to_generic(ifname, &self.step),
        }
    }

    /// Takes back everything that is recorded, the newest first. What fails stays in the record,
    /// and can be tried again.
    pub fn undo(&self) -> Result<Vec<Undone>, RepairError> {
        let mut journal = Journal::open(&self.dir)?;
        let boot = boot()?;
        let mut all = Vec::new();
        for entry in journal.entries().to_vec().into_iter().rev() {
            let result = self.undo_one(&entry, &boot);
            let (word, why) = match result {
                Ok(None) => (Word::Done, None),
                Ok(Some(gone)) => (Word::Gone, Some(gone)),
                Err(error) => (Word::Failed, Some(error.to_string())),
            };
            if word != Word::Failed {
                (self.step)(Step::Restored);
                journal.mark(entry.number, &self.step)?;
            }
            all.push(Undone {
                command: command_line(&entry.action),
                word,
                why,
            });
        }
        journal.finish(&self.step)?;
        Ok(all)
    }

    /// What is recorded and not taken back, oldest first.
    pub fn recorded(&self) -> Result<Vec<Action>, RepairError> {
        if !self.dir.join(FILE).exists() {
            return Ok(Vec::new());
        }
        let journal = Journal::open(&self.dir)?;
        let actions = journal.entries().iter();
        Ok(actions.map(|entry| entry.action.clone()).collect())
    }

    /// Says why there is nothing to take back, if so.
    fn undo_one(&self, entry: &Entry, boot: &str) -> Result<Option<String>, RepairError> {
        if let (
            Action::Ovs {
                table,
                record,
                column,
                ..
            },
            Before::Ovs(before),
        ) = (&entry.action, &entry.before)
        {
            let done = self.ovs.restore(table, record, column, before)?;
            let gone = || format!("{record} is gone from {table}, or was made anew");
            return Ok((!done).then(gone));
        }
        if entry.boot != boot {
            return Ok(Some("the machine was started anew since".to_owned()));
        }
        let Some(mark) = &entry.netns else {
            return Ok(Some("it names no network namespace".to_owned()));
        };
        let Some(path) = mark.find() else {
            let path = mark.path.display();
            return Ok(Some(format!("the network namespace {path} is gone")));
        };
        within(&path, || restore(entry))
    }
}

/// Takes one change back, in its namespace.
fn restore(entry: &Entry) -> Result<Option<String>, RepairError> {
    if let (Some(ifname), Some(was)) = (interface(&entry.action), entry.ifindex) {
        match links::index(ifname) {
            Ok(now) if now == was => {}
            Ok(_) => return Ok(Some(format!("{ifname} was made anew since"))),
            Err(RepairError::NoInterface(_)) => return Ok(Some(format!("{ifname} is gone"))),
            Err(error) => return Err(error),
        }
    }
    match (&entry.action, &entry.before) {
        (Action::Feature { ifname, .. }, Before::Features(before)) => {
            features::restore(ifname, before)?;
        }
        (Action::Mtu { ifname, mtu, .. }, Before::Links(before)) => {
            links::restore_mtu(ifname, *mtu, before)?;
        }
        (Action::Sizes { ifname, .. }, Before::Sizes(before)) => {
            links::restore_sizes(ifname, before)?;
        }
        (Action::Sysctl { key, .. }, Before::Sysctl(before)) => match sysctl::read(key)? {
            None => return Ok(Some(format!("there is no setting {key} any more"))),
            Some(now) if sysctl::same(&now, before) => {}
            Some(_) => sysctl::write(key, before)?,
        },
        (Action::ClampMss { .. }, Before::Clamped(before)) => mss::restore(before.as_deref())?,
        (Action::GenericXdp { ifname, .. }, Before::Xdp(before)) => {
            if !xdp::restore(ifname, before)? {
                return Ok(Some(format!("program {} is gone", before.id)));
            }
        }
        _ => {
            return Err(RepairError::Unfit(
                "the record's entry says one thing of what was done and another of what was".into(),
            ));
        }
    }
    Ok(None)
}

/// The interface that an action cannot do without. The clamp is a rule that outlives its interface.
fn interface(action: &Action) -> Option<&str> {
    match action {
        Action::Feature { ifname, .. }
        | Action::Mtu { ifname, .. }
        | Action::Sizes { ifname, .. }
        | Action::GenericXdp { ifname, .. } => Some(ifname),
        Action::Sysctl { .. } | Action::ClampMss { .. } | Action::Ovs { .. } => None,
    }
}

/// Is it already as the action would make it?
fn is_so(before: &Before, action: &Action) -> bool {
    match (action, before) {
        (Action::Feature { feature, on, .. }, Before::Features(now)) => {
            features::is(now, feature, *on)
        }
        (Action::Mtu { ifname, mtu, .. }, Before::Links(now)) => now
            .iter()
            .any(|link| link.name == *ifname && link.mtu == *mtu),
        (Action::Sizes { sizes, .. }, Before::Sizes(now)) => {
            sizes.iter().all(|size| now.contains(size))
        }
        (Action::Sysctl { value, .. }, Before::Sysctl(now)) => sysctl::same(now, value),
        (Action::ClampMss { ifname, .. }, Before::Clamped(Some(now))) => now.contains(ifname),
        (Action::Ovs { value, .. }, Before::Ovs(now)) => now.is(value),
        (Action::GenericXdp { .. }, Before::Xdp(now)) => now.generic,
        _ => false,
    }
}

/// Names this start of the machine.
fn boot() -> Result<String, RepairError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).map_err(RepairError::file("reading", path))?;
    Ok(text.trim().to_owned())
}
