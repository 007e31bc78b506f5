//! One certificate, many connections: it gets its share of the port and of the stores, and locks nobody out.

use std::sync::Arc;
use std::time::Instant;

use sonde_probe::identity::{Address, CollectorVerifier, client_config, dial};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::*;

/// Far more connections than a probe needs.
const CROWD: usize = 40;
/// What every client of HTTP/2 says first, with settings that change nothing.
const FIRST_WORDS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// A connection that does not answer a ping is closed after 15 s in any case; what is tested comes well before.
const BEFORE_THE_PING: Duration = Duration::from_secs(12);

/// A connection after its handshake, on which nothing is asked.
async fn idle(mesh: &Mesh, probe: &RawProbe) -> impl AsyncRead + AsyncWrite + Unpin {
    let address = Address::parse("mesh", &mesh.endpoints.mesh.to_string()).unwrap();
    let verifier = CollectorVerifier::mesh(&probe.identity.ca, &probe.identity.membership.trust_domain).unwrap();
    let config = client_config(verifier, Some(probe.identity.credentials()), probe.clock).unwrap();
    let mut tls = dial(&address, Arc::new(config)).await.unwrap();
    tls.write_all(FIRST_WORDS).await.unwrap();
    tls.flush().await.unwrap();
    tls
}

/// Waits until the collector has ended the connection.
async fn ended(stream: &mut (impl AsyncRead + Unpin)) {
    let mut bytes = [0_u8; 1_024];
    // The server's own first words come before the end.
    let end = async { while !matches!(stream.read(&mut bytes).await, Ok(0) | Err(_)) {} };
    tokio::time::timeout(PATIENCE, end).await.expect("the connection is ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_certificate_keeps_few_connections_and_locks_nobody_out() {
    let (mesh, probe, check) = world().await;
    let other = RawProbe::join(&mesh, "eu-west", "other").await;
    let begun = Instant::now();
    let mut oldest = idle(&mesh, &probe).await;
    let mut crowd = Vec::new();
    for _ in 1..CROWD {
        crowd.push(idle(&mesh, &probe).await);
    }
    ended(&mut oldest).await;
    assert!(begun.elapsed() < BEFORE_THE_PING, "it was ended for its silence and not for the crowd");
    assert_eq!(audited(&mesh, "probe.too_many_connections").await.len(), 1);
    let (_, text) = mesh.web("/metrics").await;
    assert!(text.contains("sonde_collector_connections_crowded_total "), "it is counted");
    live(&mesh, &other, check, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_a_revoked_probe_are_closed() {
    let (mesh, probe, _) = world().await;
    let begun = Instant::now();
    let mut connection = idle(&mesh, &probe).await;
    assert_eq!(mesh.cli().run(&["probe", "revoke", &probe.id().to_string()]).code, 0);
    ended(&mut connection).await;
    assert!(begun.elapsed() < BEFORE_THE_PING, "it was ended for its silence and not for the revocation");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_streams_without_end_has_to_wait() {
    let (mesh, probe, check) = world().await;
    let other = RawProbe::join(&mesh, "eu-west", "other").await;
    let refused = async {
        loop {
            if let Err(status) = probe.try_open(&mesh, probe.hello(boot(1))).await {
                return status;
            }
        }
    };
    let status = tokio::time::timeout(PATIENCE, refused).await.expect("it is refused at last");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(audited(&mesh, "probe.too_many_streams").await.len(), 1);
    live(&mesh, &other, check, 1).await;
}
