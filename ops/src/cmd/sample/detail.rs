//! Readings and parts of samples in tables and JSON. Never asks the collector.

use serde::Serialize;
use sonde_proto::wire;

use super::View;
use crate::output::{self, Row};

/// A part of a run as the JSON promises it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PartView {
    kind: String,
    number: u32,
    addr: Option<String>,
    error: Option<String>,
    status_code: Option<u32>,
    dns_us: Option<u32>,
    connect_us: Option<u32>,
    tls_us: Option<u32>,
    send_us: Option<u32>,
    ttfb_us: Option<u32>,
    transfer_us: Option<u32>,
    total_us: u32,
    sent: u32,
    received: u32,
}

impl From<wire::SamplePart> for PartView {
    fn from(part: wire::SamplePart) -> Self {
        let unless_empty = |text: String| (!text.is_empty()).then_some(text);
        Self {
            kind: part.kind,
            number: part.number,
            addr: unless_empty(part.addr),
            error: unless_empty(part.error),
            status_code: part.status_code,
            dns_us: part.dns_us,
            connect_us: part.connect_us,
            tls_us: part.tls_us,
            send_us: part.send_us,
            ttfb_us: part.ttfb_us,
            transfer_us: part.transfer_us,
            total_us: part.total_us,
            sent: part.sent,
            received: part.received,
        }
    }
}

/// A line of the table: a sample with its readings, or one of its parts.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    cells: Vec<String>,
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] = &[
        "slot", "region", "outcome", "dns", "connect", "tls", "send", "ttfb", "transfer", "total", "status", "bytes",
        "error", "check", "detail",
    ];

    fn cells(&self) -> Vec<String> {
        self.cells.clone()
    }
}

/// The sample, then each of its parts.
pub(super) fn lines(view: &View) -> Vec<Line> {
    let readings: Vec<String> = view.readings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut cells = view.cells();
    cells.push(readings.join(" "));
    let parts = view.parts.iter().map(|part| Line { cells: part_cells(part) });
    std::iter::once(Line { cells }).chain(parts).collect()
}

fn part_cells(part: &PartView) -> Vec<String> {
    let outcome = if part.error.is_some() { "failed" } else { "ok" };
    let packets = if part.sent == 0 { String::new() } else { format!(" {} of {} packets", part.received, part.sent) };
    let addr = part.addr.as_deref().unwrap_or("*");
    vec![
        String::new(),
        format!("  {} {}", part.kind, part.number),
        outcome.to_owned(),
        phase(part.dns_us),
        phase(part.connect_us),
        phase(part.tls_us),
        phase(part.send_us),
        phase(part.ttfb_us),
        phase(part.transfer_us),
        output::latency(u64::from(part.total_us)),
        output::or_dash(part.status_code),
        String::new(),
        part.error.clone().unwrap_or_default(),
        String::new(),
        format!("{addr}{packets}"),
    ]
}

/// A duration, or a dash where there was none.
pub(super) fn phase(us: Option<u32>) -> String {
    us.map_or_else(|| "-".to_owned(), |us| output::latency(u64::from(us)))
}
