//! A whole mesh on one machine: engines, collector, three probes and a demo target, all of them the real programs.
//!
//! Starts what is dead and leaves alone what lives. Never deletes data and never ends a process it did not start.

mod config;
mod demo_checks;
mod engine;
mod frame;
pub mod layout;
pub mod postgres;
mod process;
mod progress;
mod steps;
mod table;
mod words;
mod world;

use std::path::Path;

use serde::Serialize;

use crate::error::{CliError, Kind, Result};
use crate::output::{self, Format, Row};
use layout::Layout;
use process::Process;

/// Starts what is not running. Shows a live table afterwards, unless `detach` is set.
///
/// # Errors
/// The part that could not be started, and the log that says why.
pub async fn up(dir: &Path, detach: bool) -> Result<()> {
    let layout = Layout::open(dir)?;
    let lock = layout.lock()?;
    let (client, names) = steps::up(&layout).await?;
    // The table may run for hours: a second `up` or a `down` must not wait for it.
    drop(lock);
    if detach {
        return Ok(());
    }
    table::run(&client, names, |verb| words::command(&layout, verb)).await
}

/// Stops every part that `up` started, probes first, engines last.
///
/// # Errors
/// When a part does not end even when it is killed.
pub async fn down(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return output::write_line("nothing is running: there is no mesh here");
    }
    let layout = Layout::open(dir)?;
    let _lock = layout.lock()?;
    let mut stopped = 0_u32;
    for part in world::STOP_ORDER {
        let process = Process::at(&layout, part.name);
        if process.is_alive() {
            let _progress = progress::Step::begin(&format!("stopping {}", part.name));
            process.stop(part.stop_signal()).await?;
            stopped += 1;
        }
        process.forget()?;
    }
    output::write_line(&match stopped {
        0 => "nothing was running".to_owned(),
        n => format!("stopped {n} processes; the data stays in {}", layout.dir.display()),
    })
}

#[derive(Debug, Serialize)]
struct PartView {
    name: &'static str,
    running: bool,
    pid: Option<i32>,
}

impl Row for PartView {
    const COLUMNS: &'static [&'static str] = &["part", "state", "pid"];

    fn cells(&self) -> Vec<String> {
        let state = if self.running { "running" } else { "stopped" };
        vec![self.name.to_owned(), state.to_owned(), output::or_dash(self.pid)]
    }
}

/// Shows which parts are running.
///
/// # Errors
/// When there is no mesh in `dir`.
pub fn status(dir: &Path, format: Format) -> Result<()> {
    if !dir.exists() {
        return Err(CliError::new(Kind::NotFound, format!("there is no mesh in {}", dir.display()))
            .hint("`make up` starts one"));
    }
    let layout = Layout::open(dir)?;
    let rows: Vec<PartView> = world::STOP_ORDER
        .iter()
        .rev()
        .map(|part| {
            let process = Process::at(&layout, part.name);
            PartView { name: part.name, running: process.is_alive(), pid: process.pid() }
        })
        .collect();
    output::list(format, &rows)
}
