//! QUIC: one exchange over a stream, and the servers of these tests.

mod handshake;
mod hostile;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use rustls_pki_types::ServerName;
use sonde_proto::model::check::Assertions;
use sonde_proto::model::error_class::ErrorClass;

use super::servers::{Authority, Identity, background};
use super::{GENEROUS, SHORT, context_with};
use crate::check::quic::{self, Offer};
use crate::check::trace::{Trace, Wants};
use crate::check::{Context, Observation};
use crate::clock::Clock;

const DELAY: Duration = Duration::from_millis(80);

/// A server that offers `alpn`; its certificate is for 127.0.0.1 and target.test.
pub(super) fn server_config(authority: &Authority, alpn: &[&[u8]]) -> quinn::ServerConfig {
    config_of(authority.issue(&["target.test", "127.0.0.1"], |_| {}), alpn, |_| {})
}

/// A server with another certificate, or another TLS.
fn config_of(
    identity: Identity,
    alpn: &[&[u8]],
    change: impl FnOnce(&mut rustls::ServerConfig),
) -> quinn::ServerConfig {
    let mut tls = rustls::ServerConfig::clone(identity.acceptor(alpn).config());
    change(&mut tls);
    quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()))
}

/// Serves every connection with `serve`.
pub(super) fn quic_server<R>(
    config: quinn::ServerConfig,
    serve: impl Fn(quinn::Connection) -> R + Send + 'static,
) -> SocketAddr
where
    R: Future<Output = ()> + Send + 'static,
{
    let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = endpoint.local_addr().unwrap();
    background(async move {
        while let Some(incoming) = endpoint.accept().await {
            if let Ok(connection) = incoming.await {
                background(serve(connection));
            }
        }
    });
    addr
}

/// Reads the one message of a client's stream, waits, and answers with `answer`.
async fn answer(connection: quinn::Connection, answer: Vec<u8>) {
    let Ok((mut send, mut receive)) = connection.accept_bi().await else { return };
    assert_eq!(receive.read_to_end(1_000_000).await.unwrap().first(), Some(&b'?'));
    tokio::time::sleep(DELAY).await;
    send.write_all(&answer).await.ok();
    send.finish().ok();
    connection.closed().await;
}

/// Shakes hands, says `message` and reads at most 100,000 bytes.
async fn ask(
    addr: SocketAddr,
    message: &[u8],
    context: &Context,
    timeout: Duration,
) -> (Result<Vec<u8>, ErrorClass>, Observation) {
    let name = ServerName::try_from("target.test").unwrap();
    let offer = Offer { name: &name, alpn: &[b"echo"], tickets: None };
    let target = context.guard.vet(addr).unwrap();
    let mut trace = Trace::begin(Clock::system(), timeout, Wants::default());
    let answer = match quic::open(target, offer, context, &mut trace).await {
        Ok(mut link) => link.ask(message, 100_000, &mut trace).await,
        Err(class) => Err(class),
    };
    let seen = trace.finish(
        context.clock().wall(),
        answer.as_ref().map(|_| ()).map_err(|class| *class),
        None,
        &Assertions::default(),
    );
    super::assert_plausible(&seen, timeout);
    (answer, seen)
}

#[tokio::test]
async fn one_message_and_its_answer_have_phases_of_their_own() {
    let authority = Authority::new();
    let said = vec![b'!'; 90_000];
    let answered = said.clone();
    let addr =
        quic_server(server_config(&authority, &[b"echo"]), move |connection| answer(connection, answered.clone()));
    let context = context_with(None, vec![authority.root.clone()]);
    for length in [1, 1_100, 60_000] {
        let (heard, seen) = ask(addr, &vec![b'?'; length], &context, GENEROUS).await;
        assert_eq!(heard.as_deref(), Ok(&said[..]));
        assert_eq!((super::happened(&seen).as_str(), seen.bytes), ("-ctsfx", Some(90_000)));
        assert!(seen.phases.ttfb_us.unwrap() >= 80_000, "{seen:?}");
        assert!(seen.phases.send_us.unwrap() < 80_000, "{seen:?}");
    }
}

#[tokio::test]
async fn an_answer_is_read_as_far_as_it_is_wanted_and_for_as_long_as_there_is_time() {
    let authority = Authority::new();
    let context = context_with(None, vec![authority.root.clone()]);
    let long = quic_server(server_config(&authority, &[b"echo"]), |connection| answer(connection, vec![0; 200_000]));
    assert_eq!(ask(long, b"?", &context, GENEROUS).await.0, Err(ErrorClass::BodyTooLarge));

    let silent = quic_server(server_config(&authority, &[b"echo"]), |connection| async move {
        connection.closed().await;
    });
    let (heard, seen) = ask(silent, b"?", &context, SHORT).await;
    assert_eq!(heard, Err(ErrorClass::FirstByteTimeout));
    assert_eq!(super::happened(&seen), "-ctsf-");

    let endless = quic_server(server_config(&authority, &[b"echo"]), |connection| async move {
        let Ok((mut send, _receive)) = connection.accept_bi().await else { return };
        send.write_all(b"...").await.ok();
        connection.closed().await;
    });
    let (heard, seen) = ask(endless, b"?", &context, SHORT).await;
    assert_eq!(heard, Err(ErrorClass::TransferTimeout));
    assert_eq!(super::happened(&seen), "-ctsfx");

    let strict = quic_server(server_config(&authority, &[b"echo"]), |connection| async move {
        let Ok((mut send, mut receive)) = connection.accept_bi().await else { return };
        receive.stop(quinn::VarInt::from_u32(7)).ok();
        send.reset(quinn::VarInt::from_u32(7)).ok();
        connection.closed().await;
    });
    assert_eq!(ask(strict, b"?", &context, GENEROUS).await.0, Err(ErrorClass::ConnectionLost));

    let rude = quic_server(server_config(&authority, &[b"echo"]), |connection| async move {
        connection.accept_bi().await.ok();
        connection.close(quinn::VarInt::from_u32(9), b"no");
    });
    assert_eq!(ask(rude, b"?", &context, GENEROUS).await.0, Err(ErrorClass::QuicClosed));
}

#[tokio::test]
async fn a_target_is_told_when_the_run_is_over() {
    let authority = Authority::new();
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = std::sync::Mutex::new(Some(tell));
    let addr = quic_server(server_config(&authority, &[b"echo"]), move |connection| {
        let tell = tell.lock().unwrap().take().unwrap();
        async move {
            tell.send(connection.closed().await).ok();
        }
    });
    let context = context_with(None, vec![authority.root.clone()]);
    assert_eq!(ask(addr, b"?", &context, SHORT).await.0, Err(ErrorClass::FirstByteTimeout));
    let reason = told.await.unwrap();
    assert!(matches!(reason, quinn::ConnectionError::ApplicationClosed(_)), "{reason}");
}
