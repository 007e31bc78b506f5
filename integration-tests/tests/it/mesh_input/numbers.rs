//! The room that all streams share for check numbers, filled over real streams: who holds most of it makes room, and an
//! ordinary probe is served.

use futures::future::select_all;
use sonde_proto::codec::{DICTIONARY_LEN_MAX, DICTIONARY_MESSAGE_LEN_MAX, DictionaryEntry, Reference};

use super::*;

/// What the guide says of a collector: so many numbers beyond 512 of each stream.
const SHARED: usize = 1_048_576;
const OWN: usize = 512;
/// So many streams that tell all they can leave less than one of their messages.
const GREEDY: usize = SHARED / (DICTIONARY_LEN_MAX - OWN);

/// Tells `count` numbers from `first` on.
async fn tell(stream: &RawStream, first: usize, count: usize) {
    for begin in (first..first + count).step_by(DICTIONARY_MESSAGE_LEN_MAX) {
        let end = (begin + DICTIONARY_MESSAGE_LEN_MAX).min(first + count);
        let entry = |number: usize| DictionaryEntry {
            check: CheckId(Uuid::from_u128(number as u128)),
            reference: Reference::default(),
        };
        let entries = (begin..end).map(entry).collect();
        let message = FromProbe::Dictionary { first_index: u32::try_from(begin).unwrap(), entries }.into();
        // Whoever was ended for what it told learns it from the other direction.
        let _ = stream.outgoing.send(message).await;
    }
}

async fn taken(mesh: &Mesh, wanted: usize) {
    wait::until(2 * PATIENCE, &format!("{wanted} numbers are held"), async || {
        let taken = mesh.metric(mesh.endpoints, "sonde_collector_check_numbers_taken").await;
        ((taken - f64::from(u32::try_from(wanted).unwrap())).abs() < 0.5).then_some(())
    })
    .await;
}

/// Why the collector ended the stream.
async fn end(stream: &mut RawStream) -> Code {
    let status = async {
        loop {
            if let Err(status) = stream.next().await {
                return status;
            }
        }
    };
    tokio::time::timeout(PATIENCE, status).await.expect("the stream is ended").code()
}

async fn greedy(mesh: &Mesh, number: usize) -> (RawProbe, RawStream) {
    let probe = RawProbe::join(mesh, "eu-west", &format!("greedy-{number}")).await;
    let (stream, _) = probe.enter(mesh, probe.hello(boot(1))).await;
    stream.beat(probe.clock);
    (probe, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_most_numbers_makes_room_for_an_ordinary_probe() {
    let (mesh, probe, check) = world().await;
    let mut honest = live(&mesh, &probe, check, 1).await;
    honest.beat(probe.clock);
    let good = samples(check, probe.now(), 3);
    honest.batch(1, &good).await;
    assert_eq!(honest.verdict().await, Ok(vec![range(1, 3)]));
    let mut crowd = Vec::new();
    for number in 0..GREEDY {
        let (probe, stream) = greedy(&mesh, number).await;
        tell(&stream, 0, DICTIONARY_LEN_MAX).await;
        crowd.push((probe, stream));
    }
    let rest = SHARED - GREEDY * (DICTIONARY_LEN_MAX - OWN);
    let (_small, small) = greedy(&mesh, GREEDY).await;
    tell(&small, 0, OWN + rest).await;
    taken(&mesh, SHARED).await;

    // Twice its own room, when there is nothing left of the shared one.
    tell(&honest, 1, 2 * OWN - 1).await;
    let ends = crowd.iter_mut().map(|(_, stream)| Box::pin(end(stream)));
    let (code, ended, _) = select_all(ends).await;
    assert_eq!(code, Code::ResourceExhausted);
    taken(&mesh, SHARED - (DICTIONARY_LEN_MAX - OWN) + OWN).await;
    honest.batch(4, &good).await;
    assert_eq!(honest.verdict().await, Ok(vec![range(4, 6)]), "its stream goes on");
    let refused = "sonde_collector_streams_refused_total";
    assert_eq!(counted(&mesh, refused, "no_room_for_check_numbers").await, 1, "and nobody else had to leave");

    // It comes back and wants as much as before: there is room for less, and nobody holds more than it.
    let (back, _) = crowd.swap_remove(ended);
    let (mut stream, _) = back.enter(&mesh, back.hello(boot(2))).await;
    stream.beat(back.clock);
    tell(&stream, 0, DICTIONARY_LEN_MAX).await;
    assert_eq!(end(&mut stream).await, Code::ResourceExhausted);
    assert_eq!(counted(&mesh, refused, "no_room_for_check_numbers").await, 2);
    honest.batch(7, &good).await;
    assert_eq!(honest.verdict().await, Ok(vec![range(7, 9)]));
}
