//! The live table of `make up`: the latest sample per check and region with its latency as a bar. Judges nothing.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use crossterm::{cursor, execute, terminal};
use futures::StreamExt as _;
use sonde_proto::wire;

use crate::client::Client;
use crate::error::Result;
use crate::output;

/// Distance between two drawings on a terminal.
const DRAW_PERIOD: Duration = Duration::from_millis(500);
/// Distance between two printed tables when the output is not a terminal.
const PRINT_PERIOD: Duration = Duration::from_secs(5);
/// Width of the longest bar in characters.
const BAR_CHARS_MAX: usize = 24;
/// Most rows shown; a mesh with more checks is read with `sonde sample watch`.
const ROWS_MAX: usize = 200;

/// Names of the checks, and in which regions they run.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    checks: BTreeMap<String, (String, Vec<String>)>,
}

impl Names {
    pub(super) async fn load(client: &Client) -> Result<Self> {
        let found = client.list_checks(wire::ListChecksRequest {}).await?.checks;
        let checks = found
            .into_iter()
            .filter(|check| !check.paused)
            .map(|check| {
                let definition = check.definition.unwrap_or_default();
                (check.id, (definition.name, definition.regions))
            })
            .collect();
        Ok(Self { checks })
    }

    pub(super) fn any_running(&self) -> bool {
        !self.checks.is_empty()
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
pub(super) async fn run(client: &Client, names: &Names) -> Result<()> {
    let is_terminal = std::io::stdout().is_terminal();
    let mut cells = blank(names);
    let mut names = names.clone();
    let mut samples = client.watch_samples(wire::WatchSamplesRequest::default()).await?;
    let mut draw = tokio::time::interval(if is_terminal { DRAW_PERIOD } else { PRINT_PERIOD });
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return output::write_line("\nThe mesh goes on; `make down` stops it."),
            row = samples.next() => match row {
                Some(row) => take(&mut cells, row?),
                None => return output::write_line("the collector has ended the stream; `make up` starts it again"),
            },
            _ = draw.tick() => {
                let known = names.checks.len();
                names = Names::load(client).await?;
                if known != names.checks.len() {
                    merge(&mut cells, &names);
                }
                show(is_terminal, &names, &cells)?;
            }
        }
    }
}

type Cells = BTreeMap<(String, String), Cell>;

fn blank(names: &Names) -> Cells {
    let mut cells = Cells::new();
    merge(&mut cells, names);
    cells
}

fn merge(cells: &mut Cells, names: &Names) {
    cells.retain(|(check, _), _| names.checks.contains_key(check));
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

fn show(is_terminal: bool, names: &Names, cells: &Cells) -> Result<()> {
    let text = draw(names, cells);
    let mut out = std::io::stdout().lock();
    if is_terminal {
        execute!(out, cursor::MoveTo(0, 0), terminal::Clear(terminal::ClearType::FromCursorDown))?;
        writeln!(out, "{text}Ctrl-C leaves this table; the mesh goes on.")?;
    } else {
        writeln!(out, "{text}")?;
    }
    out.flush()?;
    Ok(())
}

/// The table as text: one row per check and region, bars to a common scale.
fn draw(names: &Names, cells: &Cells) -> String {
    let name_of = |id: &str| names.checks.get(id).map_or("", |(name, _)| name.as_str());
    let longest = cells.values().filter_map(|cell| cell.latest.as_ref()).map(|row| row.total_us).max().unwrap_or(0);
    let width = cells.keys().map(|(id, _)| name_of(id).chars().count()).max().unwrap_or(0).clamp(5, 32);
    let mut rows: Vec<_> = cells.iter().map(|((id, region), cell)| (name_of(id), region, cell)).collect();
    rows.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let mut text = format!(
        "{:<width$}  {:<12}  {:<9}  {:>10}  {:<BAR_CHARS_MAX$}  {:>8}  {:>7}  {}\n",
        "CHECK", "REGION", "LATEST", "LATENCY", "", "SAMPLES", "FAILED", "ERROR"
    );
    for (name, region, cell) in rows.iter().take(ROWS_MAX) {
        let (outcome, latency, bar, error) = match &cell.latest {
            Some(row) => (
                row.outcome.as_str(),
                output::latency(u64::from(row.total_us)),
                bar(row.total_us, longest),
                row.error.as_str(),
            ),
            None => ("-", "-".to_owned(), String::new(), ""),
        };
        let name: String = name.chars().take(width).collect();
        let line = format!(
            "{name:<width$}  {region:<12}  {outcome:<9}  {latency:>10}  {bar:<BAR_CHARS_MAX$}  {:>8}  {:>7}  {error}",
            cell.samples, cell.failed
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if rows.len() > ROWS_MAX {
        text.push_str(&format!("... and {} more rows\n", rows.len() - ROWS_MAX));
    }
    text
}

/// A bar of eighths of a character, so that small differences show.
fn bar(value: u32, longest: u32) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    if longest == 0 {
        return String::new();
    }
    let eighths = u64::from(value) * (BAR_CHARS_MAX as u64) * 8 / u64::from(longest);
    let eighths = usize::try_from(eighths).unwrap_or(0).max(1);
    let mut text = "█".repeat(eighths / 8);
    if eighths % 8 > 0 {
        text.push(EIGHTHS[eighths % 8]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_in_proportion() {
        assert_eq!(bar(0, 0), "");
        assert_eq!(bar(100, 100).chars().count(), BAR_CHARS_MAX);
        assert_eq!(bar(50, 100).chars().count(), BAR_CHARS_MAX / 2);
        assert_eq!(bar(1, 1_000_000), "▏");
    }

    #[test]
    fn every_region_of_every_check_has_its_row() {
        let mut names = Names::default();
        names.checks.insert("1".into(), ("web".into(), vec!["eu-west".into(), "us-east".into()]));
        let mut cells = blank(&names);
        take(
            &mut cells,
            wire::SampleRow {
                check_id: "1".into(),
                region: "us-east".into(),
                outcome: "failed".into(),
                error: "tls_expired".into(),
                total_us: 1_500,
                ..Default::default()
            },
        );
        let text = draw(&names, &cells);
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("1.50 ms") && text.contains("tls_expired"), "{text}");
    }
}
