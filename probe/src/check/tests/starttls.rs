//! Upgrades to TLS. The servers say what a real one of each protocol says, or what one should not.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::join_all;
use sonde_proto::model::check::{CheckKind, KindDraft, StartTls};
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::servers::{Authority, tcp_server};
use super::{
    GENEROUS, Observation, SHORT, assert_failed, assert_ok, context, context_with, happened, observe, strict_context,
};

/// What a server waits for, and what it says then.
type Turns = Vec<(Vec<u8>, Vec<u8>)>;

fn turns(turns: &[(&[u8], &[u8])]) -> Turns {
    turns.iter().map(|(hear, say)| (hear.to_vec(), say.to_vec())).collect()
}

const HELLO: &[u8] = b"EHLO sonde-probe.invalid\r\n";
const POSTGRES_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const LDAP_REQUEST: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
const XMPP_HEADER: &[u8] = b"<?xml version='1.0'?><stream:stream to='target.test' version='1.0' \
    xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const XMPP_REQUEST: &[u8] = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const XMPP_OPEN: &str = "<?xml version='1.0'?>\n<stream:stream xmlns='jabber:client' id='a>b' from=\"target.test\">\n";

/// A greeting of MySQL 8 with the lower half of its capabilities.
fn mysql_greeting(capabilities: u16) -> Vec<u8> {
    let mut payload = b"\x0a8.4.2\0\x07\0\0\0challeng\0".to_vec();
    payload.extend(capabilities.to_le_bytes());
    payload.extend(b"\xff\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0challengetwo\0caching_sha2_password\0");
    mysql_packet(&payload)
}

fn mysql_packet(payload: &[u8]) -> Vec<u8> {
    [&[u8::try_from(payload.len()).unwrap(), 0, 0, 0][..], payload].concat()
}

/// 32 bytes of payload, packet 1; protocol 4.1, SSL, secure connection; 16 MiB; utf8mb4.
fn mysql_request() -> Vec<u8> {
    [&b"\x20\0\0\x01\0\x8a\0\0\0\0\0\x01\x2d"[..], &[0; 23]].concat()
}

fn ldap_answer(id: u8, code: u8) -> Vec<u8> {
    vec![0x30, 0x0c, 0x02, 0x01, id, 0x78, 0x07, 0x0a, 0x01, code, 0x04, 0x00, 0x04, 0x00]
}

fn xmpp(features: &str, answer: &str) -> Turns {
    turns(&[(XMPP_HEADER, [XMPP_OPEN, features].concat().as_bytes()), (XMPP_REQUEST, answer.as_bytes())])
}

/// How a server leads to TLS.
fn good(protocol: StartTls) -> Turns {
    match protocol {
        StartTls::Smtp => turns(&[
            (b"", b"220-mail.test ESMTP\r\n220 no spam\r\n"),
            (HELLO, b"250-mail.test\r\n250-SIZE 1000\r\n250-starttls\r\n250 HELP\r\n"),
            (b"STARTTLS\r\n", b"220 go ahead\r\n"),
        ]),
        StartTls::Imap => turns(&[
            (b"", b"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n"),
            (b"a1 STARTTLS\r\n", b"* CAPABILITY IMAP4rev1\r\na1 OK begin\r\n"),
        ]),
        StartTls::Pop3 => turns(&[(b"", b"+OK POP3 <1@mail.test>\r\n"), (b"STLS\r\n", b"+OK\r\n")]),
        StartTls::Ftp => turns(&[
            (b"", b"120 soon\r\n220-welcome\r\n 230 is text\r\n221 too\r\n220-and this\r\n220 ready\r\n"),
            (b"AUTH TLS\r\n", b"234 go ahead\r\n"),
        ]),
        StartTls::Postgres => turns(&[(POSTGRES_REQUEST, b"S")]),
        StartTls::Mysql => turns(&[(b"", &mysql_greeting(0xffff)), (&mysql_request(), b"")]),
        StartTls::Xmpp => xmpp(
            "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
             <mechanisms><mechanism>PLAIN</mechanism></mechanisms></stream:features>",
            "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
        ),
        StartTls::Ldap => turns(&[(LDAP_REQUEST, &ldap_answer(1, 0))]),
    }
}

/// What happens after the last turn.
#[derive(Clone)]
enum Then {
    Tls(TlsAcceptor),
    Wait,
    Close,
}

/// Takes its turns with everybody. `in_pieces` sends every byte on its own.
async fn server(turns: Turns, in_pieces: bool, then: Then) -> SocketAddr {
    let turns = Arc::new(turns);
    tcp_server(move |mut stream| {
        let (turns, then) = (Arc::clone(&turns), then.clone());
        async move {
            for (hear, say) in turns.iter() {
                let mut heard = vec![0; hear.len()];
                // A client that left, or that says something else, is noticed by its own test.
                if stream.read_exact(&mut heard).await.is_err() || heard != *hear {
                    return;
                }
                for piece in say.chunks(if in_pieces { 1 } else { usize::MAX }) {
                    stream.write_all(piece).await.ok();
                    tokio::task::yield_now().await;
                }
            }
            match then {
                Then::Tls(acceptor) => {
                    if let Ok(mut stream) = acceptor.accept(stream).await {
                        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
                    }
                }
                Then::Wait => {
                    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
                }
                Then::Close => stream.shutdown().await.unwrap_or_default(),
            }
        }
    })
    .await
}

fn kind(protocol: StartTls, addr: SocketAddr) -> CheckKind {
    CheckKind::parse(KindDraft::Tls {
        host: addr.ip().to_string(),
        port: addr.port().into(),
        server_name: "target.test".to_owned(),
        starttls: protocol.name().to_owned(),
    })
    .unwrap()
}

/// A run against a server that says `turns` and no more.
async fn run(protocol: StartTls, turns: Turns, then: Then, timeout: std::time::Duration) -> Observation {
    let addr = server(turns, false, then).await;
    observe(&kind(protocol, addr), &context(), timeout).await
}

async fn fails(protocol: StartTls, turns: Turns, class: ErrorClass) {
    let said = String::from_utf8_lossy(&turns.iter().flat_map(|(_, say)| say.clone()).collect::<Vec<_>>()).into_owned();
    let observation = run(protocol, turns, Then::Wait, GENEROUS).await;
    assert_eq!(observation.error, Some(class), "{protocol:?}: {said:?}: {observation:?}");
    assert_eq!((happened(&observation).as_str(), observation.bytes), ("-ct---", None));
}

#[tokio::test]
async fn every_protocol_leads_to_a_verified_handshake() {
    let authority = Authority::new();
    let context = context_with(None, vec![authority.root.clone()]);
    for protocol in StartTls::ALL {
        for in_pieces in [false, true] {
            let acceptor = authority.issue(&["target.test"], |_| {}).acceptor(&[]);
            let addr = server(good(protocol), in_pieces, Then::Tls(acceptor)).await;
            let observation = observe(&kind(protocol, addr), &context, GENEROUS).await;
            assert_eq!(observation.error, None, "{protocol:?}, in pieces: {in_pieces}");
            assert_ok(&observation);
            assert_eq!((happened(&observation).as_str(), observation.bytes), ("-ct---", None));
        }
    }
}

#[tokio::test]
async fn the_certificate_is_verified_after_every_upgrade() {
    for protocol in StartTls::ALL {
        let acceptor = Authority::new().issue(&["target.test"], |_| {}).acceptor(&[]);
        let observation = run(protocol, good(protocol), Then::Tls(acceptor), GENEROUS).await;
        assert_failed(&observation, ErrorClass::TlsUntrusted);
    }
}

#[tokio::test]
async fn an_answer_that_is_rare_but_right_is_understood() {
    let authority = Authority::new();
    let context = context_with(None, vec![authority.root.clone()]);
    let check = async |protocol, turns| {
        let acceptor = authority.issue(&["target.test"], |_| {}).acceptor(&[]);
        let addr = server(turns, false, Then::Tls(acceptor)).await;
        assert_ok(&observe(&kind(protocol, addr), &context, GENEROUS).await);
    };
    // Active Directory writes every length in five bytes.
    let long =
        b"\x30\x84\0\0\0\x28\x02\x01\x01\x78\x84\0\0\0\x1f\x0a\x01\x00\x04\x00\x04\x00\x8a\x161.3.6.1.4.1.1466.20037";
    check(StartTls::Ldap, turns(&[(LDAP_REQUEST, long)])).await;
    let proceed = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'></proceed>";
    check(StartTls::Xmpp, xmpp("<stream:features><starttls/></stream:features>", proceed)).await;
    // News that was on its way when we asked.
    let early = b"* OK ready\r\n* CAPABILITY IMAP4rev1\r\n";
    check(StartTls::Imap, turns(&[(b"", early), (b"a1 STARTTLS\r\n", b"a1 ok\r\n")])).await;
    let bare = [(&b""[..], &b"220\n"[..]), (HELLO, b"250-a\n250 STARTTLS\n"), (b"STARTTLS\r\n", b"220\n")];
    check(StartTls::Smtp, turns(&bare)).await;
}

#[tokio::test]
async fn a_server_that_says_no_is_told_from_one_that_makes_no_sense() {
    let check =
        async |protocol, said: &[(&[u8], &[u8])]| fails(protocol, turns(said), ErrorClass::StarttlsRefused).await;
    check(StartTls::Smtp, &[(b"", b"554 go away\r\n")]).await;
    check(StartTls::Smtp, &[(b"", b"220 a\r\n"), (HELLO, b"502 no\r\n")]).await;
    // The name of the server is no keyword, nor is a part of one.
    check(StartTls::Smtp, &[(b"", b"220 a\r\n"), (HELLO, b"250-mail.test\r\n250-XSTARTTLS\r\n250 STARTTLSX\r\n")])
        .await;
    let offer = b"250-a\r\n250 STARTTLS\r\n";
    check(StartTls::Smtp, &[(b"", b"220 a\r\n"), (HELLO, offer), (b"STARTTLS\r\n", b"454 later\r\n")]).await;
    check(StartTls::Imap, &[(b"", b"* BYE overloaded\r\n")]).await;
    check(StartTls::Imap, &[(b"", b"* PREAUTH hello\r\n")]).await;
    for answer in [&b"a1 NO\r\n"[..], b"a1 BAD unknown\r\n", b"* BYE\r\n"] {
        check(StartTls::Imap, &[(b"", b"* OK\r\n"), (b"a1 STARTTLS\r\n", answer)]).await;
    }
    check(StartTls::Pop3, &[(b"", b"-ERR busy\r\n")]).await;
    check(StartTls::Pop3, &[(b"", b"+OK\r\n"), (b"STLS\r\n", b"-ERR unknown\r\n")]).await;
    check(StartTls::Ftp, &[(b"", b"421-full\r\n421 bye\r\n")]).await;
    check(StartTls::Ftp, &[(b"", b"220 a\r\n"), (b"AUTH TLS\r\n", b"534 no\r\n")]).await;
    check(StartTls::Postgres, &[(POSTGRES_REQUEST, b"N")]).await;
    check(StartTls::Postgres, &[(POSTGRES_REQUEST, b"E\0\0\0\x0bSFATAL\0")]).await;
    check(StartTls::Mysql, &[(b"", &mysql_greeting(0xf7ff))]).await;
    check(StartTls::Mysql, &[(b"", &mysql_packet(b"\xff\x10\x04Too many connections"))]).await;
    for code in [1, 2, 52, 80] {
        check(StartTls::Ldap, &[(LDAP_REQUEST, &ldap_answer(1, code))]).await;
    }
    check(StartTls::Ldap, &[(LDAP_REQUEST, &ldap_answer(0, 52))]).await;
    for features in [
        "<stream:features/>",
        "<stream:features></stream:features>",
        "<stream:features><other><starttls/></other></stream:features>",
        "<stream:error><host-unknown/></stream:error></stream:stream>",
    ] {
        fails(StartTls::Xmpp, xmpp(features, ""), ErrorClass::StarttlsRefused).await;
    }
    for answer in ["<failure/></stream:stream>", "<failure xmlns='a'></failure>", "</stream:stream>"] {
        let offer = "<stream:features><starttls/></stream:features>";
        fails(StartTls::Xmpp, xmpp(offer, answer), ErrorClass::StarttlsRefused).await;
    }
}

#[tokio::test]
async fn a_server_of_something_else_is_found_out_by_its_first_words() {
    let check = async |protocol, said: &[(&[u8], &[u8])]| {
        fails(protocol, turns(said), ErrorClass::StarttlsProtocol).await;
    };
    for words in [&b"SSH-2.0-OpenSSH_9\r\n"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\r\n", b"\0\xff\n"] {
        for protocol in [StartTls::Smtp, StartTls::Imap, StartTls::Pop3, StartTls::Ftp] {
            check(protocol, &[(b"", words)]).await;
        }
    }
    for words in [&b"ERROR\r\n"[..], b"HTTP", b"s", b"E\0\0\0\x04", b"\x16\x03\x01"] {
        check(StartTls::Postgres, &[(POSTGRES_REQUEST, words)]).await;
        check(StartTls::Xmpp, &[(XMPP_HEADER, words)]).await;
        check(StartTls::Ldap, &[(LDAP_REQUEST, words)]).await;
    }
    check(StartTls::Smtp, &[(b"", b"220-a\r\n221 b\r\n")]).await;
    check(StartTls::Smtp, &[(b"", b"220 a\r\n"), (HELLO, b"354 go\r\n")]).await;
    check(StartTls::Smtp, &[(b"", b"220_a\r\n")]).await;
    check(StartTls::Ftp, &[(b"", b"120 soon\r\n120 sooner\r\n")]).await;
    check(StartTls::Imap, &[(b"", b"* OK\r\n"), (b"a1 STARTTLS\r\n", b"a2 OK\r\n")]).await;
    check(StartTls::Pop3, &[(b"", b"+OKAY\r\n")]).await;
    for greeting in [
        mysql_packet(b"\x098.4.2\0\x07\0\0\0challeng\0\xff\xff"),
        mysql_packet(b"\x0anever ends"),
        mysql_packet(b"\x0a8\0\x07\0\0\0chal"),
        mysql_packet(b""),
        b"\0\0\0\x01".to_vec(),
        b"\xff\xff\xff\0\x0a".to_vec(),
    ] {
        check(StartTls::Mysql, &[(b"", &greeting)]).await;
    }
    for answer in [
        ldap_answer(2, 0),
        b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\0\x04\0\x04\0".to_vec(),
        b"\x30\x80\x02\x01\x01".to_vec(),
        b"\x30\x84\xff\xff\xff\xff".to_vec(),
        [&b"\x30\x89\x01"[..], &[0; 8]].concat(),
        b"\x30\x03\x02\x7f\x01".to_vec(),
    ] {
        check(StartTls::Ldap, &[(LDAP_REQUEST, &answer)]).await;
    }
    for words in ["<!DOCTYPE a>", "<html>", "<stream:stream><body>", "<stream:stream></stream:stream>", "<<", "<>"] {
        check(StartTls::Xmpp, &[(XMPP_HEADER, words.as_bytes())]).await;
    }
}

#[tokio::test]
async fn a_byte_behind_the_talk_is_an_injection() {
    for protocol in StartTls::ALL {
        let mut turns = good(protocol);
        let (_, last) = turns.iter_mut().rfind(|(_, say)| !say.is_empty()).unwrap();
        last.push(b'\n');
        fails(protocol, turns, ErrorClass::StarttlsProtocol).await;
    }
    // An answer before its question.
    let early = [(&b""[..], &b"+OK\r\n+OK\r\n"[..])];
    fails(StartTls::Pop3, turns(&early), ErrorClass::StarttlsProtocol).await;
}

#[tokio::test]
async fn an_endless_talk_ends() {
    let check = async |protocol, first: &'static [u8], endless: &'static [u8]| {
        let addr = tcp_server(move |mut stream| async move {
            stream.write_all(first).await.ok();
            while stream.write_all(endless).await.is_ok() {}
        })
        .await;
        let observation = observe(&kind(protocol, addr), &context(), GENEROUS).await;
        assert_failed(&observation, ErrorClass::StarttlsProtocol);
    };
    check(StartTls::Smtp, b"", b"220-and\r\n").await;
    check(StartTls::Smtp, b"", b"220-and so on").await;
    check(StartTls::Ftp, b"220-\r\n", b"and\r\n").await;
    check(StartTls::Imap, b"* OK\r\n", b"* news\r\n").await;
    check(StartTls::Pop3, b"+OK ", b"and so on").await;
    check(StartTls::Xmpp, b"", b"          ").await;
    check(StartTls::Xmpp, b"<stream:stream><stream:features>", b"<a>b</a>").await;
    check(StartTls::Xmpp, b"<stream:stream a='", b"and so on").await;
    check(StartTls::Mysql, b"\xff\xff\xff\0", b"\x0a").await;
    check(StartTls::Ldap, b"\x30\x83\xff\xff\xff", b"\x02").await;
}

#[tokio::test]
async fn silence_and_farewell_in_the_talk_have_their_class() {
    let mut runs = Vec::new();
    for protocol in StartTls::ALL {
        for length in 0..=good(protocol).len() {
            runs.push(async move {
                let some: Turns = good(protocol).into_iter().take(length).collect();
                let silent = run(protocol, some.clone(), Then::Wait, SHORT).await;
                assert_failed(&silent, ErrorClass::TlsTimeout);
                assert_eq!(happened(&silent), "-ct---");
                assert!(silent.phases.tls_us.unwrap() >= 300_000, "{silent:?}");
                let is_over = good(protocol)[length..].iter().all(|(_, say)| say.is_empty());
                if !is_over {
                    let gone = run(protocol, some, Then::Close, GENEROUS).await;
                    assert_eq!(gone.error, Some(ErrorClass::ConnectionLost), "{protocol:?} after {length} turns");
                    assert_eq!(happened(&gone), "-ct---");
                }
            });
        }
    }
    join_all(runs).await;
}

#[tokio::test]
async fn nobody_talks_to_an_address_that_is_forbidden() {
    let addr = tcp_server(|_| async { panic!("nobody may connect") }).await;
    let observation = observe(&kind(StartTls::Smtp, addr), &strict_context(None), GENEROUS).await;
    assert_failed(&observation, ErrorClass::AddressForbidden);
    assert_eq!((happened(&observation).as_str(), observation.total_us), ("------", 0));
}
