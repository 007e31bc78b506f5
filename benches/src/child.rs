//! Processes of a measurement: started with a log, found beside this program, ended with the bench however it ends.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use sonde_ops::mesh::postgres::Installation;
use sonde_probe::clock::Clock;
use tokio::time::sleep;

use crate::rows::Group;

/// Distance between two looks at a condition.
const LOOK_PERIOD: Duration = Duration::from_millis(20);
/// Lines of a log that a failure shows.
const LOG_LINES_SHOWN: usize = 12;

/// Refuses to begin when a program is missing that these rows need.
///
/// # Errors
/// One sentence that says what is missing and what to do.
pub(crate) fn demand(groups: &[Group]) -> anyhow::Result<()> {
    if groups.contains(&Group::HttpCheck) {
        let is_found = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("wrk").is_file()));
        anyhow::ensure!(is_found, "`wrk` is not installed: run `apt-get install wrk`, then `make bench` again");
    }
    if groups.contains(&Group::Ingest) {
        victoria_metrics()?;
    }
    if groups.iter().any(|group| group.needs_mesh()) {
        for name in ["sonde-clickhouse", "sonde-collector", "sonde-probe"] {
            program(name)?;
        }
        Installation::find().map_err(|fault| anyhow::anyhow!("{}", fault.message))?;
    }
    Ok(())
}

/// The program `name`, which cargo puts beside this one.
///
/// # Errors
/// When it was not built.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = own_program()?.with_file_name(name);
    anyhow::ensure!(path.is_file(), "{} is not built: run `make bench`, which builds every program", path.display());
    Ok(path)
}

/// VictoriaMetrics, on PATH or where the set-up has unpacked it.
///
/// # Errors
/// When it is in neither place.
pub(crate) fn victoria_metrics() -> anyhow::Result<PathBuf> {
    const NAME: &str = "victoria-metrics";
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).map(|folder| folder.join(NAME)).collect::<Vec<_>>());
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let unpacked = cache.map(|cache| cache.join("sonde").join(NAME).join("usr/bin").join(NAME));
    on_path
        .chain(unpacked)
        .find(|path| path.is_file())
        .context("`victoria-metrics` is not there: run `ops/setup.sh bench`, then `make bench` again")
}

fn own_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("this program cannot find its own file")
}

/// A command that runs `program` as the kernel's child of this process: on `core` when one is named, and killed by the
/// kernel when this process goes away without ending it.
pub(crate) fn tied(program: &OsStr, core: Option<usize>) -> anyhow::Result<Command> {
    let mut command = part("exec")?;
    if let Some(core) = core {
        command.args(["--core", &core.to_string()]);
    }
    command.arg("--").arg(program);
    Ok(command)
}

/// A command that runs a part of this program.
pub(crate) fn part(name: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(own_program()?);
    command.args(["part", name]);
    Ok(command)
}

/// A running process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    name: &'static str,
    child: std::process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts `command` with both outputs written to a log in `dir`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(name: &'static str, mut command: Command, dir: &Path) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { name, child, log })
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with -9 and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        // It may be gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Fails with the end of its log when it has ended.
    pub(crate) fn demand_alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("{} ended ({status}): {}", self.name, self.log_end()),
        }
    }

    /// Waits until it has ended, and leaves it for [`Child::reap`] so that its times can still be read.
    pub(crate) async fn ended(&self, clock: Clock, deadline: Duration) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a pid is positive")?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        until(
            clock,
            deadline,
            &format!("{} ends", self.name),
            async || Ok(waitid(WaitId::Pid(pid), options)?.map(drop)),
        )
        .await
    }

    /// Takes the exit code of a process that has ended, and returns what it has written.
    ///
    /// # Errors
    /// When it failed.
    pub(crate) fn reap(mut self) -> anyhow::Result<String> {
        let status: ExitStatus = self.child.wait()?;
        anyhow::ensure!(status.success(), "{} failed ({status}): {}", self.name, self.log_end());
        fs::read_to_string(&self.log).with_context(|| format!("{} cannot be read", self.log.display()))
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let mut lines: Vec<&str> = log.lines().rev().take(LOG_LINES_SHOWN).collect();
        lines.reverse();
        lines.join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Its data goes with it, so it need not end in order.
        self.kill();
    }
}

/// Looks until `condition` yields a value.
///
/// # Errors
/// When the condition fails, or `deadline` is over first; the message says what was waited for.
pub(crate) async fn until<T>(
    clock: Clock,
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = clock.now() + deadline;
    loop {
        if let Some(value) = condition().await? {
            return Ok(value);
        }
        anyhow::ensure!(clock.now() < end, "after {} s still not: {what}", deadline.as_secs());
        sleep(LOOK_PERIOD).await;
    }
}
