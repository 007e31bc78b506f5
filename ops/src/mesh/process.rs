//! One process of the mesh: started apart from the terminal, found again by pid and start time, ended in order.
//!
//! Never signals a pid whose start time is not the one that was written down: pids are used again.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::layout::{Layout, write_private};
use super::progress::Step;
use crate::clock::Stopwatch;
use crate::error::{CliError, Kind, Result};

/// How long a process may take to end in order before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How long a killed process may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// Distance between two looks at a process that is starting or stopping.
const LOOK_PERIOD: Duration = Duration::from_millis(25);
/// A log above this size is put aside before the next start.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// Lines of the log that a failure shows.
const LOG_LINES_SHOWN: usize = 8;

#[derive(Debug, Serialize, Deserialize)]
struct Written {
    pid: i32,
    /// Field 22 of /proc/PID/stat: clock ticks from boot to the start of the process.
    started_ticks: u64,
}

/// User and group that a process runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A process of the mesh by its name.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    pid_file: PathBuf,
    log_file: PathBuf,
}

impl Process {
    pub(super) fn at(layout: &Layout, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            pid_file: layout.path("run").join(format!("{name}.json")),
            log_file: layout.path("log").join(format!("{name}.log")),
        }
    }

    fn written(&self) -> Option<Written> {
        serde_json::from_str(&fs::read_to_string(&self.pid_file).ok()?).ok()
    }

    /// Its pid, when it is alive.
    pub(super) fn pid(&self) -> Option<i32> {
        let written = self.written()?;
        (started_ticks(written.pid)? == written.started_ticks).then_some(written.pid)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.pid().is_some()
    }

    /// Whether it runs a program file that has been replaced since, as a new build does.
    pub(super) fn is_outdated(&self) -> bool {
        self.pid()
            .and_then(|pid| fs::read_link(format!("/proc/{pid}/exe")).ok())
            .is_some_and(|exe| exe.to_string_lossy().ends_with(" (deleted)"))
    }

    /// Whether it was started with other arguments than `wanted` has, such as other ports.
    pub(super) fn differs_from(&self, wanted: &Command) -> bool {
        let Some(line) = self.pid().and_then(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok()) else { return false };
        let wanted = std::iter::once(wanted.get_program()).chain(wanted.get_args());
        let wanted: Vec<&[u8]> = wanted.map(OsStrExt::as_bytes).collect();
        // Empty while the process is ending.
        !line.is_empty() && line.strip_suffix(&[0]).unwrap_or(&line) != wanted.join(&0)
    }

    /// Starts `command` in a session of its own, so that Ctrl-C at the terminal does not reach it.
    fn start(&self, mut command: Command, run_as: Option<RunAs>) -> Result<()> {
        let log = self.open_log(run_as)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        if let Some(RunAs { uid, gid }) = run_as {
            command.uid(uid).gid(gid);
        }
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|fault| {
            CliError::new(Kind::Internal, format!("{}: {program} cannot be started: {fault}", self.name))
        })?;
        let pid = i32::try_from(child.id()).map_err(anyhow::Error::from)?;
        let started_ticks = started_ticks(pid).unwrap_or(0);
        let text = serde_json::to_string(&Written { pid, started_ticks }).map_err(anyhow::Error::from)?;
        write_private(&self.pid_file, text.as_bytes())?;
        // Reaps it should it die while this command still runs, so that it does not look alive as a zombie.
        std::thread::spawn(move || {
            let mut child = child;
            let _ = child.wait();
        });
        Ok(())
    }

    fn open_log(&self, run_as: Option<RunAs>) -> Result<fs::File> {
        let open = || {
            if fs::metadata(&self.log_file).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
                fs::rename(&self.log_file, self.log_file.with_extension("log.1"))?;
            }
            let log = fs::OpenOptions::new().create(true).append(true).open(&self.log_file)?;
            if let Some(RunAs { uid, gid }) = run_as {
                std::os::unix::fs::fchown(&log, Some(uid), Some(gid))?;
            }
            Ok(log)
        };
        open().map_err(|fault| CliError::file(&self.log_file, &fault))
    }

    /// Starts the process with what `command` gives, if it is dead, and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started, dies while it starts, or `patience` is over.
    pub(super) async fn ensure(
        &self,
        run_as: Option<RunAs>,
        patience: Duration,
        mut command: impl FnMut() -> Result<Command>,
        mut is_ready: impl AsyncFnMut() -> bool,
    ) -> Result<()> {
        let mut is_found = true;
        loop {
            if !self.is_alive() {
                is_found = false;
                let _step = Step::begin(&format!("starting {}", self.name));
                self.start(command()?, run_as)?;
            }
            match self.ready(patience, &mut is_ready).await {
                // It was found dying, for example killed a moment ago: begin anew.
                Err(_) if is_found && !self.is_alive() => is_found = false,
                done => return done,
            }
        }
    }

    /// Waits until `is_ready` says yes.
    ///
    /// # Errors
    /// When the process dies first, or `patience` is over: with the end of its log.
    async fn ready(&self, patience: Duration, is_ready: &mut impl AsyncFnMut() -> bool) -> Result<()> {
        let watch = Stopwatch::start();
        loop {
            if is_ready().await {
                return Ok(());
            }
            if !self.is_alive() {
                return Err(self.failure("ended while it was starting"));
            }
            if watch.elapsed() > patience {
                return Err(self.failure(&format!("is not ready after {} s", patience.as_secs())));
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }

    /// Whether the end of the log holds `text`.
    pub(super) fn said(&self, text: &str) -> bool {
        let log = fs::read_to_string(&self.log_file).unwrap_or_default();
        log.lines().rev().take(LOG_LINES_SHOWN).any(|line| line.contains(text))
    }

    fn failure(&self, what: &str) -> CliError {
        let log = fs::read_to_string(&self.log_file).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(LOG_LINES_SHOWN).collect();
        let tail = lines.into_iter().rev().collect::<Vec<_>>().join("\n    ");
        CliError::new(Kind::Unavailable, format!("{} {what}; its log ends with:\n    {tail}", self.name))
            .hint(format!("the whole log is {}", self.log_file.display()))
    }

    /// Asks the process to end, waits, and kills it when it does not.
    ///
    /// # Errors
    /// When it survives even that.
    pub(super) async fn stop(&self, signal: Signal) -> Result<()> {
        for (signal, patience) in [(signal, STOP_PATIENCE), (Signal::KILL, KILL_PATIENCE)] {
            let Some(pid) = self.pid().and_then(Pid::from_raw) else { return Ok(()) };
            // It may have ended between the look and the signal.
            let _ = kill_process(pid, signal);
            let watch = Stopwatch::start();
            while self.is_alive() && watch.elapsed() < patience {
                tokio::time::sleep(LOOK_PERIOD).await;
            }
        }
        if self.is_alive() {
            return Err(CliError::new(Kind::Internal, format!("{} does not end, even when killed", self.name)));
        }
        Ok(())
    }

    /// Forgets the pid of a process that has ended.
    pub(super) fn forget(&self) -> Result<()> {
        match fs::remove_file(&self.pid_file) {
            Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => Err(fault.into()),
            _ => Ok(()),
        }
    }
}

/// Whether a process of this pid lives and is not a zombie.
pub(super) fn is_alive(pid: i32) -> bool {
    started_ticks(pid).is_some()
}

/// Start time of a living process that is not a zombie. A killed one lives as long as any of its threads does: they hold its
/// ports and its files, while its first thread may be a zombie already.
fn started_ticks(pid: i32) -> Option<u64> {
    let folder = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // The second field is the name in parentheses and may hold anything, so count from its end.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
    let state = *fields.first()?;
    if state == "Z" || state == "X" {
        let threads = fs::read_dir(folder.join("task")).ok()?.count();
        if threads <= 1 {
            return None;
        }
    }
    fields.get(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(&dir.path().join("mesh")).unwrap();
        layout.folder("run").unwrap();
        layout.folder("log").unwrap();
        (dir, layout)
    }

    #[tokio::test]
    async fn a_process_is_found_again_and_ended() {
        let (_dir, layout) = sandbox();
        let process = Process::at(&layout, "sleeper");
        let mut command = Command::new("sleep");
        command.arg("600");
        process.start(command, None).unwrap();
        assert!(Process::at(&layout, "sleeper").is_alive());
        let like = |word: &str| {
            let mut command = Command::new("sleep");
            command.arg(word);
            command
        };
        assert!(!process.differs_from(&like("600")) && process.differs_from(&like("700")));
        process.stop(Signal::TERM).await.unwrap();
        assert!(!process.is_alive());
    }

    #[test]
    fn a_pid_that_was_used_again_is_not_ours() {
        let (_dir, layout) = sandbox();
        let process = Process::at(&layout, "other");
        let me = i32::try_from(std::process::id()).unwrap();
        let written = Written { pid: me, started_ticks: started_ticks(me).unwrap() + 1 };
        write_private(&process.pid_file, serde_json::to_string(&written).unwrap().as_bytes()).unwrap();
        assert!(!process.is_alive());
    }

    #[tokio::test]
    async fn a_process_that_dies_while_starting_shows_its_log() {
        let (_dir, layout) = sandbox();
        let process = Process::at(&layout, "broken");
        let mut command = Command::new("sh");
        command.args(["-c", "echo the cause >&2; exit 3"]);
        process.start(command, None).unwrap();
        let fault = process.ready(Duration::from_secs(10), &mut async || false).await.unwrap_err();
        assert!(fault.message.contains("the cause"), "{}", fault.message);
    }
}
