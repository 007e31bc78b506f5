-- Workspaces, regions, checks, API keys, the audit log and the version of the configuration.
-- Instants are timestamptz; the program reads and writes them as microseconds through the two functions below.

create function wall_us(at timestamptz) returns bigint
    language sql stable strict parallel safe
    return (extract(epoch from at) * 1000000)::bigint;

create function wall_at(us bigint) returns timestamptz
    language sql stable strict parallel safe
    return 'epoch'::timestamptz + (us / 86400000000) * interval '24 hours' + (us % 86400000000) * interval '1 microsecond';

create table workspaces (
    id         uuid primary key,
    name       text not null constraint workspaces_name_key unique,
    created_at timestamptz not null default now()
);

-- Head of each workspace's audit log. Its row is locked by every mutation of the workspace: entries are numbered
-- without holes, and limits and names are judged without races.
create table audit_heads (
    workspace_id uuid primary key references workspaces (id),
    last_id      bigint not null default 0
);

create table audit_log (
    workspace_id uuid not null references workspaces (id),
    id           bigint not null check (id >= 1),
    at           timestamptz not null default now(),
    actor        text not null,
    action       text not null,
    subject      text not null,
    before       jsonb,
    after        jsonb,
    address      text not null default '',
    request_id   uuid not null,
    primary key (workspace_id, id)
);

create function audit_log_is_append_only() returns trigger
    language plpgsql as $$
begin
    raise exception 'the audit log is append-only: % is refused', tg_op using errcode = 'insufficient_privilege';
end
$$;

create trigger audit_log_append_only
    before update or delete or truncate on audit_log
    for each statement execute function audit_log_is_append_only();

-- Also for a session that claims to be a replica.
alter table audit_log enable always trigger audit_log_append_only;

create table regions (
    name       text primary key,
    created_at timestamptz not null default now()
);

create table checks (
    id               uuid primary key,
    workspace_id     uuid not null references workspaces (id),
    name             text not null,
    definition       jsonb not null,
    definition_bytes integer not null,
    paused           boolean not null,
    created_at       timestamptz not null default now(),
    updated_at       timestamptz not null default now(),
    deleted_at       timestamptz
);

create unique index checks_name_key on checks (workspace_id, name) where deleted_at is null;
create index checks_deleted_at on checks (deleted_at) where deleted_at is not null;

-- Regions that a check has lost, so that samples from its last days there are still admitted.
create table check_former_regions (
    check_id   uuid not null references checks (id),
    region     text not null references regions (name),
    removed_at timestamptz not null,
    primary key (check_id, region)
);

create table api_keys (
    id           uuid primary key,
    workspace_id uuid not null references workspaces (id),
    name         text not null,
    prefix       text not null,
    sha256       bytea not null constraint api_keys_sha256_key unique check (octet_length(sha256) = 32),
    scopes       text[] not null check (cardinality(scopes) > 0),
    created_at   timestamptz not null default now(),
    expires_at   timestamptz,
    revoked_at   timestamptz
);

create index api_keys_workspace on api_keys (workspace_id, created_at);

-- Requests that named themselves, with what they made, so that a repeat gets the first result.
create table requests (
    workspace_id uuid not null references workspaces (id),
    actor        text not null,
    request_id   uuid not null,
    digest       bytea not null,
    subject      uuid not null,
    created_at   timestamptz not null default now(),
    primary key (workspace_id, actor, request_id)
);

create index requests_created_at on requests (created_at);

-- One row: goes up by one with every change that may change an assignment.
create table config_version (
    one     boolean primary key default true check (one),
    version bigint not null
);

insert into config_version (version) values (1);
insert into workspaces (id, name) values ('00000000-0000-7000-8000-000000000001', 'default');
insert into audit_heads (workspace_id) values ('00000000-0000-7000-8000-000000000001');
