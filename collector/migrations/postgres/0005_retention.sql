-- How long each workspace keeps its samples and rollups, in days. Null for what the program keeps by default.
alter table workspaces add column keep_raw_days integer check (keep_raw_days between 9 and 3660);
alter table workspaces add column keep_minutes_days integer check (keep_minutes_days between 9 and 3660);
alter table workspaces add column keep_hours_days integer check (keep_hours_days between 9 and 3660);
alter table workspaces add column keep_days_days integer check (keep_days_days between 9 and 3660);

-- From when on each kind of row is complete, where a longer age does not reach back: what a shorter age had removed is gone.
-- Null when no age was ever changed.
alter table workspaces add column raw_since timestamptz;
alter table workspaces add column minutes_since timestamptz;
alter table workspaces add column hours_since timestamptz;
alter table workspaces add column days_since timestamptz;
