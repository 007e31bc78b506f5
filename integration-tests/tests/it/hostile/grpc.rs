//! Servers that abuse gRPC: messages that lie about themselves, trailers without end, statuses that are none.

use sonde_proto::model::error_class::ErrorClass;

use super::case::{Case, Group, grpc};
use super::http2::{answers, floods, head};
use super::servers::{Then, blurts};
use super::wire::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, STATUS_200, frame, header};

/// A message of the health service that says `SERVING`, with its prefix.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

fn trailers(fields: &[(&str, &str)]) -> Vec<u8> {
    let fields: Vec<u8> = fields.iter().flat_map(|(name, value)| header(name, value)).collect();
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields)
}

pub(super) async fn cases() -> Vec<Case> {
    let mut group = Group::new("grpc");
    statuses(&mut group).await;
    messages(&mut group).await;
    sizes(&mut group).await;
    group.done()
}

async fn statuses(group: &mut Group) {
    use ErrorClass::{GrpcNotServing, GrpcStatus, HttpProtocol, HttpStatus, HttpVersion, TransferTimeout};
    let data = || frame(DATA, 0, 1, SERVING);
    let ended = |fields: &[(&str, &str)]| vec![head(), data(), trailers(fields)];
    let mut fails = async |name, frames: Vec<Vec<u8>>, class| group.fails(name, grpc(answers(&frames).await), class);
    fails("status INTERNAL", ended(&[("grpc-status", "13")]), GrpcStatus).await;
    fails("status that nobody knows", ended(&[("grpc-status", "9999")]), GrpcStatus).await;
    fails("status NOT_FOUND", ended(&[("grpc-status", "5")]), GrpcNotServing).await;
    fails("status in letters", ended(&[("grpc-status", "OK")]), HttpProtocol).await;
    fails("status that is negative", ended(&[("grpc-status", "-1")]), HttpProtocol).await;
    fails("status beyond its number", ended(&[("grpc-status", "99999999999999999999")]), HttpProtocol).await;
    fails("no status", ended(&[("a", "b")]), HttpProtocol).await;
    fails("no trailers", vec![head(), frame(DATA, END_STREAM, 1, SERVING)], HttpProtocol).await;
    fails("trailers that never come", vec![head(), data()], TransferTimeout).await;
    let missing = frame(HEADERS, END_HEADERS | END_STREAM, 1, &header(":status", "404"));
    fails("no page of this name", vec![missing], HttpStatus).await;
    let words = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    group.fails("server of HTTP/1", grpc(blurts(words, Then::Close).await), HttpVersion);
}

async fn messages(group: &mut Group) {
    use ErrorClass::{GrpcNotServing, HttpProtocol};
    let mut fails = async |name, body: &[u8], class| {
        let frames = [head(), frame(DATA, 0, 1, body), trailers(&[("grpc-status", "0")])];
        group.fails(name, grpc(answers(&frames).await), class);
    };
    fails("message that says NOT_SERVING", &[0, 0, 0, 0, 2, 8, 2], GrpcNotServing).await;
    fails("message of a state that nobody knows", &[0, 0, 0, 0, 6, 8, 0xff, 0xff, 0xff, 0xff, 7], GrpcNotServing).await;
    fails("message of 4 GiB", &[0, 0xff, 0xff, 0xff, 0xff, 8, 1], HttpProtocol).await;
    fails("message shorter than it says", &[0, 0, 0, 0, 9, 8, 1], HttpProtocol).await;
    fails("two messages", &[SERVING, SERVING].concat(), HttpProtocol).await;
    fails("compressed message", &[1, 0, 0, 0, 2, 8, 1], HttpProtocol).await;
    fails("number without end", &[&[0, 0, 0, 0, 30, 8][..], &[0xff; 29]].concat(), HttpProtocol).await;
    // Groups within groups, as deep as they fit.
    fails("groups within groups", &[&[0, 0, 0, 0x27, 0x10][..], &[0x1b; 10_000]].concat(), HttpProtocol).await;
    fails("no message", &[], HttpProtocol).await;
}

async fn sizes(group: &mut Group) {
    use ErrorClass::{BodyTooLarge, HttpProtocol};
    let body = frame(DATA, 0, 1, &[0; 1_000]);
    group.fails("body without end", grpc(floods(&[head()], &body).await), BodyTooLarge);
    let message = header("grpc-message", &"%41".repeat(40)).repeat(80);
    let begin = frame(HEADERS, END_STREAM, 1, &[header("grpc-status", "13"), message.clone()].concat());
    let more = frame(CONTINUATION, 0, 1, &message);
    group.fails("trailers without end", grpc(floods(&[head(), begin.clone()], &more).await), HttpProtocol);
    let last = frame(CONTINUATION, END_HEADERS, 1, &message);
    let long = [vec![head(), begin], vec![more; 12], vec![last]].concat();
    group.fails("grpc-message of 140 KB", grpc(answers(&long).await), HttpProtocol);
    let interim = frame(HEADERS, END_HEADERS, 1, &header(":status", "103"));
    group.fails("interim answers without end", grpc(floods(&[], &interim).await), BodyTooLarge);
    let alone = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&[STATUS_200][..], &header("grpc-status", "0")].concat());
    group.fails("OK without a message", grpc(answers(&[alone]).await), HttpProtocol);
}
