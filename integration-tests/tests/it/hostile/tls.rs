//! Servers that abuse TLS: certificates that nobody should believe, messages without end, connections that break later.

mod certificates;
mod later;

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::case::{Case, Group, Lab, tls};
use super::records::{
    ALERT, ANCIENT, APPLICATION_DATA, CERTIFICATE, CHANGE_CIPHER_SPEC, HANDSHAKE, HELLO_REQUEST, OFFERED, SERVER_HELLO,
    SERVER_HELLO_DONE, SSL_3, TLS_1_0, TLS_1_1, TLS_1_2, downgraded_hello, extended_hello, hear_hello, hello_of_1_3,
    message, message_of_length, record, record_of_length, retry, server_hello,
};
use super::servers::{Then, blurts, drip, flood, hold, resets, say, serve};

/// Shakes hands, and goes on with `serve`.
pub(super) async fn serve_over<F, R>(config: ServerConfig, then: F) -> SocketAddr
where
    F: Fn(TlsStream<TcpStream>) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(Arc::new(config));
    serve(move |stream| {
        let (acceptor, then) = (acceptor.clone(), then.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                then(stream).await;
            }
        }
    })
    .await
}

/// Shakes hands, and listens.
async fn shakes(config: ServerConfig) -> SocketAddr {
    serve_over(config, |mut stream| async move { hold(&mut stream).await }).await
}

/// Hears a hello, then says `words`.
async fn answers(words: impl Into<Vec<u8>>, then: Then) -> SocketAddr {
    let words = words.into();
    serve(move |mut stream| {
        let words = words.clone();
        async move {
            if hear_hello(&mut stream).await.is_some() {
                say(&mut stream, &words, then).await;
            }
        }
    })
    .await
}

/// Hears a hello, says `begin`, and then `more` until the client goes.
async fn floods(begin: impl Into<Vec<u8>>, more: impl Into<Vec<u8>>) -> SocketAddr {
    let (begin, more) = (begin.into(), more.into());
    serve(move |mut stream| {
        let (begin, more) = (begin.clone(), more.clone());
        async move {
            hear_hello(&mut stream).await;
            if stream.write_all(&begin).await.is_ok() {
                flood(&mut stream, &more).await;
            }
        }
    })
    .await
}

/// What is said to a hello.
type Script = fn(&[u8]) -> Vec<u8>;

pub(super) async fn cases(lab: &Lab) -> Vec<Case> {
    let mut group = Group::new("tls");
    certificates::cases(&mut group, lab).await;
    later::cases(&mut group, lab).await;
    silence(&mut group).await;
    hellos(&mut group).await;
    retries(&mut group).await;
    messages(&mut group).await;
    group.done()
}

/// Peers that do not speak TLS, or stop.
async fn silence(group: &mut Group) {
    use ErrorClass::{TlsHandshake, TlsTimeout};
    group.fails("says nothing", tls(answers(b"", Then::Hold).await), TlsTimeout);
    group.fails("hangs up after the hello", tls(answers(b"", Then::Close).await), TlsHandshake);
    // A reset may be there before the connection has been noticed.
    group.fails_or("resets at once", tls(resets().await), TlsHandshake, ErrorClass::ConnectError);
    group.fails("speaks HTTP", tls(answers(b"HTTP/1.1 400 Bad Request\r\n\r\n", Then::Close).await), TlsHandshake);
    group.fails("speaks first, and not TLS", tls(blurts(b"220 mail.test ESMTP\r\n", Then::Hold).await), TlsHandshake);
    group.fails("bytes of no protocol without end", tls(floods([0xfe], [0xfe; 99]).await), TlsHandshake);
    group.fails("alert at once", tls(answers(record(ALERT, &[2, 40]), Then::Hold).await), TlsHandshake);
    group.fails("farewell at once", tls(answers(record(ALERT, &[1, 0]), Then::Hold).await), TlsTimeout);
    let slow = serve(|mut stream| async move {
        hear_hello(&mut stream).await;
        drip(&mut stream, &message(CERTIFICATE, &[0; 16_000])).await;
    });
    group.fails("record byte by byte", tls(slow.await), TlsTimeout);
}

/// Hellos that choose what was not offered.
async fn hellos(group: &mut Group) {
    let mut refused = async |name, words: Vec<u8>| {
        group.fails(name, tls(answers(words, Then::Hold).await), ErrorClass::TlsHandshake);
    };
    refused("SSL 3.0 only", server_hello(SSL_3, ANCIENT)).await;
    refused("TLS 1.0 only", server_hello(TLS_1_0, OFFERED)).await;
    refused("TLS 1.1 only", server_hello(TLS_1_1, OFFERED)).await;
    refused("version of the future", server_hello(0x0399, OFFERED)).await;
    refused("cipher that was not offered", server_hello(TLS_1_2, ANCIENT)).await;
    refused("no cipher shared", record(ALERT, &[2, 40])).await;
    refused("version that is not served", record(ALERT, &[2, 70])).await;
    refused("worse than it could", downgraded_hello()).await;
    refused("extension that nobody asked for", extended_hello(0x1234)).await;
    refused("hello of one byte", message(SERVER_HELLO, &[3])).await;
    refused("hello longer than its record", record(HANDSHAKE, &message_of_length(SERVER_HELLO, 2, &[3, 3, 3, 3])))
        .await;
}

/// Answers in TLS 1.3 that lead nowhere.
async fn retries(group: &mut Group) {
    let scripts: [(&'static str, Script); 3] = [
        ("asks for a key twice", |session| [retry(session, 0x18), retry(session, 0x18)].concat()),
        ("asks for a key that nobody has", |session| retry(session, 0x9999)),
        ("key that is no point", hello_of_1_3),
    ];
    for (name, script) in scripts {
        let server = serve(move |mut stream| async move {
            if let Some(session) = hear_hello(&mut stream).await {
                say(&mut stream, &script(&session), Then::Hold).await;
            }
        });
        group.fails(name, tls(server.await), ErrorClass::TlsHandshake);
    }
}

/// Messages and records without end, too long, or out of turn.
async fn messages(group: &mut Group) {
    use ErrorClass::{TlsHandshake, TlsTimeout};
    let begun = || server_hello(TLS_1_2, OFFERED);
    let mut floods_of = async |name, begin: Vec<u8>, more: Vec<u8>| {
        group.fails(name, tls(floods(begin, more).await), TlsHandshake);
    };
    let endless = record(HANDSHAKE, &message_of_length(CERTIFICATE, 0x00ff_ffff, &[0; 1_000]));
    floods_of("certificate of 16 MiB", [begun(), endless].concat(), record(HANDSHAKE, &[0; 16_000])).await;
    floods_of("empty records without end", begun(), record(HANDSHAKE, &[])).await;
    floods_of("warnings without end", begun(), record(ALERT, &[1, 90])).await;
    floods_of("changes of cipher without end", Vec::new(), record(CHANGE_CIPHER_SPEC, &[1])).await;
    floods_of("hellos without end", Vec::new(), begun()).await;
    floods_of("data before the handshake", Vec::new(), record(APPLICATION_DATA, &[0; 100])).await;
    floods_of("empty data before the handshake", begun(), record(APPLICATION_DATA, &[])).await;
    floods_of("requests to begin again", begun(), message(HELLO_REQUEST, &[])).await;
    floods_of("record of 64 KiB", Vec::new(), record_of_length(HANDSHAKE, u16::MAX, &[0; 1_000])).await;
    floods_of("messages of no kind", begun(), message(99, &[0; 100])).await;
    let mut says = async |name, words: Vec<u8>, class| {
        group.fails(name, tls(answers(words, Then::Hold).await), class);
    };
    says("nothing after its hello", begun(), TlsTimeout).await;
    says(
        "half a certificate",
        [begun(), record(HANDSHAKE, &message_of_length(CERTIFICATE, 60_000, &[0; 900]))].concat(),
        TlsTimeout,
    )
    .await;
    says("no certificate", [begun(), message(SERVER_HELLO_DONE, &[])].concat(), TlsHandshake).await;
    says("empty list of certificates", [begun(), message(CERTIFICATE, &[0; 3])].concat(), TlsTimeout).await;
    says("certificate that is none", [begun(), message(CERTIFICATE, &[0, 0, 5, 0, 0, 2, 1, 2])].concat(), TlsTimeout)
        .await;
    let hangs_up = answers(begun(), Then::Close).await;
    group.fails("hangs up after its hello", tls(hangs_up), TlsHandshake);
    group.fails("resets after its hello", tls(answers(begun(), Then::Reset).await), TlsHandshake);
}
