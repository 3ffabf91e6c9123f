//! A download by TLS in the background, slow enough to be there when something happens.

use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use tollgate_lab::lab::Place;
use tollgate_lab::names::Family;
use tollgate_lab::run::Cmd;

use crate::bed::{Bed, same, until, until_in};

/// What a whole download may take; at the rates of these tests it is some ten seconds.
const WHOLE: Duration = Duration::from_secs(40);

/// curl, fetching the large object into a file.
#[derive(Debug)]
pub struct Download {
    child: Child,
    file: PathBuf,
}

impl Download {
    /// Starts one at a rate as curl takes it, and waits until bytes come.
    pub fn start(bed: &Bed, host: &str, rate: &str) -> Download {
        let file = bed.lab.names.www().join(format!("{host}.part"));
        let line = format!(
            "exec {} --fail --limit-rate {rate} -o {} https://{host}/v2/data/big.bin",
            bed.curl_line(Family::V4),
            file.display()
        );
        let cmd = Cmd::new("sh").args(["-c", &line]);
        let log = bed.lab.names.log(&format!("curl-{host}"));
        let child = bed.lab.at(Place::Pod, cmd).spawn(&log).unwrap();
        let download = Download { child, file };
        download.grows();
        download
    }

    fn size(&self) -> u64 {
        std::fs::metadata(&self.file).map_or(0, |m| m.len())
    }

    /// Waits until more bytes have come.
    pub fn grows(&self) {
        let before = self.size();
        until("the download goes on", || {
            (self.size() > before).then_some(())
        });
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end; curl's exit code.
    pub fn end(&mut self, limit: Duration) -> Option<i32> {
        until_in(limit, "the download ends", || {
            self.child.try_wait().unwrap()
        })
        .code()
    }

    /// Waits for its good end and compares the hash.
    pub fn finishes(&mut self, bed: &Bed) {
        same("curl's exit", self.end(WHOLE), Some(0));
        let line = format!("openssl sha256 -r {}", self.file.display());
        let hash = bed.sh(Place::Pod, &line);
        let expected = bed.lab.info.big_sha256.as_str();
        same("hash", hash.split(' ').next().unwrap(), expected);
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}
