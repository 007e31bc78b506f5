//! TCP handshakes.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};
use sonde_proto::model::check::{CheckKind, KindDraft};
use sonde_proto::model::error_class::ErrorClass;
use tokio::net::TcpListener;

use super::servers::{tcp_server, zone_server};
use super::{GENEROUS, SHORT, assert_failed, assert_ok, context, context_with, happened, observe, strict_context};

fn kind(host: &str, port: u16) -> CheckKind {
    CheckKind::parse(KindDraft::Tcp { host: host.to_owned(), port: u32::from(port) }).unwrap()
}

#[tokio::test]
async fn a_handshake_is_connect_only() {
    let addr = tcp_server(|_| async {}).await;
    let observation = observe(&kind("127.0.0.1", addr.port()), &context(), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "-c----");
    assert_eq!((observation.status_code, observation.bytes), (None, None));
}

#[tokio::test]
async fn a_name_is_resolved_first() {
    let addr = tcp_server(|_| async {}).await;
    let dns = zone_server("target.test", &["127.0.0.1"]).await;
    let observation = observe(&kind("target.test", addr.port()), &context_with(Some(dns), Vec::new()), GENEROUS).await;
    assert_ok(&observation);
    assert_eq!(happened(&observation), "dc----");
}

#[tokio::test]
async fn a_closed_port_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let observation = observe(&kind("127.0.0.1", addr.port()), &context(), GENEROUS).await;
    assert_failed(&observation, ErrorClass::ConnectRefused);
    assert_eq!(happened(&observation), "-c----");
}

#[tokio::test]
async fn loopback_is_not_dialled_unless_it_is_allowed() {
    let addr = tcp_server(|_| async { panic!("nobody may connect") }).await;
    let observation = observe(&kind("127.0.0.1", addr.port()), &strict_context(None), GENEROUS).await;
    assert_failed(&observation, ErrorClass::AddressForbidden);
    assert_eq!((happened(&observation).as_str(), observation.total_us), ("------", 0));
}

#[tokio::test]
async fn a_target_that_does_not_answer_times_out() {
    // A listener whose queue is full drops further handshakes.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let fillers: Vec<Socket> = (0..4)
        .map(|_| {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            filler.connect(&addr.into()).ok();
            filler
        })
        .collect();
    let observation = observe(&kind("127.0.0.1", addr.port()), &context(), SHORT).await;
    assert_failed(&observation, ErrorClass::ConnectTimeout);
    assert!(observation.phases.connect_us.unwrap() >= 590_000, "{observation:?}");
    drop(fillers);
}
