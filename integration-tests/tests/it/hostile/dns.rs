//! Name servers that lie, stutter, flood or say nothing: those that a check asks, and the one that the probe asks itself.

pub(super) mod message;
pub(super) mod resolver;

use std::net::SocketAddr;
use std::sync::Arc;

use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::case::{Case, Group, dns, tcp_to};
use super::servers::{Then, background, blurts, drip, hold, refuses, reset};
use message::{
    A, CNAME, OPT, QR, TC, TXT, answer_of_count, answer_with, name, question_end, record, record_of, refusal,
};

/// Attempts to find a port that is free for both transports.
const PORTS_MAX: usize = 50;

/// Says over UDP the datagrams that `udp` makes of a query, and does with a connection and its query what `tcp` does.
pub(super) async fn server<U, T, R>(udp: U, tcp: T) -> SocketAddr
where
    U: Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
    T: Fn(TcpStream, Vec<u8>) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let (listener, socket) = both().await;
    let address = listener.local_addr().unwrap();
    says(socket, udp);
    let tcp = Arc::new(tcp);
    background(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tcp = Arc::clone(&tcp);
            background(async move {
                let Ok(length) = stream.read_u16().await else { return };
                let mut query = vec![0; usize::from(length)];
                if stream.read_exact(&mut query).await.is_ok() {
                    tcp(stream, query).await;
                }
            });
        }
    });
    address
}

async fn both() -> (TcpListener, UdpSocket) {
    for _ in 0..PORTS_MAX {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()).await {
            return (listener, socket);
        }
    }
    panic!("no port is free for both transports");
}

fn says(socket: UdpSocket, udp: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) {
    background(async move {
        let mut buffer = [0; 1_500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            for datagram in udp(&buffer[..length]) {
                socket.send_to(&datagram, from).await.ok();
            }
        }
    });
}

/// Answers over UDP; nobody listens on TCP.
async fn answers(udp: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    for _ in 0..PORTS_MAX {
        let address = refuses();
        if let Ok(socket) = UdpSocket::bind(address).await {
            says(socket, udp);
            return address;
        }
    }
    panic!("no port is free for UDP");
}

/// Says that the answer is truncated, and over TCP the words that `tcp` makes of the query, length and all.
async fn answers_over_tcp(tcp: fn(&[u8]) -> Vec<u8>, then: Then) -> SocketAddr {
    let truncated = |query: &[u8]| vec![answer_with(query, TC, &[])];
    server(truncated, move |mut stream, query| async move {
        let words = tcp(&query);
        super::servers::say(&mut stream, &words, then).await;
    })
    .await
}

/// A message as TCP carries it.
fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

pub(super) async fn cases() -> Vec<Case> {
    let mut group = Group::new("dns");
    codes(&mut group).await;
    strays(&mut group).await;
    malformed(&mut group).await;
    streams(&mut group).await;
    names(&mut group).await;
    group.done()
}

/// Answers that are in order, and no good news.
async fn codes(group: &mut Group) {
    use ErrorClass::{DnsNoData, DnsNxdomain, DnsRcode, DnsRefused, DnsServfail};
    let mut coded = async |name, code, class| {
        group.fails(name, dns(answers(move |query| vec![refusal(query, code)]).await, "A"), class);
    };
    coded("no such name", 3, DnsNxdomain).await;
    coded("server that failed", 2, DnsServfail).await;
    coded("server that refuses", 5, DnsRefused).await;
    coded("question that is not understood", 1, DnsRcode).await;
    coded("response code 15", 15, DnsRcode).await;
    coded("no records", 0, DnsNoData).await;
    let circle = answers(|query| {
        let other = name("other.lab.test");
        vec![answer_with(query, 0, &[record(CNAME, &other), record_of(&other, CNAME, message::ASKED)])]
    });
    group.fails("aliases in a circle", dns(circle.await, "A"), DnsNoData);
    let other_type = answers(|query| vec![answer_with(query, 0, &[record(TXT, b"\x05hello")])]);
    group.fails("records of another type", dns(other_type.await, "A"), DnsNoData);
    let extended = answers(|query| vec![with_options(query, &[1, 0, 0, 0], &[])]);
    group.fails("version of EDNS that is not spoken", dns(extended.await, "A"), DnsRcode);
}

/// An empty answer with the record of EDNS: its upper code and flags, and options.
fn with_options(query: &[u8], upper: &[u8; 4], options: &[u8]) -> Vec<u8> {
    let length = u16::try_from(options.len()).unwrap().to_be_bytes();
    let record = [&[0][..], &OPT.to_be_bytes(), &[4, 0xd0], upper, &length, options].concat();
    let mut answer = answer_with(query, 0, &[]);
    answer[11] = 1;
    answer.extend(record);
    answer
}

/// Datagrams that answer something else.
async fn strays(group: &mut Group) {
    use ErrorClass::{ConnectRefused, DnsMismatch, DnsTimeout};
    let good = |query: &[u8]| answer_with(query, 0, &[record(A, &[192, 0, 2, 1])]);
    let other_id = move |query: &[u8]| {
        let mut answer = good(query);
        answer[0] ^= 0xff;
        answer
    };
    group.fails("says nothing", dns(answers(|_| Vec::new()).await, "A"), DnsTimeout);
    group.fails("nobody listens", dns(refuses(), "A"), ConnectRefused);
    group.waits("other number", dns(answers(move |query| vec![other_id(query)]).await, "A"), DnsMismatch);
    group.fails(
        "other numbers without end",
        dns(answers(move |query| vec![other_id(query); 2_000]).await, "A"),
        DnsMismatch,
    );
    let forged = answers(move |query| [vec![other_id(query); 100], vec![good(query)]].concat());
    group.ends_well("a hundred forged answers before the true one", dns(forged.await, "A"));
    let other_question = answers(move |query| {
        let mut answer = good(query);
        answer[13] ^= 1;
        vec![answer]
    });
    group.waits("other question", dns(other_question.await, "A"), DnsMismatch);
    let question = answers(move |query| vec![answer_with(query, QR, &[])]);
    group.waits("question for an answer", dns(question.await, "A"), DnsMismatch);
    group.waits("the query itself", dns(answers(|query| vec![query.to_vec()]).await, "A"), DnsMismatch);
    group.waits("empty datagrams", dns(answers(|_| vec![Vec::new(); 10]).await, "A"), DnsMismatch);
}

/// Answers that cannot be read.
async fn malformed(group: &mut Group) {
    use ErrorClass::{DnsMalformed, DnsNoData};
    let mut refused = async |name, answer: fn(&[u8]) -> Vec<u8>| {
        group.fails(name, dns(answers(move |query| vec![answer(query)]).await, "A"), DnsMalformed);
    };
    refused("name that points to itself", |query| {
        let itself = u8::try_from(question_end(query)).unwrap();
        answer_of_count(query, 0, 1, &record_of(&[0xc0, itself], A, &[192, 0, 2, 1]))
    })
    .await;
    refused("name that points ahead", |query| {
        answer_of_count(query, 0, 1, &record_of(&[0xc3, 0xff], A, &[192, 0, 2, 1]))
    })
    .await;
    refused("name of 300 bytes", |query| {
        answer_of_count(query, 0, 1, &record_of(&name(&["abcdefghi"; 30].join(".")), A, &[192, 0, 2, 1]))
    })
    .await;
    refused("label of a kind that is not used", |query| {
        answer_of_count(query, 0, 1, &record_of(&[0x80, 1, 0], A, &[0; 4]))
    })
    .await;
    refused("65,535 records announced, none there", |query| answer_of_count(query, 0, u16::MAX, &[])).await;
    refused("record longer than the message", |query| {
        let mut long = record(A, &[192, 0, 2, 1]);
        long[10] = 0xff;
        answer_of_count(query, 0, 1, &long)
    })
    .await;
    refused("address of three bytes", |query| answer_with(query, 0, &[record(A, &[192, 0, 2])])).await;
    refused("head and no more", |query| {
        query[..12].iter().copied().enumerate().map(|(n, it)| if n == 2 { 0x81 } else { it }).collect()
    })
    .await;
    refused("options that are none", |query| with_options(query, &[0; 4], &[0, 10, 0xff, 0xff, 1])).await;
    refused("datagram beyond its bound", |query| answer_with(query, 0, &vec![record(A, &[192, 0, 2, 1]); 1_000])).await;
    let long = answers(|query| {
        let owner = name(&["a".repeat(49).as_str(); 5].join("."));
        let pointer = [0xc0, u8::try_from(question_end(query)).unwrap()];
        let first = record_of(&owner, TXT, b"\x01a");
        vec![answer_with(query, 0, &[vec![first], vec![record_of(&pointer, TXT, b"\x01a"); 200]].concat())]
    });
    group.fails("200 names of 250 bytes", dns(long.await, "A"), DnsNoData);
}

/// Name servers that are hostile over TCP.
async fn streams(group: &mut Group) {
    use ErrorClass::{
        ConnectRefused, ConnectionLost, DnsMalformed, DnsMismatch, DnsTruncated, FirstByteTimeout, TransferTimeout,
    };
    let truncated = answers(|query| vec![answer_with(query, TC, &[])]).await;
    group.fails("truncated, and nobody listens on TCP", dns(truncated, "A"), ConnectRefused);
    let mut says = async |name, tcp: fn(&[u8]) -> Vec<u8>, then, class| {
        group.fails(name, dns(answers_over_tcp(tcp, then).await, "A"), class);
    };
    says("truncated for ever", |query| framed(&answer_with(query, TC, &[])), Then::Hold, DnsTruncated).await;
    says("64 KiB announced", |_| vec![0xff, 0xff], Then::Hold, TransferTimeout).await;
    says("message of no length", |_| vec![0, 0], Then::Hold, DnsMalformed).await;
    says("half a length", |_| vec![0], Then::Close, ConnectionLost).await;
    says("nothing over TCP", |_| Vec::new(), Then::Hold, FirstByteTimeout).await;
    says("hangs up over TCP", |_| Vec::new(), Then::Close, ConnectionLost).await;
    says("64 KiB of no message", |_| framed(&[0xfe; 65_535]), Then::Repeat, DnsMismatch).await;
    says(
        "other number over TCP",
        |query| framed(&[&[!query[0], query[1]], &answer_with(query, 0, &[])[2..]].concat()),
        Then::Hold,
        DnsMismatch,
    )
    .await;
    let resets = server(|query| vec![answer_with(query, TC, &[])], |stream, _| async move { reset(&stream) });
    group.fails("resets over TCP", dns(resets.await, "A"), ConnectionLost);
    let slow = server(
        |query| vec![answer_with(query, TC, &[])],
        |mut stream, _| async move { drip(&mut stream, &framed(&[0; 60_000])).await },
    );
    group.fails("message byte by byte", dns(slow.await, "A"), TransferTimeout);
    let many = server(
        |query| vec![answer_with(query, TC, &[])],
        |mut stream, query| async move {
            let records = vec![record(A, &[192, 0, 2, 1]); 4_000];
            stream.write_all(&framed(&answer_with(&query, 0, &records))).await.ok();
            hold(&mut stream).await;
        },
    );
    group.ends_well("4,000 records", dns(many.await, "A"));
}

/// Names that the probe resolves for itself.
async fn names(group: &mut Group) {
    use ErrorClass::{
        AddressForbidden, DnsError, DnsNoData, DnsNxdomain, DnsRcode, DnsRefused, DnsServfail, DnsTimeout, DnsTruncated,
    };
    let server = blurts(b"", Then::Hold).await;
    let mut leads = |name, label, class| group.fails(name, tcp_to(label, server), class);
    leads("resolver: no such name", "absent", DnsNxdomain);
    leads("resolver: failed", "broken", DnsServfail);
    leads("resolver: refuses", "shut", DnsRefused);
    leads("resolver: code 15", "strange", DnsRcode);
    leads("resolver: no addresses", "empty", DnsNoData);
    leads("resolver: says nothing", "silent", DnsTimeout);
    leads("resolver: bytes of no message", "noise", DnsTimeout);
    leads("resolver: question for an answer", "question", DnsTimeout);
    leads("resolver: truncated for ever", "truncated", DnsTruncated);
    leads("resolver: aliases in a circle", "circle", DnsNoData);
    leads("resolver: name that points to itself", "pointer", DnsError);
    leads("resolver: addresses of another name", "stranger", DnsNoData);
    leads("name of the metadata service", "metadata", AddressForbidden);
    leads("name of its translation", "translated", AddressForbidden);
    leads("name of its mapped form", "mapped", AddressForbidden);
    leads("name of its tunnel", "tunnelled", AddressForbidden);
    leads("name of no address at all", "unspecified", AddressForbidden);
    leads("4,000 addresses of a private network", "crowd", AddressForbidden);
    group.ends_well("name that leads elsewhere when it is asked for again", tcp_to("rebinding", server));
    group.ends_well("one good address among private ones", tcp_to("mixed", server));
}
