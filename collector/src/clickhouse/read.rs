//! What people ask: the newest samples, always of one workspace, through the deduplicating view.
//! Never reads without a window, a limit and a deadline.

use std::time::Duration;

use serde::Deserialize;
use sonde_proto::model::id::{CheckId, ProbeId, RegionId};
use sonde_proto::model::sample::Phases;
use sonde_proto::model::time::Wall;
use uuid::Uuid;

use super::details::{DetailRow, PartHead, PartNumbers, SELECTED};
use super::insert::instant;
use super::{ClickHouseError, Client};
use crate::authz::Workspace;

/// Most rows of one list. At about 250 bytes in memory: 25 MB.
pub const LIST_ROWS_MAX: u32 = 100_000;
/// Width of the first piece that a list looks at, back from the end of its window.
const FIRST_PIECE: Duration = Duration::from_secs(15 * 60);
/// How much wider each further piece is: 9 pieces reach a year.
const PIECE_GROWTH: u32 = 4;

/// A window of slots: `from` included, `until` excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First instant.
    pub from: Wall,
    /// First instant after it.
    pub until: Wall,
}

/// Which samples to list.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// One check, or all of the workspace.
    pub check: Option<CheckId>,
    /// One region, or all.
    pub region: Option<RegionId>,
    /// The slots.
    pub window: Window,
    /// Most rows, up to [`LIST_ROWS_MAX`].
    pub limit: u32,
}

/// A sample as it is stored, with its words as words: a newer build may have written ones that this build lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSample {
    /// The check.
    pub check: CheckId,
    /// The probe.
    pub probe: ProbeId,
    /// The probe's region.
    pub region: String,
    /// The slot.
    pub slot_at: Wall,
    /// When the run began.
    pub started_at: Wall,
    /// `ok`, `degraded` or `failed`.
    pub outcome: String,
    /// Class of the failure; empty unless failed.
    pub error: String,
    /// The parts of the run.
    pub phases: Phases,
    /// From the beginning of the first phase to the end of the last, microseconds.
    pub total_us: u32,
    /// HTTP status, DNS response code, or the status of gRPC when it is not OK.
    pub status_code: Option<u16>,
    /// Payload bytes received.
    pub bytes: Option<u64>,
    /// Readings and parts.
    pub detail: DetailRow,
}

#[derive(::clickhouse::Row, Deserialize)]
struct SampleRow {
    #[serde(with = "::clickhouse::serde::uuid")]
    check_id: Uuid,
    #[serde(with = "::clickhouse::serde::uuid")]
    probe_id: Uuid,
    region: String,
    slot_at: i64,
    started_at: i64,
    outcome: String,
    error: String,
    dns_us: Option<u32>,
    connect_us: Option<u32>,
    tls_us: Option<u32>,
    send_us: Option<u32>,
    ttfb_us: Option<u32>,
    transfer_us: Option<u32>,
    total_us: u32,
    status_code: Option<u16>,
    bytes: Option<u64>,
    reading_pairs: Vec<(String, i64)>,
    part_heads: Vec<PartHead>,
    part_numbers: Vec<PartNumbers>,
}

impl Client {
    /// Lists samples, newest slot first; equal slots by check, region and probe.
    ///
    /// Looks at ever older pieces of the window until the limit is reached, so that the newest rows of a busy
    /// workspace cost the same whatever the window is.
    ///
    /// # Errors
    /// When ClickHouse is away, or the question is too big for it.
    pub async fn list_samples(
        &self,
        workspace: &Workspace,
        query: &ListQuery,
    ) -> Result<Vec<ListedSample>, ClickHouseError> {
        let limit = usize::try_from(query.limit.min(LIST_ROWS_MAX)).unwrap_or(0);
        let mut listed = Vec::new();
        for piece in pieces(query.window) {
            let statement = list_statement(workspace, query, piece, limit - listed.len());
            let rows = self.read(self.inner.reads.query(&statement).fetch_all::<SampleRow>()).await?;
            listed.extend(rows.into_iter().map(ListedSample::from));
            if listed.len() >= limit {
                break;
            }
        }
        Ok(listed)
    }
}

impl From<SampleRow> for ListedSample {
    fn from(row: SampleRow) -> Self {
        Self {
            check: CheckId(row.check_id),
            probe: ProbeId(row.probe_id),
            region: row.region,
            slot_at: Wall(row.slot_at),
            started_at: Wall(row.started_at),
            outcome: row.outcome,
            error: row.error,
            phases: Phases {
                dns_us: row.dns_us,
                connect_us: row.connect_us,
                tls_us: row.tls_us,
                send_us: row.send_us,
                ttfb_us: row.ttfb_us,
                transfer_us: row.transfer_us,
            },
            total_us: row.total_us,
            status_code: row.status_code,
            bytes: row.bytes,
            detail: DetailRow {
                reading_pairs: row.reading_pairs,
                part_heads: row.part_heads,
                part_numbers: row.part_numbers,
            },
        }
    }
}

/// Cuts a window into pieces, newest first, each [`PIECE_GROWTH`] times as wide as the one before.
fn pieces(window: Window) -> Vec<Window> {
    let mut pieces = Vec::new();
    let mut until = window.until;
    let mut width = FIRST_PIECE;
    while until > window.from {
        let from = (until - width).max(window.from);
        pieces.push(Window { from, until });
        until = from;
        width = width.saturating_mul(PIECE_GROWTH);
    }
    pieces
}

/// Ids and instants are formatted from their types; a region is `a-z0-9-` by construction: nothing needs quoting.
fn filter(workspace: &Workspace, check: Option<CheckId>, region: Option<&RegionId>, window: Window) -> String {
    let mut filter = format!("workspace_id = '{}'", workspace.id());
    if let Some(check) = check {
        filter.push_str(&format!(" AND check_id = '{check}'"));
    }
    if let Some(region) = region {
        filter.push_str(&format!(" AND region = '{region}'"));
    }
    filter.push_str(&format!(" AND slot_at >= {} AND slot_at < {}", instant(window.from), instant(window.until)));
    filter
}

fn list_statement(workspace: &Workspace, query: &ListQuery, piece: Window, limit: usize) -> String {
    format!(
        "SELECT check_id, probe_id, toString(region) AS region, slot_at, started_at, toString(outcome) AS outcome, \
           toString(error) AS error, dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us, total_us, \
           status_code, bytes, {SELECTED} \
         FROM samples_v WHERE {} ORDER BY slot_at DESC, check_id, region, probe_id LIMIT {limit}",
        filter(workspace, query.check, query.region.as_ref(), piece),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_tile_the_window_from_its_end() {
        let year = Window { from: Wall(0), until: Wall(0) + Duration::from_secs(31_536_000) };
        let cut = pieces(year);
        assert!(cut.len() <= 9, "{}", cut.len());
        assert_eq!(cut.first().map(|piece| piece.until), Some(year.until));
        assert_eq!(cut.last().map(|piece| piece.from), Some(year.from));
        for pair in cut.windows(2) {
            assert_eq!(pair[0].from, pair[1].until);
        }
        assert!(pieces(Window { from: Wall(5), until: Wall(5) }).is_empty());
    }
}
