-- Raw samples. Statements end with a semicolon at the end of a line; `{replacing_engine}` is filled in by the program.
--
-- The sorting key begins with what people ask for (tenant, check, region, time) and ends with the full identity
-- (probe, boot, seq), so that two copies of a row are equal in the key and always share a partition: a merge removes
-- the copy, and the view hides it until then. Nothing in a row is made by the server: a repeated insert is identical.
--
-- A column that follows from others is not stored: readers say `started_at` and `total_us`, the table keeps what is left
-- of them when the slot and the phases are known, exact for whatever they may be.
--
-- Codecs, measured on 400,000 rows with even jitter of 10 % in every phase: 13.5 bytes per row on disk, of which 11.5
-- are the noise itself. T64 in its `bit` variant keeps as many bits as a granule's numbers differ in, not whole bytes.
CREATE TABLE IF NOT EXISTS samples
(
    workspace_id UUID COMMENT 'Tenant' CODEC(ZSTD(1)),
    check_id UUID COMMENT 'Check' CODEC(ZSTD(1)),
    region LowCardinality(String) COMMENT 'Region of the probe' CODEC(ZSTD(1)),
    slot_at DateTime64(6, 'UTC') COMMENT 'Slot that the run fills' CODEC(DoubleDelta, ZSTD(1)),
    probe_id UUID COMMENT 'Who measured' CODEC(ZSTD(1)),
    boot UUID COMMENT 'In which life of its process' CODEC(ZSTD(1)),
    seq UInt64 COMMENT 'As which sample of that life, from 1' CODEC(Delta, ZSTD(1)),
    generation UInt64 COMMENT 'Assignment under which it ran' CODEC(T64, ZSTD(1)),
    kind Enum8('scheduled' = 1, 'confirm' = 2, 'run_now' = 3) COMMENT 'Why it ran' CODEC(ZSTD(1)),
    late_us Int64 COMMENT 'From the slot to the beginning, microseconds; negative when it began before' CODEC(T64('bit'), ZSTD(1)),
    outcome Enum8('ok' = 1, 'degraded' = 2, 'failed' = 3) COMMENT 'How it ended' CODEC(ZSTD(1)),
    error LowCardinality(String) COMMENT 'Class of the failure, empty unless failed' CODEC(ZSTD(1)),
    dns_us Nullable(UInt32) COMMENT 'Name resolution, microseconds' CODEC(T64('bit'), ZSTD(1)),
    connect_us Nullable(UInt32) COMMENT 'TCP handshake, microseconds' CODEC(T64('bit'), ZSTD(1)),
    tls_us Nullable(UInt32) COMMENT 'TLS handshake, microseconds' CODEC(T64('bit'), ZSTD(1)),
    send_us Nullable(UInt32) COMMENT 'Sending the request, microseconds' CODEC(T64('bit'), ZSTD(1)),
    ttfb_us Nullable(UInt32) COMMENT 'Last request byte to first response byte, microseconds' CODEC(T64('bit'), ZSTD(1)),
    transfer_us Nullable(UInt32) COMMENT 'First to last response byte, microseconds' CODEC(T64('bit'), ZSTD(1)),
    other_us Int64 COMMENT 'What the phases leave of the total, microseconds; negative when they add up to more' CODEC(T64('bit'), ZSTD(1)),
    status_code Nullable(UInt16) COMMENT 'HTTP status or DNS response code' CODEC(T64, ZSTD(1)),
    bytes Nullable(UInt64) COMMENT 'Payload bytes received' CODEC(T64, ZSTD(1)),
    readings Map(String, Int64) COMMENT 'Named numbers that the run saw besides' CODEC(ZSTD(1)),
    parts Array(Tuple(kind Enum8('redirect' = 1, 'address' = 2, 'router' = 3), number UInt16, addr Nullable(IPv6),
        error String, status_code Nullable(UInt16), dns_us Nullable(UInt32), connect_us Nullable(UInt32),
        tls_us Nullable(UInt32), send_us Nullable(UInt32), ttfb_us Nullable(UInt32), transfer_us Nullable(UInt32),
        total_us UInt32, sent UInt16, received UInt16)) COMMENT 'Redirects, addresses or routers that the run was made of' CODEC(ZSTD(1)),
    started_at DateTime64(6, 'UTC') ALIAS fromUnixTimestamp64Micro(toUnixTimestamp64Micro(slot_at) + late_us, 'UTC')
        COMMENT 'When it began',
    total_us UInt32 ALIAS toUInt32(
        ifNull(dns_us, 0) + ifNull(connect_us, 0) + ifNull(tls_us, 0) + ifNull(send_us, 0) + ifNull(ttfb_us, 0)
        + ifNull(transfer_us, 0) + other_us) COMMENT 'Beginning of the first phase to end of the last, microseconds',
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
    dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us, total_us, status_code, bytes, readings, parts
FROM samples
ORDER BY workspace_id, check_id, region, slot_at, generation DESC, probe_id, boot, seq
LIMIT 1 BY
    workspace_id, check_id, region, slot_at, kind,
    if(kind = 'scheduled', toUUID('00000000-0000-0000-0000-000000000000'), probe_id),
    if(kind = 'scheduled', toUUID('00000000-0000-0000-0000-000000000000'), boot),
    if(kind = 'scheduled', 0, seq);

-- The parts of the samples that readers see, a row each.
CREATE VIEW IF NOT EXISTS sample_parts_v AS
SELECT
    workspace_id, check_id, region, slot_at, probe_id, boot, seq, part.kind AS kind, part.number AS number,
    part.addr AS addr, part.error AS error, part.status_code AS status_code, part.dns_us AS dns_us,
    part.connect_us AS connect_us, part.tls_us AS tls_us, part.send_us AS send_us, part.ttfb_us AS ttfb_us,
    part.transfer_us AS transfer_us, part.total_us AS total_us, part.sent AS sent, part.received AS received
FROM samples_v
ARRAY JOIN parts AS part;
