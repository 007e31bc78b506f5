-- What is derived from raw samples, and what says that it must be derived again. On one server and on a cluster from this
-- one text: the program fills in engines and, on a cluster, puts a Distributed table in front of each table.

-- Counted absences of samples: numbers of a boot that will never arrive, or slots that were passed over.
-- A later row with the same beginning reaches further, because neighbours merge: the higher version stands. It is twice the
-- last number, and one more in a row that takes back numbers which turned out to be stored: that stands against the row
-- that it narrows, and not against one that reaches further. A row without a number is one that was taken back as a whole.
CREATE TABLE IF NOT EXISTS gaps
(
    probe_id UUID COMMENT 'Who lost them',
    boot UUID COMMENT 'In which life of its process',
    first_seq UInt64 COMMENT 'First number',
    last_seq UInt64 COMMENT 'Last number',
    region LowCardinality(String) COMMENT 'Region of the probe',
    cause LowCardinality(String) COMMENT 'Why, in the words of the API',
    slots_from DateTime64(6, 'UTC') COMMENT 'First slot that may be concerned',
    slots_until DateTime64(6, 'UTC') COMMENT 'First instant after the last such slot',
    is_at_most Bool COMMENT 'Whether some of the numbers may have been stored',
    version UInt64 COMMENT 'Of rows with one beginning, the highest stands',
    noted_at DateTime('UTC') DEFAULT now() COMMENT 'When the row was written, on the clock of this server',
    INDEX by_slots (slots_from, slots_until) TYPE minmax GRANULARITY 1
)
ENGINE = {replacing_engine}(version)
PARTITION BY toYYYYMM(slots_from)
ORDER BY (probe_id, boot, first_seq)
TTL toDateTime(slots_until, 'UTC') + INTERVAL 13 MONTH;

CREATE VIEW IF NOT EXISTS gaps_v AS
SELECT probe_id, boot, first_seq, last_seq, region, cause, slots_from, slots_until, is_at_most
FROM (
    SELECT * FROM gaps
    ORDER BY probe_id, boot, first_seq, version DESC, last_seq
    LIMIT 1 BY probe_id, boot, first_seq
)
WHERE last_seq >= first_seq;

-- Runs of one check in one region within a minute. Written from the deduplicating view, as a whole, with a version that
-- rises: an older row of the same bucket never shows again.
--
-- A quantile state is a sketch with a relative error of 1 %. Of the states that merge it was the smallest on disk for
-- jittered latencies: 8 bytes for 5 values, 57 for 60, 118 for 3,600 (with the codec below).
CREATE TABLE IF NOT EXISTS rollup_1m
(
    workspace_id UUID COMMENT 'Tenant',
    check_id UUID COMMENT 'Check',
    region LowCardinality(String) COMMENT 'Region of the probes',
    bucket DateTime('UTC') COMMENT 'First instant of the bucket' CODEC(DoubleDelta, ZSTD(1)),
    version UInt64 COMMENT 'Epoch of the lease in the upper half, a counter in the lower' CODEC(Delta, ZSTD(1)),
    runs UInt32 COMMENT 'Visible runs' CODEC(T64, ZSTD(1)),
    slots UInt32 COMMENT 'Of these, scheduled ones: distinct slots stored' CODEC(T64, ZSTD(1)),
    ok UInt32 COMMENT 'Runs that ended well' CODEC(T64, ZSTD(1)),
    degraded UInt32 COMMENT 'Runs that were too slow' CODEC(T64, ZSTD(1)),
    failed UInt32 COMMENT 'Runs that failed' CODEC(T64, ZSTD(1)),
    dns_count UInt32 COMMENT 'Runs in which the phase happened' CODEC(T64, ZSTD(1)),
    dns_sum UInt64 COMMENT 'Sum of the phase, microseconds' CODEC(T64, ZSTD(1)),
    dns_max UInt32 COMMENT 'Largest, microseconds' CODEC(T64, ZSTD(1)),
    dns_q AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.99), Nullable(UInt32)) CODEC(ZSTD(1)),
    connect_count UInt32 CODEC(T64, ZSTD(1)),
    connect_sum UInt64 CODEC(T64, ZSTD(1)),
    connect_max UInt32 CODEC(T64, ZSTD(1)),
    connect_q AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.99), Nullable(UInt32)) CODEC(ZSTD(1)),
    tls_count UInt32 CODEC(T64, ZSTD(1)),
    tls_sum UInt64 CODEC(T64, ZSTD(1)),
    tls_max UInt32 CODEC(T64, ZSTD(1)),
    tls_q AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.99), Nullable(UInt32)) CODEC(ZSTD(1)),
    send_count UInt32 CODEC(T64, ZSTD(1)),
    send_sum UInt64 CODEC(T64, ZSTD(1)),
    send_max UInt32 CODEC(T64, ZSTD(1)),
    send_q AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.99), Nullable(UInt32)) CODEC(ZSTD(1)),
    ttfb_count UInt32 CODEC(T64, ZSTD(1)),
    ttfb_sum UInt64 CODEC(T64, ZSTD(1)),
    ttfb_max UInt32 CODEC(T64, ZSTD(1)),
    ttfb_q AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.99), Nullable(UInt32)) CODEC(ZSTD(1)),
    transfer_count UInt32 CODEC(T64, ZSTD(1)),
    transfer_sum UInt64 CODEC(T64, ZSTD(1)),
    transfer_max UInt32 CODEC(T64, ZSTD(1)),
    transfer_q AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.99), Nullable(UInt32)) CODEC(ZSTD(1)),
    total_count UInt32 CODEC(T64, ZSTD(1)),
    total_sum UInt64 CODEC(T64, ZSTD(1)),
    total_max UInt32 CODEC(T64, ZSTD(1)),
    total_q AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.99), Nullable(UInt32)) CODEC(ZSTD(1))
)
ENGINE = {replacing_engine}(version)
PARTITION BY toYYYYMM(bucket)
ORDER BY (workspace_id, check_id, region, bucket);

-- The same columns for hours and days.
CREATE TABLE IF NOT EXISTS rollup_1h AS rollup_1m
ENGINE = {replacing_engine}(version)
PARTITION BY toYYYYMM(bucket)
ORDER BY (workspace_id, check_id, region, bucket);

CREATE TABLE IF NOT EXISTS rollup_1d AS rollup_1m
ENGINE = {replacing_engine}(version)
PARTITION BY toYear(bucket)
ORDER BY (workspace_id, check_id, region, bucket);

-- Readers see the newest version of each bucket.
CREATE VIEW IF NOT EXISTS rollup_1m_v AS
SELECT * FROM rollup_1m
ORDER BY workspace_id, check_id, region, bucket, version DESC
LIMIT 1 BY workspace_id, check_id, region, bucket;

CREATE VIEW IF NOT EXISTS rollup_1h_v AS
SELECT * FROM rollup_1h
ORDER BY workspace_id, check_id, region, bucket, version DESC
LIMIT 1 BY workspace_id, check_id, region, bucket;

CREATE VIEW IF NOT EXISTS rollup_1d_v AS
SELECT * FROM rollup_1d
ORDER BY workspace_id, check_id, region, bucket, version DESC
LIMIT 1 BY workspace_id, check_id, region, bucket;

-- Buckets whose rollup may not show every sample. A mark is stored before the insert that touches its bucket; the
-- recomputation clears exactly the marks that it has read, and only when the deadline of each has passed.
CREATE TABLE IF NOT EXISTS rollup_marks
(
    level Enum8('minute' = 1, 'hour' = 2, 'day' = 3) COMMENT 'Width of the bucket',
    bucket DateTime('UTC') COMMENT 'First instant of the bucket',
    mark UUID COMMENT 'Generation: every statement that marks makes a new one',
    deadline DateTime64(3, 'UTC') COMMENT 'From when no insert under this mark can land any more, on the clock of this server',
    cleared UInt8 COMMENT '1 once a recomputation has seen everything under it'
)
ENGINE = {replacing_engine}(cleared)
ORDER BY (level, bucket, mark)
TTL toDateTime(deadline, 'UTC') + INTERVAL 3 DAY DELETE WHERE cleared = 1;

CREATE VIEW IF NOT EXISTS rollup_marks_v AS
SELECT level, bucket, mark, max(deadline) AS deadline
FROM rollup_marks
GROUP BY level, bucket, mark
HAVING max(cleared) = 0;

-- How often each check runs, mirrored from Postgres: a table gets a row of a check when its bucket holds 5 runs, or when
-- the rhythm says that it should have held them.
CREATE TABLE IF NOT EXISTS check_rhythms
(
    check_id UUID COMMENT 'Check',
    interval_us UInt64 COMMENT 'Distance between two slots, microseconds',
    version UInt64 COMMENT 'Rises with every write'
)
ENGINE = {replacing_engine}(version)
ORDER BY check_id;

-- Samples that are older than this table get their rollups too. A repetition changes nothing: a cleared mark stays so.
INSERT INTO rollup_marks (level, bucket, mark, deadline, cleared)
SELECT DISTINCT 'minute', toStartOfMinute(toDateTime(slot_at, 'UTC')), toUUID('00000000-0000-0000-0000-000000000001'), now64(3), 0
FROM samples;
