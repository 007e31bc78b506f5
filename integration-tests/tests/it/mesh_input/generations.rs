//! Numbers that a probe makes up: generations that nobody gave out, counts that would wrap a counter; and other samples under
//! numbers that an earlier life of the collector has settled.

use sonde_proto::model::id::{Generation, Seq};
use sonde_proto::session::{FromCollector, Hello, ProbeHeartbeat};
use sonde_proto::wire;
use sonde_proto::wire::probe_message::Body;
use tonic::Code;

use super::raw::{RawProbe, boot, range};
use super::{audited, counted, live, samples, stored, world};

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_nobody_gave_out_is_refused_or_not_believed_and_the_others_get_work() {
    let (mesh, liar, check) = world().await;
    // Beyond what may be counted on from: the stream ends.
    for generation in [u64::MAX, i64::MAX.unsigned_abs(), (1 << 62) + 1] {
        let hello = Hello { generation: Generation(generation), ..liar.hello(boot(1)) };
        let mut stream = liar.open(&mesh, hello).await;
        assert_eq!(stream.next().await.unwrap_err().code(), Code::Unavailable, "{generation}");
    }
    let (mut stream, _) = liar.enter(&mesh, liar.hello(boot(1))).await;
    stream.send(Body::Applied(wire::AssignmentApplied { generation: u64::MAX })).await;
    stream.ended().await;
    let beat = |late_runs| wire::ProbeHeartbeat {
        wall_us: liar.now().0,
        late_runs,
        unacked_from: 1,
        ..wire::ProbeHeartbeat::default()
    };
    let (mut stream, _) = liar.enter(&mesh, liar.hello(boot(1))).await;
    stream.send(Body::Heartbeat(beat(1 << 63))).await;
    stream.ended().await;
    assert_eq!(counted(&mesh, "sonde_collector_streams_refused_total", "malformed_message").await, 5);

    // One that could be counted on from: it counts as none, and what is applied must have been sent.
    let hello = Hello { generation: Generation(1 << 62), ..liar.hello(boot(2)) };
    let (mut stream, _) = liar.enter(&mesh, hello).await;
    stream.assigned(check).await;
    stream.send(Body::Applied(wire::AssignmentApplied { generation: 1 << 62 })).await;
    let good = samples(check, liar.now(), 3);
    stream.batch(1, &good).await;
    assert_eq!(stream.verdict().await, Ok(vec![range(1, 3)]), "the stream goes on");
    assert!((mesh.metric(mesh.endpoints, "sonde_collector_generations_disbelieved_total").await - 2.0).abs() < 0.5);
    let mut forged = samples(check, liar.now(), 1);
    forged[0].generation = Generation(1 << 62);
    stream.batch(11, &forged).await;
    assert_eq!(stream.verdict().await, Err("unknown_generation".to_owned()));
    assert_eq!(audited(&mesh, "probe.unknown_generation").await.len(), 1);

    // The collector lives, and another probe gets the work when this one leaves.
    let honest = RawProbe::join(&mesh, "eu-west", "honest").await;
    let (mut other, _) = honest.enter(&mesh, honest.hello(boot(3))).await;
    stream.send(Body::Goodbye(wire::Goodbye { reason: "leaves".to_owned() })).await;
    other.assigned(check).await;
    assert_eq!(stored(&mesh).await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_an_earlier_life_of_the_collector_settled_are_compared() {
    let (mut mesh, probe, check) = world().await;
    let mut stream = live(&mesh, &probe, check, 1).await;
    let good = samples(check, probe.now(), 5);
    stream.batch(1, &good).await;
    assert_eq!(stream.verdict().await, Ok(vec![range(1, 5)]));
    let beat = ProbeHeartbeat {
        wall: probe.now(),
        generated_through: Seq(5),
        backlog_samples: 0,
        late_runs: 0,
        oldest_unacked_slot: None,
        unacked_from: Seq(6),
    };
    stream.outgoing.send(sonde_proto::session::FromProbe::Heartbeat(beat).into()).await.unwrap();
    mesh.collector.kill9();
    mesh.restart_collector().await;
    let mut other = good.clone();
    other[0].total_us += 1;
    // Whether it says that it misses them, that they are settled, or that they never were: the store knows them, or the record.
    let hellos = [
        Hello { unacked: vec![range(1, 5)], generated_through: Seq(5), ..probe.hello(boot(1)) },
        Hello { generated_through: Seq(5), ..probe.hello(boot(1)) },
        probe.hello(boot(1)),
    ];
    for hello in hellos {
        let (mut stream, welcome) = probe.enter(&mesh, hello.clone()).await;
        assert_eq!(welcome.stored, hello.unacked);
        stream.batch(1, &other).await;
        assert_eq!(stream.verdict().await, Err("payload_mismatch".to_owned()), "{hello:?}");
        stream.batch(1, &good).await;
        assert_eq!(stream.verdict().await, Ok(vec![range(1, 5)]), "{hello:?}");
        // What it honestly misses is taken.
        stream.send(Body::Goodbye(wire::Goodbye { reason: "next".to_owned() })).await;
        while let Ok(message) = stream.next().await {
            assert!(matches!(message, FromCollector::Assignment(_)), "{message:?}");
        }
    }
    assert_eq!(stored(&mesh).await, "5", "nothing was written");
    assert_eq!(audited(&mesh, "probe.payload_mismatch").await.len(), 1);
    let hello = Hello { unacked: vec![range(6, 9)], generated_through: Seq(9), ..probe.hello(boot(1)) };
    let (mut stream, _) = probe.enter(&mesh, hello).await;
    stream.batch(6, &samples(check, probe.now(), 4)).await;
    assert_eq!(stream.verdict().await, Ok(vec![range(6, 9)]), "what it honestly misses goes its usual way");
}
