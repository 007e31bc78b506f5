//! Servers that abuse HTTP/3: frames out of order, frames without end, streams beside the one that was asked for. Their
//! frames are written by hand, since no implementation writes most of them.

use quinn::VarInt;
use serde_json::Value;
use sonde_proto::model::error_class::ErrorClass;

use super::case::{Case, Group, Lab, http3};
use super::quic;

/// Kinds of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
/// A kind without a meaning: it is to be passed over.
const GREASE: u8 = 0x21;

/// Kinds of streams that go one way.
const CONTROL: u8 = 0;
const TABLE: u8 = 2;

/// `:status: 200` and `:status: 103` of the static table, behind an empty prefix.
const OK: &[u8] = &[0, 0, 0xd9];
const HINTS: &[u8] = &[0, 0, 0xd8];

/// Longer than anything that anybody would read.
const ENDLESS: usize = 0x3fff_ffff;

/// Codes of resets and closes.
const EXCESSIVE_LOAD: u32 = 0x107;
const REQUEST_REJECTED: u32 = 0x10b;

/// More than any request of the lab has.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The beginning of a frame of `length` bytes.
fn head(kind: u8, length: usize) -> Vec<u8> {
    let length = 0x8000_0000 | u32::try_from(length).unwrap();
    [&[kind][..], &length.to_be_bytes()].concat()
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [head(kind, payload.len()), payload.to_vec()].concat()
}

/// What a server does on the stream of the request after its last word.
#[derive(Clone)]
enum Then {
    Finish,
    Hold,
    Reset,
    Say(Vec<u8>),
}

/// Sends its settings, hears the request, says `words` on its stream, and then does what is next.
fn answers(lab: &Lab, words: impl Into<Vec<u8>>, then: Then) -> Value {
    let words = words.into();
    let server = quic::serve(quic::config(lab.authority.issue(|_| {}), "h3"), move |connection| {
        let (words, then) = (words.clone(), then.clone());
        async move {
            // Whoever has gone hears no more: an error ends the serving, and nothing else.
            let Ok(mut control) = connection.open_uni().await else { return };
            control.write_all(&[&[CONTROL][..], &frame(SETTINGS, &[])].concat()).await.ok();
            let Ok((mut send, mut request)) = connection.accept_bi().await else { return };
            request.read_to_end(REQUEST_BYTES_MAX).await.ok();
            send.write_all(&words).await.ok();
            match then {
                Then::Finish => send.finish().unwrap_or_default(),
                Then::Hold => {}
                Then::Reset => send.reset(VarInt::from_u32(REQUEST_REJECTED)).unwrap_or_default(),
                Then::Say(more) => while send.write_all(&more).await.is_ok() {},
            }
            connection.closed().await;
        }
    });
    http3(server)
}

/// Says `words` on a stream of its own, and then bytes without end. Never answers the request.
fn says_beside(lab: &Lab, words: impl Into<Vec<u8>>) -> Value {
    let words = words.into();
    let server = quic::serve(quic::config(lab.authority.issue(|_| {}), "h3"), move |connection| {
        let words = words.clone();
        async move {
            let Ok(mut beside) = connection.open_uni().await else { return };
            beside.write_all(&words).await.ok();
            while beside.write_all(&[0x3e; 1_000]).await.is_ok() {}
            connection.closed().await;
        }
    });
    http3(server)
}

pub(super) fn cases(lab: &Lab) -> Vec<Case> {
    let mut group = Group::new("http3");
    nonsense(&mut group, lab);
    floods(&mut group, lab);
    ends(&mut group, lab);
    group.done()
}

/// Answers that break the rules.
fn nonsense(group: &mut Group, lab: &Lab) {
    use ErrorClass::HttpProtocol;
    let mut refused = |name, words: Vec<u8>| group.fails(name, answers(lab, words, Then::Finish), HttpProtocol);
    refused("body without a head", frame(DATA, b"hello"));
    refused("settings in the place of an answer", frame(SETTINGS, &[]));
    refused("frame of HTTP/2", frame(2, &[0; 5]));
    refused("table that is not there", frame(HEADERS, &[2, 0, 0x80]));
    refused("entry beyond the static table", frame(HEADERS, &[0, 0, 0xff, 0xff, 0xff]));
    refused("no status", frame(HEADERS, &[0, 0]));
    refused("status in letters", frame(HEADERS, &[0, 0, 0x5f, 0x09, 2, b'a', b'b']));
    refused("bytes of no frame", vec![0xfe; 1_000]);
    refused("text of HTTP/1", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec());
    refused("half a frame", [frame(HEADERS, OK), head(DATA, 10), b"hello".to_vec()].concat());
    refused("half a head of a frame", vec![HEADERS, 0x40]);
    refused("nothing", Vec::new());
}

/// What has no end.
fn floods(group: &mut Group, lab: &Lab) {
    use ErrorClass::{BodyTooLarge, FirstByteTimeout, HttpProtocol};
    let junk = || Then::Say(vec![0x37; 10_000]);
    let body = answers(lab, frame(HEADERS, OK), Then::Say(frame(DATA, &[b'a'; 10_000])));
    group.fails("body without end", body, BodyTooLarge);
    let one = answers(lab, [frame(HEADERS, OK), head(DATA, ENDLESS)].concat(), junk());
    group.fails("frame of a body without end", one, BodyTooLarge);
    group.fails("head without end", answers(lab, head(HEADERS, ENDLESS), junk()), HttpProtocol);
    // `x: yyyy...` without any table, 100 bytes each.
    let field = [&[0x21, b'x', 0x61][..], &[b'y'; 0x61]].concat();
    let many = answers(lab, frame(HEADERS, &[OK, &field.repeat(1_000)].concat()), Then::Hold);
    group.fails("1,000 headers", many, HttpProtocol);
    let trailers = answers(lab, [frame(HEADERS, OK), head(HEADERS, ENDLESS)].concat(), junk());
    group.fails("trailers without end", trailers, HttpProtocol);
    let interim = answers(lab, Vec::new(), Then::Say(frame(HEADERS, HINTS)));
    group.fails("interim answers without end", interim, HttpProtocol);
    group.fails("unknown frame without end", answers(lab, head(GREASE, ENDLESS), junk()), HttpProtocol);
    let frames = answers(lab, Vec::new(), Then::Say(frame(GREASE, &[0x37; 10_000])));
    group.fails("unknown frames without end", frames, HttpProtocol);
    let control = [&[CONTROL][..], &frame(SETTINGS, &[]), &head(GREASE, ENDLESS)].concat();
    group.fails("control stream without end", says_beside(lab, control), HttpProtocol);
    group.fails(
        "settings without end",
        says_beside(lab, [&[CONTROL][..], &head(SETTINGS, ENDLESS)].concat()),
        HttpProtocol,
    );
    group.fails(
        "control stream without settings",
        says_beside(lab, [&[CONTROL][..], &frame(DATA, &[])].concat()),
        HttpProtocol,
    );
    // Nobody reads what it says, so it cannot say much.
    group.fails("table without end", says_beside(lab, [TABLE]), FirstByteTimeout);
}

/// Exchanges that end where they should not, or do not end.
fn ends(group: &mut Group, lab: &Lab) {
    use ErrorClass::{ConnectionLost, FirstByteTimeout, HttpVersion, QuicClosed, TransferTimeout};
    group.fails("says nothing", answers(lab, Vec::new(), Then::Hold), FirstByteTimeout);
    group.fails("says half a head", answers(lab, head(HEADERS, 100), Then::Hold), TransferTimeout);
    let half = [frame(HEADERS, OK), head(DATA, 10), b"hello".to_vec()].concat();
    group.fails("says half a body", answers(lab, half, Then::Hold), TransferTimeout);
    group.fails("resets the stream", answers(lab, Vec::new(), Then::Reset), ConnectionLost);
    let config = |alpn| quic::config(lab.authority.issue(|_| {}), alpn);
    let closes = quic::serve(config("h3"), |connection| async move {
        connection.accept_bi().await.ok();
        connection.close(VarInt::from_u32(EXCESSIVE_LOAD), b"not today");
    });
    group.fails("closes the connection", http3(closes), QuicClosed);
    let other = quic::serve(config("doq"), |connection| async move {
        connection.closed().await;
    });
    group.fails("another application", http3(other), HttpVersion);
    let good = answers(lab, [frame(GREASE, b"grease"), frame(HEADERS, OK), frame(DATA, b"ok")].concat(), Then::Finish);
    group.ends_well("frame that nobody knows before the answer", good);
}
