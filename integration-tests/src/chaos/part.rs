//! A process of the laboratory, to be started, killed, frozen and started again. Ended when dropped.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use super::party::Party;

/// What is kept of a log: its end.
const LOG_BYTES_KEPT: u64 = 4 << 20;

/// A part of the laboratory.
#[derive(Debug)]
pub struct Part {
    /// Which.
    pub party: Party,
    /// How often it was started.
    pub starts: u32,
    child: Option<Child>,
    log: PathBuf,
}

impl Part {
    /// A part that does not run yet; its log comes to lie in `dir`.
    pub fn new(party: Party, dir: &Path) -> Self {
        Self { party, starts: 0, child: None, log: dir.join(format!("{party}.log")) }
    }

    /// Starts it; must not run.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, mut command: Command) -> anyhow::Result<()> {
        anyhow::ensure!(self.child.is_none(), "{} runs already", self.party);
        let out = File::options().create(true).append(true).open(&self.log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        self.child = Some(command.spawn().with_context(|| format!("{} cannot be started", self.party))?);
        self.starts += 1;
        Ok(())
    }

    /// Whether it was started and not killed since; it may have ended by itself.
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// Its pid while it is up.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it with -9 and waits until it is gone.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be gone already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops its threads and those of its children, as Postgres has them.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// How it ended, if it did so by itself; it is down then.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }

    /// The end of its log.
    pub fn log_end(&self, bytes_max: u64) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
            let mut bytes = Vec::new();
            file.take(bytes_max).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }

    /// Copies the end of its log to `dir`.
    ///
    /// # Errors
    /// When the copy cannot be written.
    pub fn keep_log(&self, dir: &Path) -> anyhow::Result<()> {
        Ok(fs::write(dir.join(format!("{}.log", self.party)), self.log_end(LOG_BYTES_KEPT))?)
    }

    fn signal(&self, signal: Signal) {
        let Some(own) = self.pid() else { return };
        for pid in [own].into_iter().chain(children_of(own)) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // A child that has ended meanwhile needs no signal.
                let _ = kill_process(pid, signal);
            }
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Processes whose parent is `pid`.
fn children_of(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let own: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // After the name, which may hold anything, come state and parent.
            let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            (parent == pid).then_some(own)
        })
        .collect()
}
