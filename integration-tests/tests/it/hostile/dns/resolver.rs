//! The name server that the probe itself asks: it knows the names of `lab.test`, and lies about most of them. What it says
//! depends on the first label alone.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::message::{
    A, AAAA, CNAME, QR, TC, answer_of_count, answer_with, asked_label, asked_type, name, record, record_of, refusal,
};
use super::server;

/// Answers over UDP and TCP.
pub(crate) async fn start() -> SocketAddr {
    // One answer leads where the probe may go, every later one where it may not.
    let has_lured = AtomicBool::new(false);
    let over_udp = move |query: &[u8]| match asked_label(query).as_str() {
        "rebinding" if has_lured.swap(true, Ordering::Relaxed) => vec![addresses(query, &["169.254.169.254"])],
        "rebinding" => vec![addresses(query, &["127.0.0.1"])],
        _ => said(query, false),
    };
    server(over_udp, |mut stream, mut query| async move {
        loop {
            for answer in said(&query, true) {
                let length = u16::try_from(answer.len()).unwrap();
                stream.write_u16(length).await.ok();
                stream.write_all(&answer).await.ok();
            }
            let Ok(length) = stream.read_u16().await else { return };
            query = vec![0; usize::from(length)];
            if stream.read_exact(&mut query).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// Addresses of the type that was asked for.
fn addresses(query: &[u8], addresses: &[&str]) -> Vec<u8> {
    let data = addresses.iter().map(|text| match text.parse().unwrap() {
        IpAddr::V4(ip) => (A, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AAAA, ip.octets().to_vec()),
    });
    let asked = asked_type(query);
    let records: Vec<Vec<u8>> =
        data.filter(|(kind, _)| *kind == asked).map(|(kind, data)| record(kind, &data)).collect();
    answer_with(query, 0, &records)
}

fn said(query: &[u8], is_tcp: bool) -> Vec<Vec<u8>> {
    let answer = match asked_label(query).as_str() {
        "target" => addresses(query, &["127.0.0.1"]),
        "absent" => refusal(query, 3),
        "broken" => refusal(query, 2),
        "shut" => refusal(query, 5),
        "strange" => refusal(query, 15),
        "empty" => answer_with(query, 0, &[]),
        "silent" => return Vec::new(),
        "metadata" => addresses(query, &["169.254.169.254"]),
        "translated" => addresses(query, &["64:ff9b::a9fe:a9fe"]),
        "mapped" => addresses(query, &["::ffff:169.254.169.254"]),
        "tunnelled" => addresses(query, &["2002:a9fe:a9fe::1"]),
        "unspecified" => addresses(query, &["0.0.0.0"]),
        "mixed" => addresses(query, &["10.0.0.1", "169.254.169.254", "127.0.0.1", "192.168.0.1"]),
        "crowd" => crowd(query, is_tcp),
        "circle" => circle(query),
        "pointer" => answer_of_count(query, 0, 1, &record_of(&[0xc0, pointer_to_itself(query)], A, &[127, 0, 0, 1])),
        "stranger" => answer_with(query, 0, &[record_of(&name("other.lab.test"), A, &[127, 0, 0, 1])]),
        "truncated" => answer_with(query, TC, &[]),
        "question" => answer_with(query, QR, &[]),
        "noise" => vec![0xfe; 100],
        other => panic!("nobody is called {other}"),
    };
    vec![answer]
}

/// Where the name of the first record begins.
fn pointer_to_itself(query: &[u8]) -> u8 {
    u8::try_from(super::message::question_end(query)).unwrap()
}

/// 4,000 addresses, none of which may be dialled.
fn crowd(query: &[u8], is_tcp: bool) -> Vec<u8> {
    if !is_tcp {
        return answer_with(query, TC, &[]);
    }
    let of = |n: u16| record(A, &[10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
    answer_with(query, 0, &if asked_type(query) == A { (0..4_000).map(of).collect() } else { Vec::new() })
}

/// Two names that are each other's alias.
fn circle(query: &[u8]) -> Vec<u8> {
    let other = name("circle2.lab.test");
    let records = [record(CNAME, &other), record_of(&other, CNAME, super::message::ASKED)];
    answer_with(query, 0, &records)
}
