//! What is said and heard over a connection, where a socket would decide too much: sizes of pieces, full buffers.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use sonde_proto::model::check::Assertions;
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::super::dialogue::{ANSWER_BYTES_MAX, hold};
use super::super::trace::{Trace, Wants};
use super::{GENEROUS, SHORT, assert_failed, assert_ok, assert_plausible, happened};
use crate::check::Observation;
use crate::clock::Clock;

async fn observe(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    send: &[u8],
    matches: Option<impl Fn(&[u8]) -> Option<usize>>,
    timeout: Duration,
) -> Observation {
    let clock = Clock::system();
    let mut trace = Trace::begin(clock, timeout, Wants::default());
    let matches = matches.map(|matches| move |heard: &[u8]| Ok(matches(heard)));
    let result = hold(stream, send, matches, &mut trace).await;
    let observation = trace.finish(clock.wall(), result, None, &Assertions::default());
    assert_plausible(&observation, timeout);
    observation
}

/// Where `word` ends.
fn find(word: &'static str) -> impl Fn(&[u8]) -> Option<usize> {
    move |heard| heard.windows(word.len()).position(|part| part == word.as_bytes()).map(|at| at + word.len())
}

/// Gives one byte per read, then whatever `end` says; takes everything.
struct Drip<F> {
    bytes: Vec<u8>,
    given: usize,
    end: F,
}

impl<F> Drip<F> {
    fn new(bytes: impl Into<Vec<u8>>, end: F) -> Self {
        Self { bytes: bytes.into(), given: 0, end }
    }
}

impl<F: Fn() -> Poll<io::Result<()>> + Unpin> AsyncRead for Drip<F> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(byte) = self.bytes.get(self.given) else {
            return (self.end)();
        };
        buf.put_slice(&[*byte]);
        self.given += 1;
        Poll::Ready(Ok(()))
    }
}

impl<F: Unpin> AsyncWrite for Drip<F> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn closes() -> Poll<io::Result<()>> {
    Poll::Ready(Ok(()))
}

fn stays_silent() -> Poll<io::Result<()>> {
    Poll::Pending
}

#[tokio::test]
async fn a_peer_that_takes_nothing_times_out_in_send() {
    let (ours, theirs) = tokio::io::duplex(16);
    let observation = observe(ours, &[7; 100], Some(find("x")), SHORT).await;
    assert_failed(&observation, ErrorClass::SendTimeout);
    assert_eq!(happened(&observation), "---s--");
    assert!(observation.phases.send_us.unwrap() >= 500_000, "{observation:?}");
    drop(theirs);
}

#[tokio::test]
async fn a_peer_that_leaves_while_we_talk_is_lost() {
    let (ours, theirs) = tokio::io::duplex(16);
    drop(theirs);
    let observation = observe(ours, &[7; 100], Some(find("x")), GENEROUS).await;
    assert_failed(&observation, ErrorClass::ConnectionLost);
    assert_eq!(happened(&observation), "---s--");
}

#[tokio::test]
async fn a_match_in_small_pieces_is_known_with_its_last_byte() {
    let drip = Drip::new("one two three", || panic!("nobody may read on after the match"));
    let observation = observe(drip, b"", Some(find("three")), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!((happened(&observation).as_str(), observation.bytes), ("----fx", Some(13)));
}

#[tokio::test]
async fn an_endless_answer_in_single_bytes_costs_bounded_work() {
    let searched = Cell::new(0);
    let searches = Cell::new(0);
    let count = |heard: &[u8]| {
        searched.set(searched.get() + heard.len());
        searches.set(searches.get() + 1);
        None
    };
    let observation = observe(Drip::new(vec![7; 2 * ANSWER_BYTES_MAX], closes), b"", Some(count), GENEROUS).await;
    assert_failed(&observation, ErrorClass::ExpectMismatch);
    assert_eq!(observation.bytes, Some(65_536));
    let (searched, searches) = (searched.get(), searches.get());
    assert!(searched <= 1024 * 1024 + 10 * ANSWER_BYTES_MAX, "{searched} bytes were searched");
    assert!((1_000..2_000).contains(&searches), "{searches} searches");
}

#[tokio::test]
async fn what_was_not_searched_yet_counts_at_the_end_and_is_dated_back() {
    // So many pieces that the word is not worth a search of its own.
    let answer = [&[b'.'; 20_000][..], b"ready", &[b'.'; 50]].concat();
    for (end, timeout) in [(closes as fn() -> Poll<io::Result<()>>, GENEROUS), (stays_silent, Duration::from_secs(2))] {
        let observation = observe(Drip::new(answer.clone(), end), b"", Some(find("ready")), timeout).await;
        assert_ok(&observation);
        assert_eq!((happened(&observation).as_str(), observation.bytes), ("----fx", Some(20_055)));
        assert!(observation.phases.transfer_us.unwrap() < 1_500_000, "{observation:?}");
    }
}

#[tokio::test]
async fn a_match_is_dated_to_the_byte_where_it_ends() {
    // Found only at the end of the stream, 600 ms after the word, which came 600 ms after the first byte.
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let clock = Clock::system();
    let began = clock.now();
    let speak = async move {
        for _ in 0..20_000 {
            theirs.write_all(b".").await.unwrap();
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(SHORT).await;
        theirs.write_all(b"ready").await.unwrap();
        let word_at = clock.now();
        tokio::time::sleep(SHORT).await;
        theirs.write_all(b".").await.ok();
        word_at
    };
    let (observation, word_at) = tokio::join!(observe(ours, b"", Some(find("ready")), GENEROUS), speak);
    assert_ok(&observation);
    assert_eq!(observation.bytes, Some(20_006));
    let transfer = Duration::from_micros(observation.phases.transfer_us.unwrap().into());
    assert!(transfer >= SHORT, "{observation:?}");
    assert!(transfer < word_at.since(began) + SHORT * 2 / 3, "{observation:?}");
}

#[tokio::test]
async fn nothing_is_read_without_something_to_expect() {
    let drip = Drip::new("x", || panic!("nobody asked for an answer"));
    let observation = observe(drip, b"hello", None::<fn(&[u8]) -> Option<usize>>, GENEROUS).await;
    assert_ok(&observation);
    assert_eq!((happened(&observation).as_str(), observation.bytes), ("---s--", None));
}
