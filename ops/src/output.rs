//! How answers are printed: a table for people, JSON for programs. Field names of the JSON are a promise.

use std::io::Write as _;

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::error::Result;

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// One array of objects for a list, one object for a single thing.
    Json,
}

/// A thing that can be shown as a row.
pub trait Row: Serialize {
    /// Titles of the columns.
    const COLUMNS: &'static [&'static str];

    /// The cells, as many as there are columns.
    fn cells(&self) -> Vec<String>;
}

/// Prints a list.
///
/// # Errors
/// When standard output is closed.
pub fn list<R: Row>(format: Format, rows: &[R]) -> Result<()> {
    match format {
        Format::Json => write_line(&json(&rows)),
        Format::Table => write_line(&table(rows)),
    }
}

/// Prints a single thing: its fields below each other, or one object.
///
/// # Errors
/// When standard output is closed.
pub fn one<R: Row>(format: Format, row: &R) -> Result<()> {
    match format {
        Format::Json => write_line(&json(row)),
        Format::Table => {
            let mut table = bare_table();
            for (title, cell) in R::COLUMNS.iter().zip(row.cells()) {
                table.add_row([(*title).to_owned(), cell]);
            }
            write_line(&table.to_string())
        }
    }
}

/// Prints one object on a line of its own, for streams.
///
/// # Errors
/// When standard output is closed.
pub fn json_line<T: Serialize>(value: &T) -> Result<()> {
    write_line(&serde_json::to_string(value).map_err(anyhow::Error::from)?)
}

/// Prints one line.
///
/// # Errors
/// When standard output is closed.
pub fn write_line(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

fn json<T: Serialize>(value: &T) -> String {
    // Rows are plain structs of numbers and strings: serialising them cannot fail.
    serde_json::to_string_pretty(value).unwrap_or_else(|fault| Value::String(fault.to_string()).to_string())
}

fn table<R: Row>(rows: &[R]) -> String {
    let mut table = bare_table();
    table.set_header(R::COLUMNS.iter().map(|title| title.to_uppercase()));
    for row in rows {
        table.add_row(row.cells());
    }
    // Wrapped cells break copying of ids: lines may be longer than the terminal.
    table.to_string().lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

fn bare_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Microseconds since the epoch as RFC 3339 in UTC with six digits; 0 becomes `None`.
pub fn instant(us: i64) -> Option<String> {
    if us == 0 {
        return None;
    }
    jiff::Timestamp::from_microsecond(us).ok().map(|at| at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
}

/// A duration for people: `1.234 ms`, `2.5 s`.
pub fn latency(us: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let value = us as f64;
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.2} ms", value / 1e3),
        _ => format!("{:.2} s", value / 1e6),
    }
}

/// A cell for something that may be absent.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A length of time as a flag takes it: `5s`, `1500ms`, `1h30m`.
///
/// # Errors
/// When the text is not a length of time, is negative, or overflows microseconds.
pub fn parse_duration(text: &str) -> std::result::Result<std::time::Duration, String> {
    let refused =
        || format!("`{text}` is not a length of time: write a number and a unit, such as 500ms, 5s, 15m or 1h");
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| refused())?;
    std::time::Duration::try_from(parsed).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_have_six_digits_and_a_z() {
        assert_eq!(instant(1_700_000_000_000_001).as_deref(), Some("2023-11-14T22:13:20.000001Z"));
        assert_eq!(instant(0), None);
    }

    #[test]
    fn lengths_of_time_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(std::time::Duration::from_millis(500)));
        assert_eq!(parse_duration("15m"), Ok(std::time::Duration::from_secs(900)));
        for bad in ["", "5", "-5s", "five", "5 parsecs"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
