//! Servers that abuse a plain connection: answers without end, slow ones, and texts that patterns choke on.

use sonde_proto::model::error_class::ErrorClass;

use super::case::{Case, Group, tcp};
use super::servers::{Then, blurts, drip, never_accepts, refuses, resets, serve};

pub(super) async fn cases() -> Vec<Case> {
    use ErrorClass::{
        AddressForbidden, ConnectError, ConnectRefused, ConnectTimeout, ConnectionLost, ExpectMismatch,
        ExpectTooComplex, FirstByteTimeout, TransferTimeout,
    };
    let mut group = Group::new("tcp");
    group.fails("nobody listens", tcp(refuses(), "^220"), ConnectRefused);
    group.fails("queue that is full", tcp(never_accepts().await, "^220"), ConnectTimeout);
    // A reset may be there before the handshake has been noticed.
    group.fails_or("resets at once", tcp(resets().await, "^220"), ConnectionLost, ConnectError);
    group.fails("hangs up at once", tcp(blurts(b"", Then::Close).await, "^220"), ExpectMismatch);
    group.fails("says nothing", tcp(blurts(b"", Then::Hold).await, "^220"), FirstByteTimeout);
    group.fails("banner without end", tcp(blurts(b"a", Then::Repeat).await, "^220"), ExpectMismatch);
    group.fails("lines without end", tcp(blurts(b"220-a\r\n", Then::Repeat).await, "(?m)^220 "), ExpectMismatch);
    group.fails("zeros without end", tcp(blurts([0], Then::Repeat).await, "a"), ExpectMismatch);
    let slow = serve(|mut stream| async move { drip(&mut stream, b"220").await }).await;
    group.fails("banner byte by byte", tcp(slow, "ready"), TransferTimeout);
    group.fails("half a banner", tcp(blurts(b"220", Then::Hold).await, "ready"), TransferTimeout);
    let resets = tcp(blurts(b"220", Then::Reset).await, "ready");
    group.fails_or("resets after half a banner", resets, ConnectionLost, ConnectError);
    // Patterns that make other engines try every way to split a text.
    let same = || blurts(b"aaaaaaaaaaaaaaaa", Then::Repeat);
    group.fails("text for nested repetitions", tcp(same().await, "(a+)+b"), ExpectMismatch);
    group.fails("text for alternatives that are the same", tcp(same().await, "(a|a|a?)*b"), ExpectMismatch);
    group.fails("text for a chain of options", tcp(same().await, &format!("{}b", "a?".repeat(200))), ExpectMismatch);
    // Which of the last 400 bytes were an `a` is a state of its own each time.
    let mixed = blurts(noise(64 * 1024), Then::Repeat).await;
    group.fails("text that makes a state of each byte", tcp(mixed, "a[ab]{400}c"), ExpectTooComplex);
    group.fails("private network", tcp("10.0.0.1:80".parse().unwrap(), "a"), AddressForbidden);
    group.done()
}

/// Bytes `a` and `b` in no order.
fn noise(length: usize) -> Vec<u8> {
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        if bits & 1 == 0 { b'a' } else { b'b' }
    })
    .take(length)
    .collect()
}
