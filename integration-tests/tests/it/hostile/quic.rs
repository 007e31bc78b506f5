//! Servers that abuse QUIC: datagrams of no connection, handshakes that nobody should believe. Never goes on after a handshake.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use rcgen::{SanType, date_time_ymd};
use sonde_proto::model::error_class::ErrorClass;
use tokio::net::UdpSocket;

use super::case::{Case, Group, Lab, quic};
use super::certificates::{Authority, Identity, self_signed};
use super::servers::background;

/// Version 1, as packets say it.
const VERSION_1: u32 = 1;
/// Says that a packet is a list of versions.
const NEGOTIATION: u32 = 0;

/// First bytes of packets with a long header.
const INITIAL: u8 = 0xc3;
const HANDSHAKE: u8 = 0xe3;
const RETRY: u8 = 0xf0;

/// Packets of a flood: more than a run hears of, and few enough that it is over soon after.
const FLOOD_PACKETS: usize = 80_000;

/// A server that shows `identity` and speaks `alpn`.
pub(super) fn config(identity: Identity, alpn: &str) -> quinn::ServerConfig {
    let mut tls = identity.config_of(&[&rustls::version::TLS13]);
    tls.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()))
}

/// Shakes hands with everybody, and goes on with `serve`.
pub(super) fn serve<F, R>(config: quinn::ServerConfig, serve: F) -> SocketAddr
where
    F: Fn(quinn::Connection) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let serve = Arc::new(serve);
    meets(config, move |incoming| {
        let serve = Arc::clone(&serve);
        background(async move {
            // Whoever goes in the middle of a handshake is not served.
            if let Ok(connection) = incoming.await {
                serve(connection).await;
            }
        });
    })
}

/// Does with everybody who comes what `meet` does.
fn meets(config: quinn::ServerConfig, meet: impl Fn(quinn::Incoming) + Send + 'static) -> SocketAddr {
    let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = endpoint.local_addr().unwrap();
    background(async move {
        while let Some(incoming) = endpoint.accept().await {
            meet(incoming);
        }
    });
    address
}

/// Answers each datagram with those that `answer` makes of it.
async fn answers(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    background(async move {
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            for datagram in answer(&buffer[..length]) {
                socket.send_to(&datagram, from).await.ok();
            }
        }
    });
    address
}

/// Answers with packets that do not verify, more than anybody wants to hear.
async fn floods() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    background(async move {
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let packet = unsealed(&buffer[..length]);
            for _ in 0..FLOOD_PACKETS {
                socket.send_to(&packet, from).await.ok();
            }
        }
    });
    address
}

/// A packet with a long header for the sender of `initial`: `first` byte, `version`, and what follows.
fn packet(initial: &[u8], first: u8, version: u32, rest: &[u8]) -> Vec<u8> {
    // For whom the client's packet is, and from whom.
    let (to, behind) = initial[6..].split_at(initial[5].into());
    let from = &behind[1..=usize::from(behind[0])];
    let id = |id: &[u8]| [&[u8::try_from(id.len()).unwrap()][..], id].concat();
    [&[first][..], &version.to_be_bytes(), &id(from), &id(to), rest].concat()
}

/// An Initial of no token whose seal does not fit.
fn unsealed(initial: &[u8]) -> Vec<u8> {
    packet(initial, INITIAL, VERSION_1, &[&[0, 0x44, 0xb0][..], &[9; 1_200]].concat())
}

pub(super) async fn cases(lab: &Lab) -> Vec<Case> {
    let mut group = Group::new("quic");
    datagrams(&mut group).await;
    packets(&mut group).await;
    certificates(&mut group, lab);
    group.done()
}

/// Datagrams that are not of QUIC, or not of this connection.
async fn datagrams(group: &mut Group) {
    use ErrorClass::{AddressForbidden, ConnectRefused, ConnectTimeout, QuicProtocol};
    group.fails("metadata service", quic("169.254.169.254:443".parse().unwrap()), AddressForbidden);
    group.fails("nobody there", quic(super::udp::nobody().await), ConnectRefused);
    group.fails("says nothing", quic(answers(|_| Vec::new()).await), ConnectTimeout);
    let mail = answers(|_| vec![b"220 mail.test ESMTP\r\n".to_vec()]).await;
    group.waits("another protocol", quic(mail), QuicProtocol);
    group.waits("packet of the client itself", quic(answers(|heard| vec![heard.to_vec()]).await), QuicProtocol);
    let noise = answers(|_| vec![Vec::new(), vec![0], vec![0xff; 1_200], vec![0x40; 2_048], vec![0xc0; 5]]).await;
    group.waits("bytes of no packet", quic(noise), QuicProtocol);
    let stray = answers(|_| vec![[&[0xc0, 0, 0, 0, 1, 4, 1, 2, 3, 4, 0][..], &[7; 1_200]].concat()]).await;
    group.waits("packets for somebody else", quic(stray), QuicProtocol);
    let large = answers(|_| vec![vec![0xc3; 65_000]; 100]).await;
    group.waits("datagrams of 64 KiB", quic(large), QuicProtocol);
}

/// Packets of this connection that mean nothing.
async fn packets(group: &mut Group) {
    use ErrorClass::{QuicProtocol, QuicVersion, TlsTimeout};
    let future = answers(|heard| vec![packet(heard, 0xaa, NEGOTIATION, &[0x6b, 0x33, 0x43, 0xcf, 10, 10, 10, 10])]);
    group.fails("versions of the future", quic(future.await), QuicVersion);
    let lies = answers(|heard| vec![packet(heard, 0xaa, NEGOTIATION, &VERSION_1.to_be_bytes())]).await;
    group.fails("list of versions that is a lie", quic(lies), TlsTimeout);
    let many = answers(|heard| vec![packet(heard, 0xaa, NEGOTIATION, &[0x1a; 1_200])]).await;
    group.fails("300 versions", quic(many), QuicVersion);
    group.fails("packets that do not verify", quic(answers(|heard| vec![unsealed(heard); 50]).await), TlsTimeout);
    let retries =
        answers(|heard| vec![packet(heard, RETRY, VERSION_1, &[5; 60]), packet(heard, RETRY, VERSION_1, &[5; 16])]);
    group.fails("another address for no reason", quic(retries.await), TlsTimeout);
    let early =
        answers(|heard| vec![packet(heard, HANDSHAKE, VERSION_1, &[&[0x44, 0xb0][..], &[9; 1_200]].concat()); 50]);
    group.fails("packets before there are keys for them", quic(early.await), TlsTimeout);
    // The kernel drops what is not heard in time, so that a slow client may not hear as many as it takes.
    group.fails_or("packets without end", quic(floods().await), TlsTimeout, QuicProtocol);
}

/// Handshakes that come to their end, and to no good one.
fn certificates(group: &mut Group, lab: &Lab) {
    use ErrorClass::{ConnectRefused, TlsAlpn, TlsCertificate, TlsExpired, TlsName, TlsNotYetValid, TlsUntrusted};
    let authority = &lab.authority;
    let shakes = |identity: Identity, alpn| {
        serve(config(identity, alpn), |connection| async move {
            connection.closed().await;
        })
    };
    let mut refused = |name, identity, class| group.fails(name, quic(shakes(identity, "h3")), class);
    refused("expired", authority.issue(|it| it.not_after = date_time_ymd(2020, 1, 1)), TlsExpired);
    refused("not valid yet", authority.issue(|it| it.not_before = date_time_ymd(4000, 1, 1)), TlsNotYetValid);
    let other = |name: &str| vec![SanType::DnsName(name.to_owned().try_into().unwrap())];
    refused("other name", authority.issue(|it| it.subject_alt_names = other("other.lab.test")), TlsName);
    refused("self-signed", self_signed(), TlsUntrusted);
    refused("unknown authority", Authority::named("a stranger").issue(|_| {}), TlsUntrusted);
    let junk = |bytes: &mut Vec<u8>| *bytes = vec![0xfe; 500];
    refused("bytes of no certificate", authority.issue(|_| {}).tampered(junk), TlsCertificate);
    let crowd: Vec<Authority> = (0..100).map(|_| Authority::named("a crowd")).collect();
    let crowded = crowd[0].issue(|_| {}).with(&crowd.iter().skip(1).collect::<Vec<_>>());
    refused("crowd of one name", crowded, TlsCertificate);
    group.fails("another application", quic(shakes(authority.issue(|_| {}), "doq")), TlsAlpn);
    let closed = meets(config(authority.issue(|_| {}), "h3"), quinn::Incoming::refuse);
    group.fails("lets nobody in", quic(closed), ConnectRefused);
}
