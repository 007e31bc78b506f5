//! The mesh port against a probe that has joined and means no good: each thing that it must not say has a code of its own,
//! is counted, stores nothing, and ends the stream only where there is no going on. An honest repeat is acknowledged.

mod crowd;
mod generations;
mod numbers;
mod pressure;
mod raw;
mod rights;

use std::time::Duration;

use serde_json::Value;
use sonde_integration_tests::mesh::Mesh;
use sonde_integration_tests::wait;
use sonde_proto::model::id::{CheckId, ProbeId, Seq};
use sonde_proto::model::sample::Sample;
use sonde_proto::model::time::Wall;
use sonde_proto::session::{FromProbe, Hello};
use tonic::Code;
use uuid::Uuid;

use raw::{PATIENCE, RawProbe, RawStream, batch, boot, range, sample};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// A mesh with one check in one region and nobody but us to run it.
async fn world() -> (Mesh, RawProbe, CheckId) {
    let mesh = Mesh::start(&[]).await;
    assert_eq!(mesh.cli().run(&["region", "create", "--name", "eu-west"]).code, 0);
    let id = mesh.create_check(&["tcp", "--name", "c", "--host", "127.0.0.1", "--port", "9", "--regions", "eu-west"]);
    let probe = RawProbe::join(&mesh, "eu-west", "raw").await;
    (mesh, probe, CheckId(id.parse().unwrap()))
}

/// Samples 1 s apart, the last of them a few seconds ago; at midnight those of the day before.
fn samples(check: CheckId, now: Wall, count: u32) -> Vec<Sample> {
    let begin = now - Duration::from_secs(u64::from(count) + 5);
    let begin = if begin.utc_day() == now.utc_day() { begin } else { begin - Duration::from_secs(u64::from(count)) };
    (0..count).map(|n| sample(check, begin + Duration::from_secs(1) * n, 100 + n)).collect()
}

async fn stored(mesh: &Mesh) -> String {
    mesh.engine.ask("SELECT count() FROM sonde.samples").await
}

/// The value of a counter with this code; 0 while it is not there.
async fn counted(mesh: &Mesh, metric: &str, code: &str) -> u64 {
    let (_, text) = mesh.web("/metrics").await;
    let label = format!("{metric}{{code=\"{code}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&label)).map_or(0, |value| value.parse().unwrap())
}

async fn audited(mesh: &Mesh, action: &str) -> Vec<Value> {
    wait::until(PATIENCE, &format!("an audit entry {action}"), async || {
        let entries: Vec<Value> =
            mesh.cli().json(&["audit", "list"]).rows().into_iter().filter(|row| row["action"] == action).collect();
        (!entries.is_empty()).then_some(entries)
    })
    .await
}

async fn live(mesh: &Mesh, probe: &RawProbe, check: CheckId, number: u128) -> RawStream {
    let (mut stream, welcome) = probe.enter(mesh, probe.hello(boot(number))).await;
    assert_eq!((welcome.stored, welcome.in_doubt), (Vec::new(), Vec::new()));
    stream.assigned(check).await;
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn known_numbers_are_acknowledged_again_and_never_replaced() {
    let (mesh, probe, check) = world().await;
    let mut stream = live(&mesh, &probe, check, 1).await;
    let good = samples(check, probe.now(), 5);
    stream.batch(1, &good).await;
    assert_eq!(stream.verdict().await, Ok(vec![range(1, 5)]));
    stream.batch(1, &good).await;
    assert_eq!(stream.verdict().await, Ok(vec![range(1, 5)]), "an identical resend");
    let mut other = good.clone();
    other[0].total_us += 1;
    stream.batch(1, &other).await;
    assert_eq!(stream.verdict().await, Err("payload_mismatch".to_owned()));
    stream.batch(2, &good[1..4]).await;
    assert_eq!(stream.verdict().await, Err("overlap".to_owned()));
    assert_eq!(stored(&mesh).await, "5");
    // A new stream of the same life asks what is stored, and sends it again all the same.
    let hello = Hello { unacked: vec![range(1, 5)], generated_through: Seq(5), ..probe.hello(boot(1)) };
    let (mut stream, welcome) = probe.enter(&mesh, hello).await;
    assert_eq!(welcome.stored, [range(1, 5)]);
    stream.batch(1, &good).await;
    assert_eq!(stream.verdict().await, Ok(vec![range(1, 5)]));
    stream.batch(1, &other).await;
    assert_eq!(stream.verdict().await, Err("payload_mismatch".to_owned()));
    assert_eq!(stored(&mesh).await, "5", "not one row more");
    assert_eq!(counted(&mesh, "sonde_collector_batches_refused_total", "payload_mismatch").await, 2);
    assert_eq!(counted(&mesh, "sonde_collector_batches_refused_total", "overlap").await, 1);
    let entries = audited(&mesh, "probe.payload_mismatch").await;
    assert_eq!(entries.len(), 1, "one a minute: {entries:?}");
    assert!(entries[0].to_string().contains(&probe.id().to_string()), "{entries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_probe_may_not_say_has_a_code_of_its_own_and_the_stream_goes_on() {
    let (mesh, probe, check) = world().await;
    let mut stream = live(&mesh, &probe, check, 1).await;
    let now = probe.now();
    let good = samples(check, now, 4);
    let foreign = sample(CheckId(Uuid::from_u128(77)), good[0].slot_at, 1);
    let columns = stream.columns(&good).await;
    let (mut longer, mut shorter) = (columns.clone(), columns.clone());
    longer.extend([0, 0]);
    shorter.truncate(columns.len() - 3);
    let foreign = stream.columns(&[foreign]).await;
    let ancient = stream.columns(&[sample(check, now - 3_652 * DAY, 1)]).await;
    let future = stream.columns(&[sample(check, now + 3_652 * DAY, 1)]).await;
    let cases = [
        ("empty", batch(1, 0, columns.clone())),
        ("too_many", batch(1, u32::MAX, columns.clone())),
        ("too_many", batch(1, 1_001, columns.clone())),
        ("bad_sequence", batch(0, 4, columns.clone())),
        ("bad_sequence", batch(u64::MAX, 4, columns.clone())),
        ("bad_sequence", batch(i64::MAX.unsigned_abs(), 4, columns.clone())),
        ("column_length", batch(11, 4, longer)),
        ("column_length", batch(21, 4, shorter)),
        ("count_mismatch", batch(31, 3, columns.clone())),
        ("malformed_columns", batch(41, 4, b"\xff\xff\xff".to_vec())),
        ("malformed_columns", batch(51, 4, Vec::new())),
        ("foreign_check", batch(61, 1, foreign)),
        ("too_old", batch(71, 1, ancient)),
        ("too_new", batch(81, 1, future)),
    ];
    for (code, body) in cases {
        let before = counted(&mesh, "sonde_collector_batches_refused_total", code).await;
        stream.send(body).await;
        assert_eq!(stream.verdict().await, Err(code.to_owned()));
        assert_eq!(counted(&mesh, "sonde_collector_batches_refused_total", code).await, before + 1, "{code}");
    }
    assert_eq!(stored(&mesh).await, "0");
    assert_eq!(audited(&mesh, "probe.foreign_check").await.len(), 1);
    stream.send(batch(1_000, 4, columns)).await;
    assert_eq!(stream.verdict().await, Ok(vec![range(1_000, 1_003)]), "the stream goes on");
    assert_eq!(stored(&mesh).await, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_for_another_probe_or_breaks_the_protocol_is_cut_off() {
    let (mesh, probe, check) = world().await;
    let hello = Hello { probe: ProbeId(Uuid::from_u128(7)), ..probe.hello(boot(1)) };
    let mut stream = probe.open(&mesh, hello).await;
    assert_eq!(stream.next().await.unwrap_err().code(), Code::InvalidArgument);
    let entries = audited(&mesh, "probe.foreign_identity").await;
    assert!(entries[0].to_string().contains(&Uuid::from_u128(7).to_string()), "{entries:?}");
    assert_eq!(counted(&mesh, "sonde_collector_streams_refused_total", "foreign_probe").await, 1);

    // A batch that uses check numbers which were never told.
    let mut stream = live(&mesh, &probe, check, 2).await;
    let columns = sonde_proto::codec::encode(&samples(check, probe.now(), 3), &mut stream.numbers).unwrap();
    stream.send(batch(1, 3, columns)).await;
    assert_eq!(stream.next().await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(counted(&mesh, "sonde_collector_streams_refused_total", "unknown_check_number").await, 1);

    // A gap that no probe can know of, and one that ends before it begins.
    let gap = |cause: &str, first, last| sonde_proto::wire::GapReport {
        boot: boot(3).0.as_bytes().to_vec(),
        range: Some(sonde_proto::wire::SeqRange { first, last }),
        cause: cause.to_owned(),
        slots_from_us: probe.now().0 - 1,
        slots_until_us: probe.now().0,
        is_at_most: false,
    };
    for report in [gap("no_probe", 1, 2), gap("overflow", 5, 2), gap("overflow", 1, u64::MAX)] {
        let (stream, _) = probe.enter(&mesh, probe.hello(boot(3))).await;
        let mut stream = stream;
        stream.send(sonde_proto::wire::probe_message::Body::Gap(report)).await;
        stream.ended().await;
    }
    assert_eq!(counted(&mesh, "sonde_collector_streams_refused_total", "malformed_message").await, 3);
    assert_eq!(stored(&mesh).await, "0");
    assert_eq!(mesh.engine.ask("SELECT count() FROM sonde.gaps").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_are_acknowledged_once_stored_and_a_restart_is_counted() {
    let (mesh, probe, check) = world().await;
    let mut stream = live(&mesh, &probe, check, 1).await;
    let good = samples(check, probe.now(), 5);
    stream.batch(1, &good).await;
    assert_eq!(stream.verdict().await, Ok(vec![range(1, 5)]));
    let gap = sonde_proto::model::gap::Gap {
        boot: boot(1),
        range: range(6, 9),
        cause: sonde_proto::model::gap::GapCause::Overflow,
        slots_from: good[4].slot_at,
        slots_until: probe.now(),
        is_at_most: false,
    };
    stream.outgoing.send(FromProbe::Gap(gap).into()).await.unwrap();
    assert_eq!(stream.verdict().await, Ok(vec![range(6, 9)]));
    let rows = "SELECT first_seq, last_seq, cause, is_at_most FROM sonde.gaps_v ORDER BY first_seq";
    assert_eq!(mesh.engine.ask(rows).await, "6\t9\toverflow\tfalse");
    // It says how far it is, sends 21 to 23, and dies; 24 to 30 were sealed and never sent.
    stream.batch(21, &samples(check, probe.now(), 3)).await;
    assert_eq!(stream.verdict().await, Ok(vec![range(21, 23)]));
    let beat = sonde_proto::session::ProbeHeartbeat {
        wall: probe.now(),
        generated_through: Seq(30),
        backlog_samples: 18,
        late_runs: 0,
        oldest_unacked_slot: Some(probe.now()),
        unacked_from: Seq(10),
    };
    stream.outgoing.send(FromProbe::Heartbeat(beat).into()).await.unwrap();
    // The answer to a batch that comes after it shows that it was heard.
    stream.batch(10, &samples(check, probe.now(), 1)).await;
    assert_eq!(stream.verdict().await, Ok(vec![range(10, 10)]));
    drop(stream);
    let newer = live(&mesh, &probe, check, 2).await;
    newer.beat(probe.clock);
    let expected = "6\t9\toverflow\tfalse\n11\t20\tprobe_restart\tfalse\n24\t30\tprobe_restart\tfalse";
    wait::until(PATIENCE, "what the former life has lost is written down", async || {
        (mesh.engine.ask(rows).await == expected).then_some(())
    })
    .await;
}
