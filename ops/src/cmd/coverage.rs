//! `sonde coverage`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use sonde_proto::wire;

use super::{check_id, region, window_s};
use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output::{self, Format, Row};

/// Show how many of the expected slots are stored, and why the others are missing.
///
/// Every slot that a check was to fill is either stored or a gap with one cause. Gaps are neither up nor down: this
/// figure stands beside an uptime, it is none. Slots of the last 30 s are not judged yet.
#[derive(Debug, Args)]
pub struct Coverage {
    /// Id or name of the check; all checks without it
    #[arg(long)]
    check: Option<String>,
    /// Window before now, such as 1h or 30d, 31s to five years
    #[arg(long, default_value = "1h", value_parser = output::parse_duration)]
    #[arg(allow_hyphen_values = true, value_name = "TIME")]
    last: Duration,
    /// First instant of the window, RFC 3339 or a date of UTC; instead of --last
    #[arg(long, value_parser = output::parse_instant)]
    #[arg(allow_hyphen_values = true, value_name = "INSTANT", conflicts_with = "last")]
    from: Option<jiff::Timestamp>,
    /// First instant after the window, RFC 3339, a date of UTC or `now`; 30 s before now without it
    #[arg(long, value_parser = output::parse_end)]
    #[arg(allow_hyphen_values = true, value_name = "INSTANT", requires = "from")]
    until: Option<jiff::Timestamp>,
    /// Only this region; all regions without it
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Also list every minute and region; needs --check
    #[arg(long, value_enum, value_name = "STEP")]
    by: Option<Step>,
}

/// Width of the rows of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// One row for each minute and region.
    Minute,
}

/// The whole answer as the JSON promises it.
#[derive(Debug, Serialize)]
struct View {
    from: Option<String>,
    until: Option<String>,
    total: Total,
    regions: BTreeMap<String, Counts>,
    causes: BTreeMap<String, u64>,
    beside: Beside,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<BTreeMap<String, Counts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minutes: Option<Vec<Minute>>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Total {
    expected: u64,
    stored: u64,
    gaps: u64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Beside {
    paused: u64,
    superseded: u64,
    unexpected: u64,
}

#[derive(Debug, Clone, Serialize)]
struct Counts {
    #[serde(flatten)]
    total: Total,
    causes: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Minute {
    minute: Option<String>,
    region: String,
    #[serde(flatten)]
    counts: Counts,
}

/// A row of the table: a region, a check, a minute, or all of them.
#[derive(Debug, Serialize)]
struct Line {
    /// What the row is about: a check may have the name of a region.
    by: &'static str,
    name: String,
    #[serde(flatten)]
    counts: Counts,
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] = &["by", "name", "expected", "stored", "gaps", "coverage", "causes"];

    fn cells(&self) -> Vec<String> {
        let Total { expected, stored, gaps } = self.counts.total;
        let causes: Vec<String> = self.counts.causes.iter().map(|(cause, slots)| format!("{cause} {slots}")).collect();
        vec![
            self.by.to_owned(),
            self.name.clone(),
            expected.to_string(),
            stored.to_string(),
            gaps.to_string(),
            percent(stored, expected),
            causes.join(", "),
        ]
    }
}

/// The share with three digits, rounded down: nothing but everything is 100 %.
fn percent(stored: u64, expected: u64) -> String {
    if expected == 0 {
        return "-".to_owned();
    }
    let thousandths = u128::from(stored) * 100_000 / u128::from(expected);
    format!("{}.{:03} %", thousandths / 1_000, thousandths % 1_000)
}

impl Coverage {
    /// Runs the command.
    ///
    /// # Errors
    /// What the collector answered.
    pub async fn run(self, client: &Client, format: Format) -> Result<()> {
        if self.by.is_some() && self.check.is_none() {
            return Err(CliError::invalid("--by: needs --check; minutes are listed for one check"));
        }
        let request = self.request(client).await?;
        let mut answer = client.get_coverage(request.clone()).await?;
        // Bounded: each page begins with a later minute and ends before the same instant.
        while answer.minutes_next_us > 0 {
            let (from_us, until_us) = (answer.minutes_next_us, answer.until_us);
            let later = wire::GetCoverageRequest { last_s: 0, from_us, until_us, ..request.clone() };
            let page = client.get_coverage(later).await?;
            answer.minutes.extend(page.minutes);
            if page.minutes_next_us > 0 && page.minutes_next_us <= from_us {
                return Err(CliError::new(crate::error::Kind::Internal, "the collector lists the same minutes again"));
            }
            answer.minutes_next_us = page.minutes_next_us;
        }
        let names = names(&answer.checks);
        let view = self.view(answer);
        match format {
            Format::Json => output::json_object(&view),
            Format::Table => show(&view, &names),
        }
    }

    /// What the collector cannot see: it takes 0 for an instant that was not given.
    fn judge_instants(&self) -> Result<()> {
        if self.from.is_some_and(|from| from.as_microsecond() <= 0) {
            return Err(CliError::invalid("--from: lies more than five years back; nothing is kept for so long"));
        }
        if let (Some(from), Some(until)) = (self.from, self.until)
            && until.as_microsecond() <= from.as_microsecond()
        {
            return Err(CliError::invalid(format!("--until: {until} does not lie after --from, which is {from}")));
        }
        Ok(())
    }

    async fn request(&self, client: &Client) -> Result<wire::GetCoverageRequest> {
        self.judge_instants()?;
        let last_s = if self.from.is_some() { 0 } else { window_s("--last", self.last)? };
        let region = region(self.region.clone())?;
        let check_id = match &self.check {
            Some(text) => check_id(client, text).await?,
            None => String::new(),
        };
        let instant = |at: Option<jiff::Timestamp>| at.map_or(0, jiff::Timestamp::as_microsecond);
        Ok(wire::GetCoverageRequest {
            check_id,
            region,
            last_s,
            from_us: instant(self.from),
            until_us: instant(self.until),
            by_minute: self.by.is_some(),
            limit: 0,
        })
    }

    fn view(&self, answer: wire::GetCoverageResponse) -> View {
        let total = answer.total.unwrap_or_default();
        let beside = Beside { paused: total.paused, superseded: total.superseded, unexpected: total.unexpected };
        let Counts { total, causes } = counts(Some(total));
        let checks = answer.checks.into_iter().map(|row| (row.check_id, counts(row.counts))).collect();
        let minutes = answer.minutes.into_iter().map(|row| Minute {
            minute: output::instant(row.minute_us),
            region: row.region,
            counts: counts(row.counts),
        });
        View {
            from: output::instant(answer.from_us),
            until: output::instant(answer.until_us),
            total,
            regions: answer.regions.into_iter().map(|row| (row.region, counts(row.counts))).collect(),
            causes,
            beside,
            checks: self.check.is_none().then_some(checks),
            minutes: self.by.map(|Step::Minute| minutes.collect()),
        }
    }
}

/// What a table calls the checks, by id.
fn names(checks: &[wire::CheckCoverage]) -> BTreeMap<String, String> {
    let named = checks.iter().filter(|row| !row.name.is_empty());
    let shown = named.map(|row| {
        let name = if row.is_deleted { format!("{} (deleted)", row.name) } else { row.name.clone() };
        (row.check_id.clone(), name)
    });
    shown.collect()
}

fn counts(counts: Option<wire::CoverageCounts>) -> Counts {
    let wire::CoverageCounts { expected, stored, gaps, causes, .. } = counts.unwrap_or_default();
    Counts {
        total: Total { expected, stored, gaps },
        causes: causes.into_iter().map(|count| (count.cause, count.slots)).collect(),
    }
}

/// For people: regions or checks, the sum, and what stands beside it.
fn show(view: &View, names: &BTreeMap<String, String>) -> Result<()> {
    let line = |by, name: &str, counts: &Counts| Line { by, name: name.to_owned(), counts: counts.clone() };
    let mut lines: Vec<Line> = Vec::new();
    for minute in view.minutes.iter().flatten() {
        let at = output::short_instant(&output::or_dash(minute.minute.as_ref()));
        lines.push(line("minute", &format!("{at} {}", minute.region), &minute.counts));
    }
    let name = |check: &str| names.get(check).cloned().unwrap_or_else(|| check.to_owned());
    let mut checks: Vec<Line> =
        view.checks.iter().flatten().map(|(id, counts)| line("check", &name(id), counts)).collect();
    checks.sort_by(|a, b| a.name.cmp(&b.name));
    lines.extend(checks);
    lines.extend(view.regions.iter().map(|(region, counts)| line("region", region, counts)));
    lines.push(line("total", "", &Counts { total: view.total, causes: view.causes.clone() }));
    output::list(Format::Table, &lines)?;
    let Beside { paused, superseded, unexpected } = view.beside;
    let (from, until) = (output::or_dash(view.from.as_ref()), output::or_dash(view.until.as_ref()));
    output::write_line(&format!(
        "\nfrom {from} until {until}\nbeside: {paused} paused, {superseded} superseded, {unexpected} unexpected"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_keeps_its_name_when_it_is_deleted() {
        let row = |id: &str, name: &str, is_deleted| wire::CheckCoverage {
            check_id: id.to_owned(),
            name: name.to_owned(),
            is_deleted,
            counts: None,
        };
        let names = names(&[row("1", "total", false), row("2", "web", true), row("3", "", true)]);
        let shown: Vec<(&str, &str)> = names.iter().map(|(id, name)| (id.as_str(), name.as_str())).collect();
        assert_eq!(shown, [("1", "total"), ("2", "web (deleted)")], "one without a name is shown by its id");
    }

    #[test]
    fn only_everything_is_a_hundred_percent() {
        assert_eq!(percent(10, 10), "100.000 %");
        assert_eq!(percent(99_999_999, 100_000_000), "99.999 %");
        assert_eq!(percent(0, 3), "0.000 %");
        assert_eq!(percent(2, 3), "66.666 %");
        assert_eq!(percent(0, 0), "-");
        assert_eq!(percent(u64::MAX - 1, u64::MAX), "99.999 %");
    }
}
