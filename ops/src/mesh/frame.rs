//! The text of the live table: rows in, lines out that fit the width and height that there are.
//! Never writes to a terminal and never keeps anything between two frames.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::output;

/// Width of the longest bar in characters.
const BAR_CHARS_MAX: usize = 24;
/// A bar shorter than this says nothing: names give way instead.
const BAR_CHARS_MIN: usize = 6;
/// Names are not cut below this many characters.
const NAME_CHARS_MIN: usize = 10;
/// Names are cut to this many characters however wide the terminal is.
const NAME_CHARS_MAX: usize = 32;
/// Most rows shown; a mesh with more checks is read with `sonde sample watch`.
const ROWS_MAX: usize = 200;
/// Between two columns, where there is room for it and where there is not.
const GAPS: [&str; 2] = ["  ", " "];

/// What is known of one check in one region.
#[derive(Debug, Clone, Default)]
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) region: &'a str,
    /// Empty before the first sample.
    pub(super) outcome: &'a str,
    pub(super) total_us: Option<u32>,
    pub(super) samples: u64,
    pub(super) failed: u64,
    pub(super) error: &'a str,
}

/// Room for a frame, in characters and lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) columns: usize,
    pub(super) lines: usize,
}

/// Widths of the columns whose content varies.
struct Widths {
    name: usize,
    region: usize,
    bar: usize,
    error: usize,
    gap: &'static str,
}

/// The frame: a header, a line per row, and how many did not fit. Without `room` it takes what it needs.
pub(super) fn frame(rows: &[Line<'_>], room: Option<Room>) -> Vec<String> {
    let room = room.unwrap_or(Room { columns: usize::MAX, lines: usize::MAX });
    let widths = widths(rows, room.columns);
    let longest = rows.iter().filter_map(|row| row.total_us).max().unwrap_or(0);
    // The header, and the line that says how many rows are not shown.
    let fitting = if rows.len() < room.lines { rows.len() } else { room.lines.saturating_sub(2) }.min(ROWS_MAX);
    let mut lines = vec![line(&widths, ["CHECK", "REGION", "LATEST", "LATENCY", "", "SAMPLES", "FAILED", "ERROR"])];
    for row in &rows[..fitting] {
        let latency = row.total_us.map_or_else(|| "-".to_owned(), |us| output::latency(u64::from(us)));
        let bar = row.total_us.map_or_else(String::new, |us| bar(us, longest, widths.bar));
        let outcome = if row.outcome.is_empty() { "-" } else { row.outcome };
        let (samples, failed) = (row.samples.to_string(), row.failed.to_string());
        let (name, error) = (output::plain(row.name), output::plain(row.error));
        lines.push(line(&widths, [&name, row.region, outcome, &latency, &bar, &samples, &failed, &error]));
    }
    if fitting < rows.len() {
        lines.push(format!("... and {} more; `sonde sample watch` shows all", rows.len() - fitting));
    }
    lines.iter().map(|line| cut(line, room.columns).trim_end().to_owned()).collect()
}

/// Shares `columns` out: the bar gives way first, then the gaps, then the name; what is still too wide is cut at the right.
fn widths(rows: &[Line<'_>], columns: usize) -> Widths {
    let widest = |of: &dyn Fn(&Line<'_>) -> usize, least: usize| rows.iter().map(of).max().unwrap_or(0).max(least);
    let name = widest(&|row| output::plain(row.name).width(), 5).min(NAME_CHARS_MAX);
    let region = widest(&|row| row.region.width(), 6);
    let error = widest(&|row| output::plain(row.error).width(), 5);
    let fixed = |gap| line(&Widths { name: 0, region, bar: 0, error, gap }, [""; 8]).width();
    let [wide, narrow] = GAPS;
    let gap = if fixed(wide) + name + BAR_CHARS_MIN <= columns { wide } else { narrow };
    let bar = columns.saturating_sub(fixed(gap) + name).clamp(BAR_CHARS_MIN, BAR_CHARS_MAX);
    let name = columns.saturating_sub(fixed(gap) + bar).max(NAME_CHARS_MIN).min(name);
    Widths { name, region, bar, error, gap }
}

fn line(widths: &Widths, cells: [&str; 8]) -> String {
    let [name, region, outcome, latency, bar, samples, failed, error] = cells;
    [
        left(name, widths.name),
        left(region, widths.region),
        left(outcome, 8),
        format!("{latency:>9}"),
        left(bar, widths.bar),
        format!("{samples:>7}"),
        format!("{failed:>6}"),
        left(error, widths.error),
    ]
    .join(widths.gap)
}

/// The text cut or filled to `width` columns.
fn left(text: &str, width: usize) -> String {
    let mut text = cut(text, width).to_owned();
    text.push_str(&" ".repeat(width.saturating_sub(text.width())));
    text
}

/// The longest beginning of `text` that takes at most `width` columns.
fn cut(text: &str, width: usize) -> &str {
    let mut taken = 0;
    for (at, c) in text.char_indices() {
        taken += c.width().unwrap_or(0);
        if taken > width {
            return &text[..at];
        }
    }
    text
}

/// A bar of eighths of a character, so that small differences show.
fn bar(value: u32, longest: u32, width: usize) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    if longest == 0 {
        return String::new();
    }
    let eighths = u64::from(value) * (width as u64) * 8 / u64::from(longest);
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

    fn row<'a>(name: &'a str, total_us: Option<u32>, error: &'a str) -> Line<'a> {
        Line { name, region: "eu-west", outcome: "ok", total_us, samples: 12, failed: 3, error }
    }

    #[test]
    fn bars_are_in_proportion() {
        assert_eq!(bar(0, 0, 24), "");
        assert_eq!(bar(100, 100, 24).chars().count(), 24);
        assert_eq!(bar(50, 100, 24).chars().count(), 12);
        assert_eq!(bar(1, 1_000_000, 24), "▏");
    }

    #[test]
    fn no_line_is_wider_and_no_frame_higher_than_its_room() {
        let long = "x".repeat(120);
        let names =
            ["demo-broken-certificate", "名前チェック 😀 名前チェック 名前チェック", "esc\u{1b}[2J\u{202e}", &long];
        let rows: Vec<Line<'_>> = (0..40_u32)
            .map(|n| row(names[n as usize % names.len()], Some(n * 10_000), "certificate_expired"))
            .collect();
        for columns in [1, 20, 50, 80, 120, 200] {
            for lines in [1, 2, 10, 24, 41, 60] {
                let text = frame(&rows, Some(Room { columns, lines }));
                assert!(text.len() <= lines.max(2), "{} lines in {lines}", text.len());
                for line in text {
                    assert!(line.width() <= columns, "{columns}: {line}");
                    assert!(!line.contains(char::is_control), "{line:?}");
                }
            }
        }
    }

    #[test]
    fn at_eighty_columns_everything_of_the_demo_is_there() {
        let rows = [row("demo-broken-certificate", Some(302_100), "tls_expired"), row("demo-slow", None, "")];
        let text = frame(&rows, Some(Room { columns: 80, lines: 24 }));
        for word in ["demo-broken-certif", "eu-west", "ok", "302.10 ms", "██████", "12", "3"] {
            assert!(text[1].contains(word), "{word}: {text:#?}");
        }
        let wide = frame(&rows, Some(Room { columns: 200, lines: 24 }));
        assert!(wide[1].ends_with("tls_expired") && wide[1].contains("demo-broken-certificate"), "{wide:#?}");
    }

    #[test]
    fn rows_that_do_not_fit_are_counted() {
        let rows: Vec<Line<'_>> = (0..30).map(|_| row("a", None, "")).collect();
        let text = frame(&rows, Some(Room { columns: 80, lines: 10 }));
        assert_eq!(text.len(), 10);
        assert!(text[9].contains("22 more"), "{text:#?}");
        assert_eq!(frame(&rows, None).len(), 31);
    }
}
