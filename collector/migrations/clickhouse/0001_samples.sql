-- Raw samples. Statements end with a semicolon at the end of a line; `{replacing_engine}` is filled in by the program.
--
-- The sorting key begins with what people ask for (tenant, check, region, time) and ends with the full identity
-- (probe, boot, seq), so that two copies of a row are equal in the key and always share a partition: a merge removes
-- the copy, and the view hides it until then. Nothing in a row is made by the server: a repeated insert is identical.
--
-- Codecs, measured on 3.1 million rows of noisy phases: 12.8 bytes per row on disk, of which 12 are the noise itself.
CREATE TABLE IF NOT EXISTS samples
(
    workspace_id UUID COMMENT 'Tenant',
    check_id UUID COMMENT 'Check',
    region LowCardinality(String) COMMENT 'Region of the probe',
    slot_at DateTime64(6, 'UTC') COMMENT 'Slot that the run fills' CODEC(DoubleDelta, ZSTD(1)),
    probe_id UUID COMMENT 'Who measured',
    boot UUID COMMENT 'In which life of its process',
    seq UInt64 COMMENT 'As which sample of that life, from 1' CODEC(Delta, ZSTD(1)),
    generation UInt64 COMMENT 'Assignment under which it ran' CODEC(T64, ZSTD(1)),
    kind Enum8('scheduled' = 1, 'confirm' = 2, 'run_now' = 3) COMMENT 'Why it ran',
    started_at DateTime64(6, 'UTC') COMMENT 'When it began' CODEC(Delta, ZSTD(1)),
    outcome Enum8('ok' = 1, 'degraded' = 2, 'failed' = 3) COMMENT 'How it ended',
    error LowCardinality(String) COMMENT 'Class of the failure, empty unless failed',
    dns_us Nullable(UInt32) COMMENT 'Name resolution, microseconds' CODEC(T64, ZSTD(1)),
    connect_us Nullable(UInt32) COMMENT 'TCP handshake, microseconds' CODEC(T64, ZSTD(1)),
    tls_us Nullable(UInt32) COMMENT 'TLS handshake, microseconds' CODEC(T64, ZSTD(1)),
    send_us Nullable(UInt32) COMMENT 'Sending the request, microseconds' CODEC(T64, ZSTD(1)),
    ttfb_us Nullable(UInt32) COMMENT 'Last request byte to first response byte, microseconds' CODEC(T64, ZSTD(1)),
    transfer_us Nullable(UInt32) COMMENT 'First to last response byte, microseconds' CODEC(T64, ZSTD(1)),
    total_us UInt32 COMMENT 'Beginning of the first phase to end of the last, microseconds' CODEC(T64, ZSTD(1)),
    status_code Nullable(UInt16) COMMENT 'HTTP status or DNS response code' CODEC(T64, ZSTD(1)),
    bytes Nullable(UInt64) COMMENT 'Payload bytes received' CODEC(T64, ZSTD(1)),
    -- Both find the numbers of one boot inside a partition: within a granule of one check, seq rises with the slot.
    INDEX by_boot boot TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_seq seq TYPE minmax GRANULARITY 1
)
ENGINE = {replacing_engine}
PARTITION BY toYYYYMMDD(slot_at)
ORDER BY (workspace_id, check_id, region, slot_at, probe_id, boot, seq);

-- What readers see: every sample once, and of several runs of one slot the one of the higher generation, then of the
-- lower probe id. Runs without a slot of their own (confirm, run_now) are told apart by their identity.
-- Filters on workspace, check, region and slot reach the table's index, because they are part of the LIMIT BY key.
CREATE VIEW IF NOT EXISTS samples_v AS
SELECT
    workspace_id, check_id, region, slot_at, probe_id, boot, seq, generation, kind, started_at, outcome, error,
    dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us, total_us, status_code, bytes
FROM samples
ORDER BY workspace_id, check_id, region, slot_at, generation DESC, probe_id, boot, seq
LIMIT 1 BY
    workspace_id, check_id, region, slot_at, kind,
    if(kind = 'scheduled', toUUID('00000000-0000-0000-0000-000000000000'), probe_id),
    if(kind = 'scheduled', toUUID('00000000-0000-0000-0000-000000000000'), boot),
    if(kind = 'scheduled', 0, seq);
