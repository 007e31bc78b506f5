//! What must hold at every step, judged when a collector speaks. Never changes anything.

use sonde_proto::session::FromCollector;

use super::clickhouse::{EXECUTION_MAX, GapRow, Row, StoreRequest};
use super::io::{Caller, Request, StreamId};
use super::world::World;

impl World {
    /// I2: nothing is acked that is not on record.
    pub(super) fn judge_message(&mut self, id: StreamId, message: &FromCollector) {
        let Some(stream) = self.streams.get(&id) else { return };
        let probe = self.probes[stream.probe].id;
        match message {
            FromCollector::Ack { boot, ranges } => {
                self.oracle.told("an ack", &self.clickhouse, probe, *boot, ranges);
            }
            FromCollector::Welcome(welcome) => {
                self.oracle.told("a Welcome", &self.clickhouse, probe, stream.boot, &welcome.stored);
            }
            FromCollector::Assignment(_)
            | FromCollector::Heartbeat { .. }
            | FromCollector::Renewed(_)
            | FromCollector::Drain { .. }
            | FromCollector::Refusal { .. }
            | FromCollector::Release => {}
        }
    }

    /// I8 and I9: each row is under the probe and region that measured it, and under the tenant of its check.
    fn judge_insert(&mut self, caller: Caller, rows: &[Row]) {
        for Row { workspace, region, stored } in rows {
            let (boot, seq, check) = (stored.boot, stored.seq, stored.sample.check);
            if !self.oracle.is_of(boot, stored.probe, region) {
                self.oracle
                    .blame(format!("I8: {caller:?} inserts row {seq} of boot {boot} as one of {}", stored.probe));
            }
            if self.postgres.config.tenant_of(check) != Some(*workspace) {
                self.oracle.blame(format!("I9: {caller:?} inserts row {seq} of check {check} for {workspace}"));
            }
        }
    }

    /// I7 to I9 and the lease: nothing begins without time left for it, or under a foreign name.
    pub(super) fn judge_request(&mut self, caller: Caller, request: &Request) {
        match request {
            Request::ClickHouse(StoreRequest::Insert { is_provisional, rows, .. }) => {
                self.judge_insert(caller, rows);
                let is_leased = self.postgres.lease_until(caller) >= self.now + EXECUTION_MAX;
                let doubt = self.weather.postgres_doubt.get(&caller.collector).copied().unwrap_or(0);
                self.oracle.provisional += u64::from(*is_provisional);
                let is_excused = *is_provisional && self.now <= doubt;
                if !is_leased && !is_excused {
                    self.oracle.blame(format!("I7: an insert of {caller:?} begins without lease time left for it"));
                }
            }
            Request::ClickHouse(StoreRequest::Recompute { version, .. }) => {
                let epoch = self.postgres.lead.map_or(0, |lead| lead.epoch);
                if !self.postgres.leads(caller, self.now) || version >> 32 != epoch {
                    self.oracle.blame(format!("lease: {caller:?} computes a rollup without holding the lease"));
                }
            }
            Request::ClickHouse(StoreRequest::Gaps(rows)) => {
                for GapRow { probe, region, gap } in rows {
                    if !self.oracle.is_of(gap.boot, *probe, region) {
                        self.oracle.blame(format!("I8: {caller:?} writes {gap:?} as one of {probe}"));
                    }
                }
            }
            Request::ClickHouse(_) | Request::Postgres(_) => {}
        }
    }
}
