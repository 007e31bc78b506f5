//! Servers that mean harm: each costs a bounded amount of time, and each has its class.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::transports::{Answer, CONNECTED, over, server};
use super::{bytes, kind};
use crate::check::tests::servers::{Carrier, dns_answer, dns_server, tcp_server};
use crate::check::tests::{GENEROUS, SHORT, assert_failed, context, observe};

type Say = fn(&Message) -> Vec<u8>;

/// A good answer, changed by `change`.
fn spoilt(query: &Message, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut answer = dns_answer(query, ResponseCode::NoError, &["192.0.2.1"]);
    change(&mut answer);
    answer.to_vec().unwrap()
}

/// An answer whose name points at itself.
fn looping(query: &Message) -> Vec<u8> {
    let header = [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    [&query.metadata.id.to_be_bytes()[..], &header, &[0xc0, 12, 0, 1, 0, 1], &[0xc0, 12]].concat()
}

/// An answer that says it has 65,535 records, and has none.
fn hollow(query: &Message) -> Vec<u8> {
    let mut answer = spoilt(query, |answer| answer.answers.clear());
    answer[6..8].copy_from_slice(&[0xff, 0xff]);
    answer
}

#[tokio::test]
async fn what_is_no_answer_is_told_apart_over_every_connection() {
    let cases: [(Say, ErrorClass); 8] = [
        (|query| spoilt(query, |answer| answer.metadata.id ^= 1), ErrorClass::DnsMismatch),
        (
            |query| {
                spoilt(query, |answer| {
                    answer.queries[0].set_name("evil.test.".parse().unwrap());
                })
            },
            ErrorClass::DnsMismatch,
        ),
        (|query| spoilt(query, |answer| answer.queries.clear()), ErrorClass::DnsMismatch),
        (|query| spoilt(query, |answer| answer.metadata.message_type = MessageType::Query), ErrorClass::DnsMismatch),
        (|query| spoilt(query, |answer| answer.metadata.truncation = true), ErrorClass::DnsTruncated),
        (looping, ErrorClass::DnsMalformed),
        (hollow, ErrorClass::DnsMalformed),
        (|_| Vec::new(), ErrorClass::DnsMalformed),
    ];
    for transport in CONNECTED {
        for (index, (answer, class)) in cases.iter().enumerate() {
            let answer: Answer = Arc::new(*answer);
            let (addr, context) = server(transport, answer).await;
            let observation = observe(&over(transport, addr), &context, GENEROUS).await;
            assert_eq!(observation.error, Some(*class), "{transport}, case {index}: {observation:?}");
        }
    }
}

#[tokio::test]
async fn strays_are_passed_over_until_there_are_too_many() {
    let stray = |query: &Message| spoilt(query, |answer| answer.metadata.id ^= 1);
    let flood = dns_server(move |query, _| (0..300).map(|_| stray(query)).collect()).await;
    assert_failed(&observe(&kind("A", Some(flood)), &context(), GENEROUS).await, ErrorClass::DnsMismatch);
    let few = dns_server(move |query, _| vec![stray(query)]).await;
    assert_failed(&observe(&kind("A", Some(few)), &context(), SHORT).await, ErrorClass::DnsMismatch);
    for answer in [looping, hollow] {
        let server = dns_server(move |query, _| vec![answer(query)]).await;
        assert_failed(&observe(&kind("A", Some(server)), &context(), GENEROUS).await, ErrorClass::DnsMalformed);
    }
}

#[tokio::test]
async fn an_answer_that_is_always_truncated_is_asked_for_twice_and_no_more() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let server = dns_server(move |query, _: Carrier| {
        counter.fetch_add(1, Ordering::SeqCst);
        bytes(&{
            let mut answer = dns_answer(query, ResponseCode::NoError, &[]);
            answer.metadata.truncation = true;
            answer
        })
    })
    .await;
    assert_failed(&observe(&kind("A", Some(server)), &context(), GENEROUS).await, ErrorClass::DnsTruncated);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_length_that_nothing_follows_and_a_drip_end_with_the_run() {
    let giant = tcp_server(|mut stream| async move {
        stream.write_all(&[0xff, 0xff]).await.ok();
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
    })
    .await;
    assert_failed(&observe(&over("tcp", giant), &context(), SHORT).await, ErrorClass::TransferTimeout);
    let drip = tcp_server(|mut stream| async move {
        stream.write_all(&[0xff, 0xff]).await.ok();
        let mut pulse = tokio::time::interval(Duration::from_millis(5));
        while stream.write_all(&[0]).await.is_ok() {
            pulse.tick().await;
        }
    })
    .await;
    assert_failed(&observe(&over("tcp", drip), &context(), SHORT).await, ErrorClass::TransferTimeout);
    let gone = tcp_server(|mut stream| async move {
        stream.read_u16().await.ok();
        stream.write_all(&[0, 100, 1]).await.ok();
    })
    .await;
    assert_failed(&observe(&over("tcp", gone), &context(), GENEROUS).await, ErrorClass::ConnectionLost);
}
