-- What was to be measured, who was told to, and who was there: what the coverage ledger reasons from. Rows are only added
-- and their ends moved; nothing here is needed to measure.

-- When each check was expected to run, and how. A change ends one period and begins the next at the same instant.
-- `definition` is not kept: rhythm and regions are all that slots depend on.
create table check_periods (
    check_id     uuid not null references checks (id) on delete cascade,
    workspace_id uuid not null references workspaces (id) on delete cascade,
    valid_from   timestamptz not null,
    -- Null while it lasts.
    valid_until  timestamptz,
    interval_us  bigint not null check (interval_us > 0),
    regions      text[] not null,
    paused       boolean not null,
    primary key (check_id, valid_from),
    check (valid_until is null or valid_until > valid_from)
);

create unique index check_periods_open on check_periods (check_id) where valid_until is null;
create index check_periods_workspace on check_periods (workspace_id, valid_from);

-- Who was to run a check in a region from an instant on; holds until the next row of the same check and region.
create table placements (
    check_id   uuid not null,
    region     text not null,
    placed_at  timestamptz not null,
    -- Null when nobody was.
    probe_id   uuid,
    -- assigned, no_probe, no_capability, or withdrawn when the check left the region.
    reason     text not null check (reason in ('assigned', 'no_probe', 'no_capability', 'withdrawn')),
    primary key (check_id, region, placed_at),
    check ((probe_id is null) = (reason <> 'assigned'))
);

-- Lives of probe processes as collectors saw them.
create table probe_boots (
    probe_id             uuid not null references probes (id),
    boot                 uuid not null,
    -- The n-th life that was seen of this probe: boots stay in order even when the probe's clock does not.
    ordinal              bigint not null,
    first_heard_at       timestamptz not null,
    last_heard_at        timestamptz not null,
    -- Highest sample number that the probe said it had sealed.
    generated_through    bigint not null default 0,
    -- Samples without an ack when it was last heard, and the earliest slot among them; null when there are none.
    backlog_samples      bigint not null default 0,
    oldest_unacked_slot  timestamptz,
    -- Lowest number without an ack: all below are stored, or on record as gaps.
    unacked_from         bigint not null default 1 check (unacked_from > 0),
    -- Whether it said goodbye.
    said_goodbye         boolean not null default false,
    -- When its lost numbers were counted and written down, after a newer life had begun.
    closed_at            timestamptz,
    primary key (probe_id, boot)
);

create index probe_boots_open on probe_boots (probe_id) where closed_at is null;
create unique index probe_boots_ordinal on probe_boots (probe_id, ordinal);

-- Lives of collector processes: `last_alive_at` is moved every few seconds, and over a pause of Postgres at its end.
create table collector_lives (
    life          uuid primary key,
    collector_id  text not null,
    started_at    timestamptz not null default now(),
    last_alive_at timestamptz not null default now(),
    -- Until when its inserts may run; a session it held is in doubt until then.
    lease_until   timestamptz not null default now()
);

create index collector_lives_alive on collector_lives (last_alive_at);

-- Checks that were there before: as far as is known, they have always been as they are.
insert into check_periods (check_id, workspace_id, valid_from, valid_until, interval_us, regions, paused)
select id, workspace_id, created_at,
       case when deleted_at is not null then greatest(deleted_at, created_at + interval '1 microsecond') end,
       (definition ->> 'interval_us')::bigint,
       array(select jsonb_array_elements_text(definition -> 'regions') order by 1), paused
from checks;
