//! Servers that abuse datagrams: many of them, large ones, empty ones, and none.

use std::net::SocketAddr;

use sonde_proto::model::error_class::ErrorClass;
use tokio::net::UdpSocket;

use super::case::{Case, Group, udp};
use super::servers::background;

/// Answers each datagram with `count` times `datagram`.
async fn answers(count: usize, datagram: Vec<u8>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    background(async move {
        let mut buffer = [0; 1_500];
        while let Ok((_, from)) = socket.recv_from(&mut buffer).await {
            for _ in 0..count {
                socket.send_to(&datagram, from).await.ok();
            }
        }
    });
    address
}

/// An address where no socket is, and nobody else can be.
pub(super) async fn nobody() -> SocketAddr {
    // Connected to itself, it hears nobody else; the kernel says so to whoever tries.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    socket.connect(address).await.unwrap();
    background(async move {
        let _kept = socket;
        std::future::pending::<()>().await;
    });
    address
}

pub(super) async fn cases() -> Vec<Case> {
    use ErrorClass::{AddressForbidden, ConnectRefused, ExpectMismatch, ExpectTooComplex, FirstByteTimeout};
    let mut group = Group::new("udp");
    group.fails("says nothing", udp(answers(0, Vec::new()).await, "pong"), FirstByteTimeout);
    group.fails("nobody there", udp(nobody().await, "pong"), ConnectRefused);
    group.fails("other words without end", udp(answers(2_000, b"no".to_vec()).await, "pong"), ExpectMismatch);
    group.fails("empty datagrams without end", udp(answers(2_000, Vec::new()).await, "pong"), ExpectMismatch);
    group.fails("datagrams of 64 KiB", udp(answers(100, vec![b'a'; 65_000]).await, "(a+)+b"), ExpectMismatch);
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    let noise = std::iter::repeat_with(|| {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        if bits & 1 == 0 { b'a' } else { b'b' }
    });
    let noise = answers(10, noise.take(60_000).collect()).await;
    group.fails("text that makes a state of each byte", udp(noise, "a[ab]{400}c"), ExpectTooComplex);
    group.fails("multicast", udp("224.0.0.251:5353".parse().unwrap(), "a"), AddressForbidden);
    group.fails("broadcast", udp("255.255.255.255:9".parse().unwrap(), "a"), AddressForbidden);
    group.done()
}
