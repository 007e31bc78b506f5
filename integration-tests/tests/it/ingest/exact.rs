//! What a row keeps, exactly: times and totals at the edges of what is admitted, through the columns that the table
//! computes; and what happens when the table has other types than the rows.

use std::net::IpAddr;
use std::time::Duration;

use sonde_collector::clickhouse::insert::InsertAttempt;
use sonde_collector::clickhouse::row::RowsEncoder;
use sonde_collector::ingest::Disposition;
use sonde_proto::model::detail::{Detail, Part, PartKind, ReadingKey};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::id::Seq;
use sonde_proto::model::sample::{Outcome, Phases, Sample, StoredSample};
use uuid::Uuid;

use super::fixture::{Fixture, Sent, sample, sealed};

const DAY: Duration = Duration::from_secs(86_400);

/// Samples whose beginning, phases and total are as far from each other as admission allows.
fn extremes(fixture: &Fixture) -> Vec<Sample> {
    let most = Some(u32::MAX);
    let full = Phases { dns_us: most, connect_us: most, tls_us: most, send_us: most, ttfb_us: most, transfer_us: most };
    let none = Phases::default();
    let zero = Phases { dns_us: Some(0), ..none };
    let cases = [(full, 0), (full, u32::MAX), (none, 0), (none, u32::MAX), (zero, 1), (zero, 0)];
    let begin = |slot, number: usize| match number % 4 {
        0 => slot - DAY,
        1 => slot + DAY,
        2 => slot - Duration::from_micros(1),
        _ => slot,
    };
    let samples = (0_u32..).zip(cases.into_iter().cycle()).take(24);
    let samples = samples.map(|(number, (phases, total_us))| {
        let slot_at = fixture.now - Duration::from_millis(100) * (24 - number);
        let started_at = begin(slot_at, number as usize / cases.len());
        let detail = detail(number, phases);
        Sample {
            slot_at,
            started_at,
            phases,
            total_us,
            outcome: Outcome::Ok,
            error: None,
            detail,
            ..sample(slot_at, 0)
        }
    });
    samples.collect()
}

/// None for the first, so that a block begins without; then readings, parts, and both.
fn detail(number: u32, phases: Phases) -> Option<Box<Detail>> {
    let mut detail = Detail::default();
    if number % 4 == 1 || number % 4 == 3 {
        detail.read(ReadingKey::TlsCertSecondsLeft, i64::MIN + i64::from(number));
        detail.read(ReadingKey::Hops, i64::MAX);
    }
    if number % 4 >= 2 {
        let addrs = [None, Some(IpAddr::from([192, 0, 2, 7])), Some(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 9]))];
        let parts = PartKind::ALL.into_iter().zip(addrs).zip(1..).map(|((kind, addr), number)| Part {
            kind,
            number,
            addr,
            error: (number == 2).then_some(ErrorClass::ConnectRefused),
            status_code: (number == 1).then_some(301),
            phases,
            total_us: u32::MAX,
            sent: u16::MAX,
            received: 0,
        });
        detail.parts = parts.collect();
    }
    (!detail.is_empty()).then(|| Box::new(detail))
}

fn rows_of(fixture: &Fixture, sent: &Sent) -> InsertAttempt {
    let mut encoder = RowsEncoder::new(sent.samples.len());
    for (seq, sample) in (1..).map(Seq).zip(&sent.samples) {
        let (probe, boot) = (sent.delivery.probe, sent.delivery.batch.id.boot);
        let stored = StoredSample { probe, boot, seq, sample: sample.clone() };
        encoder.push(fixture.workspace.id(), &sent.delivery.region, &stored);
    }
    let (body, rows) = encoder.finish();
    InsertAttempt { id: Uuid::from_u128(1), rows, body: body.into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beginnings_and_totals_come_back_exactly_at_the_edges_of_what_is_admitted() {
    let mut fixture = Fixture::start().await;
    let sent = sealed("eu-west", 9, 1, 1, extremes(&fixture));
    assert_eq!(fixture.deliver(&sent).await, Disposition::Stored);
    assert_eq!(fixture.list(None).await, sent.as_listed());
    // The table itself says the same as the view, before and after a merge.
    let sums = |samples: &[Sample]| {
        let totals: u64 = samples.iter().map(|sample| u64::from(sample.total_us)).sum();
        let begun: i64 = samples.iter().map(|sample| sample.started_at.0).sum();
        format!("{totals}\t{begun}\tDateTime64(6, 'UTC')\tUInt32")
    };
    let question = "SELECT sum(total_us), sum(toUnixTimestamp64Micro(started_at)), any(toTypeName(started_at)), \
        any(toTypeName(total_us)) FROM";
    for table in ["samples", "samples_v", "samples FINAL"] {
        let seen = fixture.query(&format!("{question} {table}")).await.replace("\\'", "'");
        assert_eq!(seen, sums(&sent.samples), "{table}");
    }
    // And the comparison of repeated numbers sees no difference, where there is none.
    fixture.restart_pipeline();
    assert_eq!(fixture.deliver_again(&sent).await, Disposition::Stored);
    assert_eq!(fixture.count("samples").await, 24);
    let parts = sent
        .samples
        .iter()
        .filter_map(|sample| sample.detail.as_ref())
        .map(|detail| detail.parts.len() as u64)
        .sum::<u64>();
    assert_eq!(fixture.count("sample_parts_v").await, parts);
    for change in [|sample: &mut Sample| sample.detail = None, |sample: &mut Sample| sample.total_us ^= 1] {
        let mut other = sent.samples.clone();
        change(&mut other[3]);
        fixture.restart_pipeline();
        let forged = sealed("eu-west", 9, 1, 1, other);
        assert!(matches!(fixture.deliver_again(&forged).await, Disposition::Refused { .. }));
    }
    let mut other = sent.samples.clone();
    other[3].started_at = other[3].started_at + Duration::from_micros(1);
    fixture.restart_pipeline();
    let forged = sealed("eu-west", 9, 1, 1, other);
    assert!(matches!(fixture.deliver_again(&forged).await, Disposition::Refused { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_refused_by_a_table_of_other_types_and_not_converted() {
    let fixture = Fixture::start().await;
    let attempt = rows_of(&fixture, &fixture.batch(1, 1, 40));
    for (column, other, right) in [
        ("other_us", "Int32", "Int64"),
        ("generation", "Int64", "UInt64"),
        ("status_code", "Nullable(UInt32)", "Nullable(UInt16)"),
        ("outcome", "Int8", "Enum8('ok' = 1, 'degraded' = 2, 'failed' = 3)"),
    ] {
        // The totals are computed from one of these columns, so they have to go first.
        fixture.query("ALTER TABLE samples DROP COLUMN IF EXISTS total_us").await;
        fixture.query(&format!("ALTER TABLE samples MODIFY COLUMN {column} {other}")).await;
        let uncertain = fixture.client.insert(&attempt).await.unwrap_err();
        assert!(uncertain.code.is_some(), "{column}: {uncertain}");
        assert_eq!(fixture.count("samples").await, 0, "{column}");
        fixture.query(&format!("ALTER TABLE samples MODIFY COLUMN {column} {right}")).await;
    }
    fixture.client.insert(&attempt).await.unwrap();
    assert_eq!(fixture.count("samples").await, 40);
}
