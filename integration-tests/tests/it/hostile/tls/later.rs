//! Servers that shake hands properly, and are hostile afterwards. Never shows a certificate that is wrong.

use rustls::version::{TLS12, TLS13};
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::AsyncWriteExt as _;

use super::super::case::{Group, Lab, https, tls};
use super::super::records::{APPLICATION_DATA, record};
use super::super::servers::{flood, hear_head, hold};
use super::{serve_over, shakes};

/// Tickets of a server that has too many.
const TICKETS: usize = 2_000;

pub(super) async fn cases(group: &mut Group, lab: &Lab) {
    let config = || lab.authority.issue(|_| {}).config();
    tickets(group, lab).await;
    breaks(group, lab).await;
    versions(group, lab).await;
    let keys = serve_over(config(), |mut stream| async move {
        hear_head(&mut stream).await;
        // Each asks for new keys of the other side as well.
        while stream.get_mut().1.refresh_traffic_keys().is_ok() && stream.flush().await.is_ok() {}
    });
    group.fails("new keys without end", https(keys.await), ErrorClass::TlsHandshake);
}

/// More tickets than anybody can use.
async fn tickets(group: &mut Group, lab: &Lab) {
    let mut config = lab.authority.issue(|_| {}).config();
    config.send_tls13_tickets = TICKETS;
    group.ends_well("2,000 tickets", tls(shakes(config.clone()).await));
    let silent = serve_over(config, |mut stream| async move { hold(&mut stream).await });
    // More than the client joins together.
    group.fails("2,000 tickets and no answer", https(silent.await), ErrorClass::TlsHandshake);
}

/// Connections that break under what is said over them.
async fn breaks(group: &mut Group, lab: &Lab) {
    use ErrorClass::{BodyTooLarge, ConnectionLost, TlsHandshake};
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello";
    let config = || lab.authority.issue(|_| {}).config();
    let garbage = serve_over(config(), |mut stream| async move {
        hear_head(&mut stream).await;
        let forged = record(APPLICATION_DATA, &[0xfe; 200]);
        stream.get_mut().0.write_all(&forged).await.ok();
        hold(&mut stream).await;
    });
    group.fails("forged record", https(garbage.await), TlsHandshake);
    let cut = serve_over(config(), |mut stream| async move {
        hear_head(&mut stream).await;
        stream.write_all(HEAD).await.ok();
        stream.flush().await.ok();
        // Without the farewell of TLS.
        stream.get_mut().0.shutdown().await.ok();
    });
    group.fails("cut in the body", https(cut.await), ConnectionLost);
    let farewell = serve_over(config(), |mut stream| async move {
        hear_head(&mut stream).await;
        stream.shutdown().await.ok();
    });
    group.fails("farewell instead of an answer", https(farewell.await), ConnectionLost);
    let endless = serve_over(config(), |mut stream| async move {
        hear_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok();
        flood(&mut stream, b"a").await;
    });
    group.fails("body without end", https(endless.await), BodyTooLarge);
}

/// Versions that do not fit what is asked for, and clients that are not let in.
async fn versions(group: &mut Group, lab: &Lab) {
    use ErrorClass::{HttpVersion, TlsHandshake};
    let issue = || lab.authority.issue(|_| {});
    let mut only_h2 = https(shakes(issue().config()).await);
    only_h2["http"]["version"] = "2".into();
    group.fails("no HTTP/2 chosen", only_h2, HttpVersion);
    let mut config = issue().config();
    config.alpn_protocols = vec![b"imap".to_vec()];
    group.fails("no protocol shared", https(shakes(config).await), HttpVersion);
    let old = issue().config_demanding(&lab.authority, &TLS12);
    group.fails("demands a certificate in TLS 1.2", tls(shakes(old).await), TlsHandshake);
    let demanding = issue().config_demanding(&lab.authority, &TLS13);
    group.fails("demands a certificate in TLS 1.3", https(shakes(demanding).await), TlsHandshake);
    group.ends_well("TLS 1.2 only", tls(shakes(issue().config_of(&[&TLS12])).await));
}
