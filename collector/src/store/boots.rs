//! Who was heard, by which collector, in which life, and how far it was: for the planner, which may hear it from another
//! collector, and for the coverage ledger. Instants are ages until they meet the database's clock. Never decides anything.

use sonde_proto::model::id::{BootId, Generation, ProbeId, RegionId, Seq};
use sonde_proto::model::time::{Mono, Wall, micros};
use sqlx::Row as _;
use uuid::Uuid;

use super::collectors::interval_us;
use super::regions::region;
use super::{Life, Store, StoreError};
use crate::authz::Workspace;

/// What was heard within so many seconds is told to the other collectors: as long as a probe measures alone.
const TOLD_S: i32 = 15 * 60;

/// A life of a probe's process, as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootSeen {
    /// Its id.
    pub boot: BootId,
    /// When it was first heard.
    pub first_heard: Mono,
    /// Highest number that it has given.
    pub generated_through: Seq,
    /// Samples without an ack.
    pub backlog_samples: u64,
    /// The earliest slot among them.
    pub oldest_unacked_slot: Option<Wall>,
    /// Lowest number without an ack: all below are stored, or on record as gaps.
    pub unacked_from: Seq,
}

impl BootSeen {
    /// Whether it owes numbers and does not say of which slots: a greeting names numbers alone. Until a heartbeat names the
    /// slot, what was known before it still holds.
    pub fn owes_unsaid(&self) -> bool {
        self.oldest_unacked_slot.is_none() && self.unacked_from <= self.generated_through
    }
}

/// What a probe was heard to say in one of its lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Who.
    pub probe: ProbeId,
    /// In which life.
    pub boot: BootSeen,
    /// When.
    pub heard: Mono,
    /// Version of its program.
    pub version: String,
    /// What it can run.
    pub capabilities: Vec<String>,
    /// Its clock minus the collector's, microseconds.
    pub clock_skew_us: i64,
    /// The assignment that it holds.
    pub held: Generation,
    /// Whether it said goodbye.
    pub has_left: bool,
}

/// What another collector has heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeardElsewhere {
    /// Who.
    pub probe: ProbeId,
    /// Where it stands.
    pub region: RegionId,
    /// How long ago, in microseconds of the database's clock.
    pub age_us: u64,
    /// When, by the database's clock.
    pub at: Wall,
    /// Version of its program.
    pub version: String,
    /// What it can run.
    pub capabilities: Vec<String>,
    /// Its clock minus that collector's, microseconds.
    pub clock_skew_us: i64,
    /// The assignment that it holds.
    pub held: Generation,
    /// Whether it said goodbye then.
    pub has_left: bool,
}

impl Store {
    /// Keeps what probes were heard to say until `now`; all or nothing. At most one entry for each boot. What is older than
    /// what is kept changes nothing. Bookkeeping, not configuration: it leaves no audit entry.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn record_heard(
        &self,
        _task: &Workspace,
        life: &Life,
        heard: &[Heard],
        now: Mono,
    ) -> Result<(), StoreError> {
        let age = |at: Mono| interval_us(micros(now.since(at)));
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let column = |value: &dyn Fn(&Heard) -> i64| heard.iter().map(value).collect::<Vec<i64>>();
        let ids: Vec<Uuid> = heard.iter().map(|h| h.probe.0).collect();
        let boots: Vec<Uuid> = heard.iter().map(|h| h.boot.boot.0).collect();
        let versions: Vec<&str> = heard.iter().map(|h| h.version.as_str()).collect();
        let capabilities: Vec<String> = heard.iter().map(|h| h.capabilities.join(",")).collect();
        let oldest: Vec<Option<i64>> = heard.iter().map(|h| h.boot.oldest_unacked_slot.map(|at| at.0)).collect();
        let left: Vec<bool> = heard.iter().map(|h| h.has_left).collect();
        sqlx::query(RECORD_HEARD)
            .bind(ids)
            .bind(boots)
            .bind(column(&|h| age(h.boot.first_heard)))
            .bind(column(&|h| age(h.heard)))
            .bind(versions)
            .bind(capabilities)
            .bind(column(&|h| h.clock_skew_us))
            .bind(column(&|h| whole(h.held.0)))
            .bind(column(&|h| whole(h.boot.generated_through.0)))
            .bind(column(&|h| whole(h.boot.backlog_samples)))
            .bind(oldest)
            .bind(left)
            .bind(life.id)
            .bind(column(&|h| whole(h.boot.unacked_from.0)))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The probes that other lives of collectors were the last to hear, lately.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is away.
    pub async fn heard_elsewhere(&self, _task: &Workspace, life: &Life) -> Result<Vec<HeardElsewhere>, StoreError> {
        let rows = sqlx::query(
            "select id, region, version, capabilities, clock_skew_us, held_generation, wall_us(last_seen_at) as at,
                    (extract(epoch from now() - last_seen_at) * 1000000)::bigint as age_us,
                    coalesce(gone_at >= last_seen_at, false) as has_left
             from probes
             where heard_by is distinct from $1 and revoked_at is null and last_seen_at > now() - make_interval(secs => $2)",
        )
        .bind(life.id)
        .bind(TOLD_S)
        .fetch_all(&self.pool)
        .await?;
        let read = |row: &sqlx::postgres::PgRow| {
            Ok(HeardElsewhere {
                probe: ProbeId(row.try_get("id")?),
                region: region(row.try_get("region")?)?,
                age_us: u64::try_from(row.try_get::<i64, _>("age_us")?).unwrap_or(0),
                at: Wall(row.try_get("at")?),
                version: row.try_get("version")?,
                capabilities: row.try_get("capabilities")?,
                clock_skew_us: row.try_get("clock_skew_us")?,
                held: Generation(row.try_get::<i64, _>("held_generation")?.unsigned_abs()),
                has_left: row.try_get("has_left")?,
            })
        };
        rows.iter().map(read).collect()
    }
}

/// The newest life of a probe speaks for the probe. A life that is new gets the next ordinal; several that are new at once,
/// because Postgres was away, get theirs in the order in which they were first heard.
const RECORD_HEARD: &str = "
    with heard as (
        select id, boot, now() - first_age * interval '1 microsecond' as first_at,
               now() - age * interval '1 microsecond' as at, version, string_to_array(capabilities, ',') as capabilities,
               skew, held, generated, backlog, wall_at(oldest) as oldest, has_left,
               unacked_from
        from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bigint[],
                    $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::boolean[],
                    $14::bigint[])
             as h (id, boot, first_age, age, version, capabilities, skew, held, generated, backlog, oldest, has_left,
                   unacked_from)
    ), newest as (
        select distinct on (id) * from heard order by id, at desc
    ), told as (
        update probes
        set last_seen_at = newest.at, version = newest.version, capabilities = newest.capabilities,
            clock_skew_us = newest.skew, held_generation = newest.held, heard_by = $13,
            gone_at = case when newest.has_left then newest.at else probes.gone_at end
        from newest
        where probes.id = newest.id and (probes.last_seen_at is null or probes.last_seen_at <= newest.at)
    )
    insert into probe_boots (probe_id, boot, ordinal, first_heard_at, last_heard_at, generated_through, backlog_samples,
                             oldest_unacked_slot, said_goodbye, unacked_from)
    select heard.id, heard.boot,
           coalesce((select max(ordinal) from probe_boots where probe_id = heard.id), 0)
               + row_number() over (partition by heard.id order by known.boot is not null, heard.first_at),
           heard.first_at, heard.at, heard.generated, heard.backlog, heard.oldest, heard.has_left,
           heard.unacked_from
    from heard join probes on probes.id = heard.id
         left join probe_boots as known on known.probe_id = heard.id and known.boot = heard.boot
    on conflict (probe_id, boot) do update
    set last_heard_at = greatest(probe_boots.last_heard_at, excluded.last_heard_at),
        generated_through = greatest(probe_boots.generated_through, excluded.generated_through),
        backlog_samples = case
            when excluded.last_heard_at < probe_boots.last_heard_at
                or (excluded.oldest_unacked_slot is null and excluded.unacked_from <= excluded.generated_through)
            then probe_boots.backlog_samples else excluded.backlog_samples end,
        -- Owes numbers and does not say of which slots: none is older than what it owed before, or than its last word.
        oldest_unacked_slot = case
            when excluded.last_heard_at < probe_boots.last_heard_at then probe_boots.oldest_unacked_slot
            when excluded.oldest_unacked_slot is null and excluded.unacked_from <= excluded.generated_through
            then coalesce(probe_boots.oldest_unacked_slot, probe_boots.last_heard_at)
            else excluded.oldest_unacked_slot end,
        said_goodbye = probe_boots.said_goodbye or excluded.said_goodbye,
        -- A life that gives numbers was not over, whoever thought so: what it loses from now on is still to be counted.
        closed_at = case when excluded.generated_through > probe_boots.generated_through
                    then null else probe_boots.closed_at end,
        unacked_from = greatest(probe_boots.unacked_from, excluded.unacked_from)";
