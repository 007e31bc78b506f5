//! How answers are printed: a table for people, JSON for programs. Field names of the JSON are a promise.

use std::io::Write as _;

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::error::{CliError, Kind, Result};

/// Longest length of time that a flag takes: ten years of 365 days.
const LENGTH_MAX: std::time::Duration = std::time::Duration::from_secs(315_360_000);

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

    /// What is shown below the cells when the thing is shown alone.
    fn details(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
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
            for (title, cell) in R::COLUMNS.iter().copied().zip(row.cells()).chain(row.details()) {
                table.add_row([title.to_owned(), plain(&cell)]);
            }
            write_line(&flush_left(&table))
        }
    }
}

/// Prints one object for programs.
///
/// # Errors
/// When standard output is closed.
pub fn json_object<T: Serialize>(value: &T) -> Result<()> {
    write_line(&json(value))
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
    write(format!("{line}\n").as_bytes())
}

/// Prints bytes as they are.
///
/// # Errors
/// [`Kind::ReaderGone`] when nobody reads any more, and whatever else keeps standard output from being written.
pub fn write(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|fault| {
        if fault.kind() == std::io::ErrorKind::BrokenPipe {
            return CliError::new(Kind::ReaderGone, "nobody reads standard output");
        }
        CliError::new(Kind::Internal, format!("standard output cannot be written: {fault}"))
    })
}

/// The text with everything escaped that moves a terminal's cursor, colours it or turns the direction of writing.
/// What joins letters and emoji stays.
pub fn plain(text: &str) -> String {
    let moves = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
    };
    text.chars().fold(String::with_capacity(text.len()), |mut plain, c| {
        if moves(c) {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
        plain
    })
}

fn json<T: Serialize>(value: &T) -> String {
    // Rows are plain structs of numbers and strings: serialising them cannot fail.
    serde_json::to_string_pretty(value).unwrap_or_else(|fault| Value::String(fault.to_string()).to_string())
}

fn table<R: Row>(rows: &[R]) -> String {
    let mut table = bare_table();
    table.set_header(R::COLUMNS.iter().map(|title| title.to_uppercase()));
    for row in rows {
        table.add_row(row.cells().iter().map(|cell| plain(cell)));
    }
    // Wrapped cells break copying of ids: lines may be longer than the terminal.
    flush_left(&table)
}

/// The table without the column of spaces before it and the spaces at the ends of its lines.
fn flush_left(table: &Table) -> String {
    let text = table.to_string();
    text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect::<Vec<_>>().join("\n")
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

/// The same for people, without digits that say nothing: `2026-11-01T00:00:00Z`.
pub fn short_instant(text: &str) -> String {
    text.replace(".000000Z", "Z")
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

/// A length of time as a flag takes it: `3s`, `1h30m`, `250ms`.
pub fn length(us: u64) -> String {
    if us == 0 {
        return "0s".to_owned();
    }
    let mut left = us;
    let mut text = String::new();
    for (unit, size) in [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)] {
        if left >= size {
            text.push_str(&format!("{}{unit}", left / size));
            left %= size;
        }
    }
    text
}

/// A cell for something that may be absent.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A length of time as a flag takes it: `5s`, `1500ms`, `1h30m`.
///
/// # Errors
/// When the text is not a length of time, is negative, or is longer than ten years.
pub fn parse_duration(text: &str) -> std::result::Result<std::time::Duration, String> {
    let refused =
        || format!("`{text}` is not a length of time: write a number and a unit, such as 500ms, 5s, 15m, 1h or 30d");
    let parsed: jiff::Span = text.parse().map_err(|_| refused())?;
    // A day has 24 hours, and months and years have no length.
    let parsed = parsed.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| refused())?;
    if parsed.is_negative() {
        return Err(format!("`{text}` is negative: write it without the minus, such as 5m"));
    }
    let length = std::time::Duration::try_from(parsed).map_err(|_| refused())?;
    if length > LENGTH_MAX {
        return Err(format!("`{text}` is longer than ten years"));
    }
    Ok(length)
}

/// An instant as a flag takes it: `2026-11-01T00:00:00Z`, with the distance to UTC as in `2026-11-01T02:00:00+02:00`, or
/// a date alone, which means its first instant in UTC.
///
/// # Errors
/// When the text is none of these.
pub fn parse_instant(text: &str) -> std::result::Result<jiff::Timestamp, String> {
    let midnight = format!("{text}T00:00:00Z");
    // Only a date is as long as this; `2026-11-01T00` must not become one by the addition.
    let text_or_midnight = if text.len() == "2026-11-01".len() { &midnight } else { text };
    text_or_midnight.parse().map_err(|_| {
        format!("`{text}` is not an instant: write date, time and zone, such as 2026-11-01T00:00:00Z, or a date of UTC")
    })
}

/// The end of a window: an instant, or `now`, which becomes an instant that nobody will live to see.
///
/// # Errors
/// As [`parse_instant`].
pub fn parse_end(text: &str) -> std::result::Result<jiff::Timestamp, String> {
    if text == "now" { Ok(jiff::Timestamp::MAX) } else { parse_instant(text).map_err(|said| said + ", or `now`") }
}

/// A port as a flag takes it. Whether a target may use it is the collector's to say.
///
/// # Errors
/// When the text is not a number that could be a port.
pub fn parse_port(text: &str) -> std::result::Result<u32, String> {
    text.parse().map_err(|_| format!("`{text}` is not a port: use 1 to 65535"))
}

/// A word of a list that was separated by commas, without the spaces around it.
///
/// # Errors
/// When nothing is left.
pub fn parse_word(text: &str) -> std::result::Result<String, String> {
    match text.trim() {
        "" => Err("a name between two commas, or at an end, is missing".to_owned()),
        word => Ok(word.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_have_six_digits_and_a_z() {
        assert_eq!(short_instant("2023-11-14T22:13:00.000000Z"), "2023-11-14T22:13:00Z");
        assert_eq!(short_instant("2023-11-14T22:13:20.000001Z"), "2023-11-14T22:13:20.000001Z");
        assert_eq!(instant(1_700_000_000_000_001).as_deref(), Some("2023-11-14T22:13:20.000001Z"));
        assert_eq!(instant(0), None);
    }

    #[test]
    fn lengths_of_time_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(std::time::Duration::from_millis(500)));
        assert_eq!(parse_duration("15m"), Ok(std::time::Duration::from_secs(900)));
        assert_eq!(parse_duration("30d"), Ok(std::time::Duration::from_secs(30 * 86_400)));
        for bad in ["", "5", "-5s", "five", "5 parsecs", "99999999999h", "99999999999999999999d", "1mo", "5y", "-1d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_duration("-5m").unwrap_err().contains("without the minus"));
    }

    #[test]
    fn instants_need_a_zone_unless_they_are_dates() {
        for good in ["2026-11-01T00:00:00Z", "2026-11-01T02:00:00+02:00", "2026-11-01 00:00:00.000000Z"] {
            assert_eq!(parse_instant(good).map(jiff::Timestamp::as_second), Ok(1_793_491_200), "{good}");
        }
        assert_eq!(parse_instant("2026-11-01"), parse_instant("2026-11-01T00:00:00Z"));
        assert_eq!(parse_end("2026-11-01"), parse_instant("2026-11-01"));
        assert_eq!(parse_end("now"), Ok(jiff::Timestamp::MAX));
        assert!(parse_end("tomorrow").unwrap_err().ends_with("or `now`"));
        for bad in ["", "yesterday", "now", "2026-11-32", "2026-11-01T00:00:00", "2026-02-30T00:00:00Z", "1793491200"] {
            assert!(parse_instant(bad).is_err_and(|said| said.contains("is not an instant")), "{bad}");
        }
    }

    #[test]
    fn lengths_of_time_read_back_as_they_are_shown() {
        for (us, shown) in [(0, "0s"), (3_000_000, "3s"), (1_500_000, "1s500ms"), (5_400_000_001, "1h30m1us")] {
            assert_eq!(length(us), shown);
            assert_eq!(parse_duration(shown), Ok(std::time::Duration::from_micros(us)));
        }
    }

    #[test]
    fn nothing_in_a_name_reaches_the_terminal_but_letters() {
        assert_eq!(plain("a\u{1b}[31m\r\nb\u{9b}2J"), "a\\u{1b}[31m\\r\\nb\\u{9b}2J");
        assert_eq!(plain("x\u{202e}y\u{2066}z\u{200b}"), "x\\u{202e}y\\u{2066}z\\u{200b}");
        let family = "名前 ünï 👨\u{200d}👩";
        assert_eq!(plain(family), family);
    }

    #[derive(Serialize)]
    struct Thing(&'static str, &'static str);

    impl Row for Thing {
        const COLUMNS: &'static [&'static str] = &["first", "second"];

        fn cells(&self) -> Vec<String> {
            vec![self.0.to_owned(), self.1.to_owned()]
        }
    }

    #[test]
    fn columns_stay_in_line_whatever_is_in_the_cells() {
        let text = table(&[Thing("", "x"), Thing("名前", "y\nz"), Thing("long\u{1b}[2J", "")]);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            ["FIRST          SECOND", "               x", "名前           y\\nz", "long\\u{1b}[2J",]
        );
        assert_eq!(table::<Thing>(&[]), "FIRST  SECOND");
    }
}
