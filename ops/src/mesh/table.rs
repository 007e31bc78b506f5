//! The live table of `make up`: the latest sample per check and region with its latency as a bar. Judges nothing.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use crossterm::{cursor, execute, queue, terminal};
use futures::StreamExt as _;
use sonde_proto::wire;
use tokio::signal::unix::{SignalKind, signal};

use super::frame::{self, Line, Room};
use crate::client::Client;
use crate::error::{CliError, Kind, Result};
use crate::output;

/// Distance between two drawings on a terminal.
const DRAW_PERIOD: Duration = Duration::from_millis(500);
/// Distance between two printed tables when the output is not a terminal.
const PRINT_PERIOD: Duration = Duration::from_secs(5);
/// Distance between two looks at which checks there are.
const NAMES_PERIOD: Duration = Duration::from_secs(2);
/// The last line on a terminal.
const FOOTER: &str = "Ctrl-C leaves this table; the mesh goes on.";

/// Names of the checks, and in which regions they run.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    checks: BTreeMap<String, (String, Vec<String>)>,
}

impl Names {
    pub(super) async fn load(client: &Client) -> Result<Self> {
        Ok(Self::of(client.list_checks(wire::ListChecksRequest {}).await?.checks))
    }

    /// The checks that run; paused ones are left out.
    pub(super) fn of(checks: Vec<wire::Check>) -> Self {
        let running = checks.into_iter().filter(|check| !check.paused);
        let named = running.map(|check| {
            let definition = check.definition.unwrap_or_default();
            (check.id, (definition.name, definition.regions))
        });
        Self { checks: named.collect() }
    }
}

/// What is known of one check in one region.
#[derive(Debug, Clone, Default)]
struct Cell {
    latest: Option<wire::SampleRow>,
    samples: u64,
    failed: u64,
}

/// Shows the table until it is interrupted.
pub(super) async fn run(client: &Client, names: Names, command: impl Fn(&str) -> String) -> Result<()> {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let screen = if std::io::stdout().is_terminal() && !is_dumb { Some(Screen::enter()?) } else { None };
    let ended = watch(client, names, screen.is_some()).await;
    drop(screen);
    match ended? {
        End::Left => output::write_line(&format!("The mesh goes on; `{}` stops it.", command("down"))),
        End::Stopped => {
            output::write_line(&format!("The collector has ended the stream; `{}` starts it again.", command("up")))
        }
    }
}

/// What ended the table.
enum End {
    /// Whoever looked at it.
    Left,
    /// The collector.
    Stopped,
}

/// Draws until something ends it.
async fn watch(client: &Client, mut names: Names, is_terminal: bool) -> Result<End> {
    let mut cells = Cells::new();
    merge(&mut cells, &names);
    let mut samples = client.watch_samples(wire::WatchSamplesRequest::default()).await?;
    let mut draw = tokio::time::interval(if is_terminal { DRAW_PERIOD } else { PRINT_PERIOD });
    let mut look = tokio::time::interval(NAMES_PERIOD);
    let (mut interrupt, mut end) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(End::Left),
            _ = end.recv() => return Ok(End::Left),
            row = samples.next() => match row {
                Some(row) => take(&mut cells, row?),
                None => return Ok(End::Stopped),
            },
            _ = look.tick() => match Names::load(client).await {
                Ok(found) => {
                    names = found;
                    merge(&mut cells, &names);
                }
                // Whether the collector itself is gone is for the stream of samples to say.
                Err(fault) if fault.kind == Kind::Unavailable => {}
                Err(fault) => return Err(fault),
            },
            _ = draw.tick() => show(is_terminal, &lines(&names, &cells))?,
        }
    }
}

/// Cells by check and region.
type Cells = BTreeMap<(String, String), Cell>;

/// Keeps the cells of what still runs, and makes those of what is new.
fn merge(cells: &mut Cells, names: &Names) {
    let runs = |check: &str, region: &String| names.checks.get(check).is_some_and(|(_, in_)| in_.contains(region));
    cells.retain(|(check, region), _| runs(check, region));
    for (id, (_, regions)) in &names.checks {
        for region in regions {
            cells.entry((id.clone(), region.clone())).or_default();
        }
    }
}

fn take(cells: &mut Cells, row: wire::SampleRow) {
    if let Some(cell) = cells.get_mut(&(row.check_id.clone(), row.region.clone())) {
        cell.samples += 1;
        cell.failed += u64::from(row.outcome == "failed");
        cell.latest = Some(row);
    }
}

/// One line per check and region, by name.
fn lines<'a>(names: &'a Names, cells: &'a Cells) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'a>> = cells
        .iter()
        .map(|((id, region), cell)| Line {
            name: names.checks.get(id).map_or("", |(name, _)| name.as_str()),
            region,
            outcome: cell.latest.as_ref().map_or("", |row| row.outcome.as_str()),
            total_us: cell.latest.as_ref().map(|row| row.total_us),
            samples: cell.samples,
            failed: cell.failed,
            error: cell.latest.as_ref().map_or("", |row| row.error.as_str()),
        })
        .collect();
    lines.sort_by_key(|line| (line.name, line.region));
    lines
}

fn show(is_terminal: bool, lines: &[Line<'_>]) -> Result<()> {
    if !is_terminal {
        return output::write_line(&(frame::frame(lines, None).join("\n") + "\n"));
    }
    let (columns, rows) = terminal::size()?;
    let room = Room { columns: usize::from(columns), lines: usize::from(rows).saturating_sub(1) };
    // One write per frame, each line over the old one: nothing flickers, and nothing scrolls.
    let mut bytes = Vec::new();
    queue!(bytes, cursor::MoveTo(0, 0))?;
    for line in frame::frame(lines, Some(room)) {
        bytes.extend(line.as_bytes());
        queue!(bytes, terminal::Clear(terminal::ClearType::UntilNewLine))?;
        bytes.extend(b"\r\n");
    }
    bytes.extend(FOOTER.chars().take(room.columns.saturating_sub(1)).collect::<String>().as_bytes());
    queue!(bytes, terminal::Clear(terminal::ClearType::FromCursorDown))?;
    output::write(&bytes)
}

/// The terminal's second screen; what was on the first comes back when this is dropped.
struct Screen;

impl Screen {
    fn enter() -> Result<Self> {
        execute!(std::io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)
            .map_err(|fault| CliError::new(Kind::Internal, format!("the terminal cannot be used: {fault}")))?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone has nothing to give back.
        let _ = execute!(std::io::stdout(), cursor::Show, terminal::LeaveAlternateScreen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: &str, name: &str, regions: &[&str]) -> wire::Check {
        let regions = regions.iter().map(|region| (*region).to_owned()).collect();
        let definition = wire::CheckDefinition { name: name.to_owned(), regions, ..Default::default() };
        wire::Check { id: id.to_owned(), definition: Some(definition), ..Default::default() }
    }

    fn sample(check: &str, region: &str) -> wire::SampleRow {
        wire::SampleRow {
            check_id: check.to_owned(),
            region: region.to_owned(),
            outcome: "failed".to_owned(),
            error: "tls_expired".to_owned(),
            total_us: 1_500,
            ..Default::default()
        }
    }

    #[test]
    fn every_region_of_every_check_has_its_row() {
        let names = Names::of(vec![check("1", "web", &["eu-west", "us-east"])]);
        let mut cells = Cells::new();
        merge(&mut cells, &names);
        take(&mut cells, sample("1", "us-east"));
        take(&mut cells, sample("2", "us-east"));
        let lines = lines(&names, &cells);
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].total_us, lines[0].samples), (None, 0));
        assert_eq!((lines[1].total_us, lines[1].failed, lines[1].error), (Some(1_500), 1, "tls_expired"));
    }

    #[test]
    fn what_no_longer_runs_leaves_and_what_is_new_comes() {
        let mut cells = Cells::new();
        merge(&mut cells, &Names::of(vec![check("1", "web", &["eu-west", "us-east"])]));
        merge(&mut cells, &Names::of(vec![check("1", "web", &["eu-west"]), check("2", "new", &["us-east"])]));
        let keys: Vec<_> = cells.keys().map(|(check, region)| (check.as_str(), region.as_str())).collect();
        assert_eq!(keys, [("1", "eu-west"), ("2", "us-east")]);
    }
}
