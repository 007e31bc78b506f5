//! Typed rows through the official crate: there and back, bound, parametrised, refused.

use std::net::{Ipv4Addr, Ipv6Addr};

use clickhouse::{Compression, Row};
use serde::{Deserialize, Serialize};
use sonde_integration_tests::engine::Engine;
use uuid::Uuid;

use super::client;

const TABLE: &str = "CREATE TABLE typed (id UInt64, key UUID, v4 IPv4, v6 IPv6, note Nullable(String), parts Array(UInt16), \
                     kind LowCardinality(String), at DateTime64(6, 'UTC'), ratio Float64) ENGINE = MergeTree ORDER BY id";

#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
struct Typed {
    id: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    key: Uuid,
    #[serde(with = "clickhouse::serde::ipv4")]
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    note: Option<String>,
    parts: Vec<u16>,
    kind: String,
    at: i64,
    ratio: f64,
}

impl Typed {
    fn sample(id: u64) -> Self {
        let small = u16::try_from(id % 1000).expect("below a thousand");
        Self {
            id,
            key: Uuid::from_u128(u128::from(id) << 64 | 7),
            v4: Ipv4Addr::from_bits(0x0a00_0000 + u32::from(small)),
            v6: Ipv6Addr::from_bits(u128::from(id)),
            note: (id.is_multiple_of(2)).then(|| format!("it's row {id}\n")),
            parts: (0..small % 4).collect(),
            kind: ["ok", "failed", "degraded"][usize::from(small % 3)].to_owned(),
            at: 1_767_225_600_000_000 + i64::from(small),
            ratio: f64::from(small) / 7.0,
        }
    }
}

#[tokio::test]
async fn typed_rows_come_back_as_they_went_plain_and_compressed() {
    let engine = Engine::start().await;
    for compression in [Compression::None, Compression::Lz4] {
        let client = client(&engine, compression);
        client.query("DROP TABLE IF EXISTS typed").execute().await.unwrap();
        client.query(TABLE).execute().await.unwrap();
        let rows: Vec<Typed> = (0..20_000).map(Typed::sample).collect();
        let mut insert = client.insert::<Typed>("typed").await.unwrap();
        for row in &rows {
            insert.write(row).await.unwrap();
        }
        insert.end().await.unwrap();
        let found = client.query("SELECT ?fields FROM typed ORDER BY id").fetch_all::<Typed>().await.unwrap();
        assert_eq!(found.len(), rows.len());
        assert!(found == rows, "{:?}", found.iter().zip(&rows).find(|(a, b)| a != b));
    }
}

#[tokio::test]
async fn values_are_bound_parametrised_and_set_for_one_query_only() {
    let engine = Engine::start().await;
    let client = client(&engine, Compression::Lz4);
    let bound = client.query("SELECT concat(?, toString(?))").bind("it's ?").bind(5);
    assert_eq!(bound.fetch_one::<String>().await.unwrap(), "it's ?5");
    let parametrised = client.query("SELECT {a:String} || toString({b:Array(UInt8)}[2])");
    let parametrised = parametrised.param("a", "x\t\\'y").param("b", vec![1, 2]);
    assert_eq!(parametrised.fetch_one::<String>().await.unwrap(), "x\t\\'y2");
    let threads = || client.query("SELECT toUInt64(getSetting('max_threads'))");
    let usual = threads().fetch_one::<u64>().await.unwrap();
    for _ in 0..8 {
        assert_eq!(threads().with_setting("max_threads", "17").fetch_one::<u64>().await.unwrap(), 17);
        assert_eq!(threads().fetch_one::<u64>().await.unwrap(), usual);
    }
}

#[tokio::test]
async fn settings_of_the_house_are_back_after_a_query_changed_them() {
    let engine = Engine::start_with(&["--connections", "1"]).await;
    let client = client(&engine, Compression::None);
    let insert_mode = || client.query("SELECT toUInt8(getSetting('async_insert'))");
    assert_eq!(insert_mode().fetch_one::<u8>().await.unwrap(), 0);
    assert_eq!(insert_mode().with_setting("async_insert", "1").fetch_one::<u8>().await.unwrap(), 1);
    assert_eq!(insert_mode().fetch_one::<u8>().await.unwrap(), 0);
    // A connection cannot leave this mode, so it has to be replaced.
    assert_eq!(insert_mode().with_setting("readonly", "1").fetch_one::<u8>().await.unwrap(), 0);
    client.query("CREATE DATABASE other").execute().await.unwrap();
    client.query("CREATE TABLE other.t (a UInt8) ENGINE = Memory").execute().await.unwrap();
    client.clone().with_database("other").query("INSERT INTO t SELECT 1").execute().await.unwrap();
    assert_eq!(client.query("SELECT currentDatabase()").fetch_one::<String>().await.unwrap(), "default");
}

#[tokio::test]
async fn a_row_that_does_not_fit_the_table_is_refused() {
    #[derive(Row, Serialize, Deserialize)]
    struct Wrong {
        id: String,
    }
    let engine = Engine::start().await;
    let client = client(&engine, Compression::Lz4);
    client.query(TABLE).execute().await.unwrap();
    let refused = match client.insert::<Wrong>("typed").await {
        Ok(mut insert) => match insert.write(&Wrong { id: "x".to_owned() }).await {
            Ok(()) => insert.end().await.err(),
            Err(error) => Some(error),
        },
        Err(error) => Some(error),
    };
    let text = refused.expect("a text is no number").to_string();
    assert!(text.contains("id") && text.contains("UInt64"), "{text}");
    let missing = client.insert::<Wrong>("no_such_table").await.err().expect("there is no such table").to_string();
    assert!(missing.contains("UNKNOWN_TABLE") && missing.starts_with("bad response: Code: 60"), "{missing}");
    assert_eq!(engine.ask("SELECT count() FROM typed").await, "0");
}

#[tokio::test]
async fn an_insert_that_is_given_up_stores_nothing() {
    let engine = Engine::start().await;
    let client = client(&engine, Compression::Lz4);
    client.query(TABLE).execute().await.unwrap();
    let mut insert = client.insert::<Typed>("typed").await.unwrap().with_setting("query_id", "given-up");
    // More than the server reads ahead, so that the engine has rows when the client goes.
    for id in 0..200_000 {
        insert.write(&Typed::sample(id)).await.unwrap();
    }
    super::life::wait_for_process(&engine, "given-up").await;
    drop(insert);
    engine.ask("KILL QUERY WHERE query_id = 'given-up' SYNC").await;
    assert_eq!(engine.ask("SELECT count() FROM typed").await, "0");
}

#[tokio::test]
async fn a_failure_in_the_middle_of_an_answer_reaches_the_client() {
    let engine = Engine::start().await;
    for compression in [Compression::None, Compression::Lz4] {
        let client = client(&engine, compression);
        let mut cursor = client
            .query("SELECT number + throwIf(number = 3000000) FROM numbers(4000000)")
            .with_setting("max_threads", "1")
            .fetch::<u64>()
            .unwrap();
        let mut seen = 0_u64;
        let error = loop {
            match cursor.next().await {
                Ok(Some(_)) => seen += 1,
                Ok(None) => panic!("the answer ended well after {seen} rows"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(seen > 0 && error.contains("FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"), "after {seen} rows: {error}");
    }
}
