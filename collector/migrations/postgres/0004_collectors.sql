-- Several collectors on one Postgres: who leads, whose sessions are whose, and what each collector has heard.

-- The timeline of this server: a promoted standby, which may have lost the last commits, has a higher one. Numbers that
-- fence others off begin at a multiple of it, so that none is given out twice. A server that does not say is on its first.
create function sonde_timeline() returns bigint
    language plpgsql stable as $$
begin
    return ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint;
exception when others then
    return 1;
end
$$;

-- Who does what only one collector may do. Held for 15 s at a time, on this server's clock.
create table leases (
    name       text primary key,
    -- A life of a collector process, not a collector: a restarted one is another holder.
    holder     uuid not null,
    -- Goes up whenever the holder changes. At most 1,048,576 times on one timeline.
    epoch      bigint not null,
    expires_at timestamptz not null
);

-- The life that holds the session; null in rows of an older version.
alter table probe_sessions add column life uuid;
-- Until when an insert of a former holder may still run.
alter table probe_sessions add column doubt_until timestamptz not null default now();

-- One row: goes up by one with every write to `plans`, and names the rows that it wrote.
create table plan_version (
    one     boolean primary key default true check (one),
    version bigint not null
);

insert into plan_version (version) values (0);
alter table plans add column version bigint not null default 0;
create index plans_by_version on plans (version);

-- What the planner must know of a probe that another collector hears. `last_seen_at` is on this server's clock.
alter table probes add column held_generation bigint not null default 0;
alter table probes add column heard_by uuid;
-- When it last said goodbye.
alter table probes add column gone_at timestamptz;
create index probes_last_seen_at on probes (last_seen_at);

create index placements_placed_at on placements (placed_at);
create index probe_boots_last_heard_at on probe_boots (last_heard_at);

-- Reported gaps are stored in ClickHouse, beside the samples that they stand for.
drop table reported_gaps;
