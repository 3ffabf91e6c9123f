//! Tells when a directory's content has changed: by an editor, an atomic rename, or the symlink
//! swap with which a ConfigMap is updated.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// A change is reported when nothing more has happened for this long: editors write a file in
/// several steps.
const QUIET: Duration = Duration::from_millis(50);

/// ... but after this long in any case, so that a busy directory is not ignored for ever.
const PATIENCE: Duration = Duration::from_millis(500);

/// Watches one directory, and the one above it for the case that it is replaced as a whole.
pub struct DirWatch {
    dir: PathBuf,
    watcher: RecommendedWatcher,
    changes: mpsc::Receiver<()>,
    /// A change was noticed; it is reported at this time at the latest.
    patience: Option<Instant>,
}

impl DirWatch {
    /// Starts to watch. The directory must exist.
    pub fn new(dir: &Path) -> Result<Self, notify::Error> {
        // A relative path may have no parent by name. Links are not resolved: what counts is
        // where the name leads now and later.
        let dir = &std::path::absolute(dir).map_err(notify::Error::io)?;
        // One place is enough: it says that something has changed, not what.
        let (sender, changes) = mpsc::channel(1);
        let watched = dir.to_owned();
        let parent = dir.parent().map(Path::to_owned);
        let mut watcher = notify::recommended_watcher(move |event| {
            if is_change(&event, &watched, parent.as_deref()) {
                // Full: a change is already noted.
                let _ = sender.try_send(());
            }
        })?;
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
        if let Some(parent) = dir.parent() {
            // Without it only the replacement of the whole directory goes unnoticed.
            if let Err(error) = watcher.watch(parent, RecursiveMode::NonRecursive) {
                tracing::warn!(path = %parent.display(), %error, "cannot watch for replacement");
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            watcher,
            changes,
            patience: None,
        })
    }

    /// Waits for the next change and for the quiet after it. Cancel-safe: a change that was noticed
    /// in a wait that was given up is reported by the next.
    pub async fn changed(&mut self) {
        let patience = match self.patience {
            Some(patience) => patience,
            None => {
                self.first().await;
                *self.patience.insert(Instant::now() + PATIENCE)
            }
        };
        self.settle(patience).await;
        self.patience = None;
        self.follow();
    }

    async fn first(&mut self) {
        if self.changes.recv().await.is_none() {
            // The watcher's thread is gone; SIGHUP still reloads.
            tracing::error!(path = %self.dir.display(), "the directory is no longer watched");
            std::future::pending::<()>().await;
        }
    }

    async fn settle(&mut self, patience: Instant) {
        loop {
            let quiet = (Instant::now() + QUIET).min(patience);
            match timeout_at(quiet, self.changes.recv()).await {
                Ok(Some(())) if quiet < patience => {}
                _ => return,
            }
        }
    }

    /// Watches what now has the directory's name.
    fn follow(&mut self) {
        // Failure: the old directory is gone, and its watch with it.
        let _ = self.watcher.unwatch(&self.dir);
        if let Err(error) = self.watcher.watch(&self.dir, RecursiveMode::NonRecursive) {
            tracing::warn!(path = %self.dir.display(), %error, "cannot watch the directory");
        }
    }
}

fn is_change(event: &notify::Result<Event>, dir: &Path, parent: Option<&Path>) -> bool {
    let Ok(event) = event else { return true };
    if event.need_rescan() {
        return true;
    }
    let written = AccessKind::Close(AccessMode::Write);
    if matches!(event.kind, EventKind::Access(kind) if kind != written) {
        return false;
    }
    // Of the parent's entries only the directory itself counts.
    event.paths.is_empty()
        || event
            .paths
            .iter()
            .any(|path| path == dir || path.parent() != parent)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Far above what a loaded machine needs.
    const LONG: Duration = Duration::from_secs(20);

    async fn expect_change(watch: &mut DirWatch, what: &str) {
        tokio::time::timeout(LONG, watch.changed())
            .await
            .unwrap_or_else(|_| panic!("{what}"));
    }

    #[tokio::test]
    async fn every_way_to_change_a_file_is_seen() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("policy");
        fs::create_dir(&dir).unwrap();
        let file = dir.join("a.yaml");
        let mut watch = DirWatch::new(&dir).unwrap();

        fs::write(&file, "1").unwrap();
        expect_change(&mut watch, "a new file").await;
        fs::write(&file, "2").unwrap();
        expect_change(&mut watch, "a rewritten file").await;
        fs::write(dir.join(".a.yaml.swp"), "3").unwrap();
        fs::rename(dir.join(".a.yaml.swp"), &file).unwrap();
        expect_change(&mut watch, "an atomic rename").await;
        fs::remove_file(&file).unwrap();
        expect_change(&mut watch, "a removed file").await;
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = DirWatch::new(dir.path()).unwrap();
        fs::write(dir.path().join("a.yaml"), "1").unwrap();
        // Shorter than the quiet, so that every wait but the last is given up.
        let impatient = Duration::from_millis(10);
        let given_up = async {
            while tokio::time::timeout(impatient, watch.changed())
                .await
                .is_err()
            {}
        };
        tokio::time::timeout(LONG, given_up)
            .await
            .expect("the change is reported");
    }

    #[tokio::test]
    async fn a_config_map_update_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("a.yaml"), version).unwrap();
        }
        std::os::unix::fs::symlink("..1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.yaml", at("a.yaml")).unwrap();
        let mut watch = DirWatch::new(dir.path()).unwrap();
        std::os::unix::fs::symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        expect_change(&mut watch, "the symlink swap").await;
        assert_eq!(fs::read_to_string(at("a.yaml")).unwrap(), "..2");
    }

    #[tokio::test]
    async fn a_replaced_directory_is_followed() {
        let top = tempfile::tempdir().unwrap();
        let (dir, next) = (top.path().join("policy"), top.path().join("next"));
        fs::create_dir(&dir).unwrap();
        fs::create_dir(&next).unwrap();
        let mut watch = DirWatch::new(&dir).unwrap();
        fs::rename(&dir, top.path().join("old")).unwrap();
        fs::rename(&next, &dir).unwrap();
        expect_change(&mut watch, "the replacement").await;
        fs::write(dir.join("a.yaml"), "1").unwrap();
        expect_change(&mut watch, "a file in the new directory").await;
    }

    #[test]
    fn reading_is_no_change() {
        let dir = Path::new("/p/policy");
        let event = |kind, path: &str| Ok(Event::new(kind).add_path(path.into()));
        let read = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let created = EventKind::Create(notify::event::CreateKind::File);
        let parent = Some(Path::new("/p"));
        assert!(!is_change(&event(read, "/p/policy/a.yaml"), dir, parent));
        assert!(is_change(&event(created, "/p/policy/a.yaml"), dir, parent));
        assert!(is_change(&event(created, "/p/policy"), dir, parent));
        assert!(!is_change(&event(created, "/p/other"), dir, parent));
    }
}
