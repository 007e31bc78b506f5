-- Probes, how they join, what certificates they hold, which session is theirs, and what they were told to run.

create table probes (
    id                     uuid primary key,
    name                   text not null,
    region                 text not null references regions (name),
    weight                 integer not null default 1 check (weight between 1 and 1000),
    drained                boolean not null default false,
    joined_at              timestamptz not null default now(),
    revoked_at             timestamptz,
    certificate_expires_at timestamptz not null,
    -- What the probe said of itself; written at most every 10 s.
    version                text not null default '',
    capabilities           text[] not null default '{}',
    last_seen_at           timestamptz,
    clock_skew_us          bigint not null default 0
);

-- The name of a revoked probe is free again.
create unique index probes_name_key on probes (region, name) where revoked_at is null;
create index probes_revoked on probes (revoked_at) where revoked_at is not null;

create table join_tokens (
    sha256      bytea primary key check (octet_length(sha256) = 32),
    region      text not null references regions (name),
    name        text not null,
    created_at  timestamptz not null default now(),
    expires_at  timestamptz not null,
    used_at     timestamptz,
    probe_id    uuid references probes (id),
    -- Public key that the token was used with, so that a lost answer can be asked for again.
    key_sha256  bytea check (octet_length(key_sha256) = 32),
    -- When somebody last tried it with another key; audited at most once a minute.
    reused_at   timestamptz
);

create index join_tokens_expires_at on join_tokens (expires_at);

create table certificates (
    serial     bytea primary key,
    probe_id   uuid not null references probes (id),
    key_sha256 bytea not null check (octet_length(key_sha256) = 32),
    der        bytea not null,
    issued_at  timestamptz not null default now(),
    expires_at timestamptz not null
);

create index certificates_probe on certificates (probe_id, issued_at);

-- The newest session of each probe; the epoch fences off older ones.
create table probe_sessions (
    probe_id     uuid primary key references probes (id),
    epoch        bigint not null,
    boot         uuid not null,
    collector_id text not null,
    opened_at    timestamptz not null default now()
);

-- What each probe was told last, as the wire carries it: after a restart unchanged work is not sent again.
create table plans (
    probe_id   uuid primary key references probes (id),
    generation bigint not null,
    assignment bytea not null,
    updated_at timestamptz not null default now()
);

-- Sealed samples that a probe had to forget before the store confirmed them.
create table reported_gaps (
    probe_id    uuid not null references probes (id),
    boot        uuid not null,
    first_seq   bigint not null,
    last_seq    bigint not null,
    reported_at timestamptz not null default now(),
    primary key (probe_id, boot, first_seq),
    check (first_seq >= 1 and last_seq >= first_seq)
);
