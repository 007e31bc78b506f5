//! What a hostile probe makes of the question what is stored: every second number, many times over.

use sonde_collector::clickhouse::ClickHouseError;
use sonde_collector::clickhouse::insert::{BootRange, ISLANDS_MAX, StoredPage};
use sonde_proto::model::id::{BootId, ProbeId, Seq};
use sonde_proto::model::sample::SeqRange;
use uuid::Uuid;

use super::fixture::{Fixture, HOUR};

const ISLANDS: u64 = 200_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_thousand_islands_are_told_page_by_page() {
    let fixture = Fixture::start().await;
    let (probe, boot) = (ProbeId(Uuid::from_u128(9)), BootId(Uuid::from_u128(1)));
    let statement = format!(
        "INSERT INTO samples (probe_id, boot, seq, slot_at, check_id, region) SELECT '{probe}', '{boot}', 2 * number + 1, \
         fromUnixTimestamp64Micro(toInt64({}) + toInt64(number), 'UTC'), '{}', 'eu-west' FROM numbers({ISLANDS})",
        fixture.now.0,
        Uuid::from_u128(1),
    );
    assert_eq!(fixture.query(&statement).await, "");
    let (from, until) = (fixture.now - HOUR, fixture.now + HOUR);
    let (mut low, mut pages) = (Seq(1), Vec::new());
    loop {
        let range = SeqRange { first: low, last: Seq(i64::MAX.unsigned_abs()) };
        let page: StoredPage = fixture.client.stored_page(BootRange { probe, boot, range }, from, until).await.unwrap();
        assert!(page.ranges.len() <= ISLANDS_MAX, "{}", page.ranges.len());
        let through = page.through;
        pages.push(page.ranges);
        match through {
            Some(through) => low = Seq(through.0 + 1),
            None => break,
        }
    }
    assert!(pages.len() >= 2, "{}", pages.len());
    let numbers: Vec<SeqRange> = pages.concat();
    let expected = (0..ISLANDS).map(|n| SeqRange { first: Seq(2 * n + 1), last: Seq(2 * n + 1) });
    assert!(numbers.into_iter().eq(expected));

    let all = [SeqRange { first: Seq(1), last: Seq(i64::MAX.unsigned_abs()) }];
    let outcome = fixture.ingest.stored_ranges(probe, boot, &all).await;
    assert!(matches!(outcome, Err(ClickHouseError::TooBig { .. })), "{outcome:?}");
}
