//! The order of what an exchange over HTTP/2 says and hears.

use std::sync::Arc;

use sonde_proto::model::address::Policy;
use sonde_proto::model::check::{CheckKind, KindDraft};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::exchange::Progress;
use super::request::Target;
use super::stream::{Transport, Wire};
use super::*;
use crate::clock::Clock;
use crate::guard::Guard;

const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// HEADERS with the end of the stream and `:status: 200`.
const ANSWER: &[u8] = &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88];

/// The frames of a client in the order in which they come, kind and flags, until the head of the request is among them.
async fn frames_until_head(stream: &mut (impl AsyncRead + Unpin)) -> Vec<(u8, u8)> {
    const HEADERS: u8 = 1;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    let mut kinds: Vec<(u8, u8)> = Vec::new();
    while kinds.last().is_none_or(|(kind, _)| *kind != HEADERS) {
        let mut header = [0; 9];
        stream.read_exact(&mut header).await.unwrap();
        let length = usize::from(header[1]) << 8 | usize::from(header[2]);
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        kinds.push((header[3], header[4]));
    }
    kinds
}

#[tokio::test]
async fn a_request_does_not_wait_for_what_the_server_says_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let policy = Policy { allow: vec!["127.0.0.0/8".parse().unwrap()], ..Policy::default() };
    let guard = Guard::new(policy, None);
    let mut tcp = guard.tcp(guard.vet(address).unwrap()).unwrap().connect().await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(SETTINGS).await.unwrap();
    // Reading nothing waits until there is something.
    assert_eq!(tcp.read(&mut []).await.unwrap(), 0);

    let draft = KindDraft::http(format!("http://{address}/"));
    let CheckKind::Http(spec) = CheckKind::parse(draft).unwrap() else { panic!("a draft of http is a check of http") };
    let request = request::build(&Ask::of(&spec), &Target::of(&spec.url).unwrap(), Speech::Http2).unwrap();
    let marks = Arc::new(Marks::default());
    let wire = Wire::new(tcp, Clock::system(), Arc::clone(&marks), false);
    let stamped = Stamped::new(Transport::Plain(wire), Speech::Http2, marks);
    let mut progress = Progress::default();
    let exchanged = exchange::run(stamped, Speech::Http2, request, |response| {
        exchange::drain(response, Keep::default(), &mut progress)
    });
    let served = async {
        let frames = frames_until_head(&mut server).await;
        server.write_all(ANSWER).await.unwrap();
        frames
    };
    let (done, frames) = tokio::join!(exchanged, served);
    done.unwrap();
    assert_eq!(progress.status, Some(200));
    let settings_answered = (4, 1);
    assert!(!frames.contains(&settings_answered), "the request came after the answer to the settings: {frames:?}");
}
