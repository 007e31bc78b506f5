//! Kinds that say something and hear something.

use super::super::{CheckKind, KindDraft};
use super::kind_refused;

fn tcp(starttls: &str, send: &[u8], expect: &str) -> KindDraft {
    KindDraft::Tcp {
        host: "mail.example".to_owned(),
        port: 25,
        starttls: starttls.to_owned(),
        send: send.to_vec(),
        expect: expect.to_owned(),
    }
}

fn grpc(is_tls: bool, server_name: &str, service: &str) -> KindDraft {
    KindDraft::Grpc {
        host: "api_1.example".to_owned(),
        port: 50051,
        is_tls,
        server_name: server_name.to_owned(),
        service: service.to_owned(),
    }
}

fn udp(send: Vec<u8>, expect: &str) -> KindDraft {
    KindDraft::Udp { host: "192.0.2.1".to_owned(), port: 123, send, expect: expect.to_owned() }
}

fn websocket(url: &str, header: (&str, &str), send: &str) -> KindDraft {
    KindDraft::Websocket {
        url: url.to_owned(),
        headers: vec![(header.0.to_owned(), header.1.to_owned())],
        send: send.to_owned(),
        expect: String::new(),
    }
}

#[test]
fn what_makes_sense_is_read() {
    let CheckKind::Tcp(spec) = CheckKind::parse(tcp("SMTP", b"EHLO sonde\r\n", "^250 ")).unwrap() else { panic!() };
    assert_eq!((spec.starttls.map(|it| it.name()), spec.send.as_slice()), (Some("smtp"), &b"EHLO sonde\r\n"[..]));
    assert_eq!(spec.expect.unwrap().searcher().unwrap().end_of_match(b"250 ok"), Ok(Some(4)));
    CheckKind::parse(udp(vec![0; 1_400], "")).unwrap();
    let CheckKind::Grpc(spec) = CheckKind::parse(grpc(true, "api.example", "shop.v1.Cart")).unwrap() else { panic!() };
    assert_eq!((spec.server_name.as_deref(), spec.service.as_str()), (Some("api.example"), "shop.v1.Cart"));
    let kind =
        CheckKind::parse(websocket("WSS://Example.com/feed?a=b", ("Sec-WebSocket-Protocol", "chat"), "hi")).unwrap();
    let CheckKind::Websocket(spec) = kind else { panic!() };
    assert_eq!(
        (spec.url.as_str(), spec.headers[0].0.as_str()),
        ("wss://example.com/feed?a=b", "sec-websocket-protocol")
    );
}

#[test]
fn what_makes_none_names_its_field() {
    let cases = [
        ("tcp.starttls", "is not one of smtp", tcp("telnet", b"", "")),
        ("tcp.send", "at most 4096", tcp("", &[0; 4_097], "")),
        ("tcp.expect", "unclosed group", tcp("", b"", "(")),
        ("udp.send", "is empty", udp(Vec::new(), "")),
        ("udp.send", "at most 1400", udp(vec![0; 1_401], "")),
        ("udp.expect", "look-around", udp(vec![0], "(?!a)")),
        (
            "host",
            "has an underscore",
            KindDraft::Tcp {
                host: "mail_1.example".to_owned(),
                port: 25,
                starttls: "smtp".to_owned(),
                send: Vec::new(),
                expect: String::new(),
            },
        ),
        ("grpc.server_name", "over TLS only", grpc(false, "api.example", "")),
        ("host", "set `grpc.server_name`", grpc(true, "", "")),
        ("grpc.service", "without spaces", grpc(false, "", "a b")),
        ("grpc.service", "without spaces", grpc(false, "", &"a".repeat(201))),
        ("websocket.url", "ws:// or wss://", websocket("https://example.com/", ("a", "b"), "")),
        ("websocket.url", "absolute URL such as `wss://", websocket("", ("a", "b"), "")),
        ("websocket.header", "by the probe itself", websocket("ws://a.example/", ("Upgrade", "b"), "")),
        ("websocket.header", "by the probe itself", websocket("ws://a.example/", ("Sec-WebSocket-Key", "b"), "")),
        ("websocket.header", "line break", websocket("ws://a.example/", ("x", "a\r\nb: c"), "")),
        ("websocket.send", "at most 4096", websocket("ws://a.example/", ("a", "b"), &"m".repeat(4_097))),
    ];
    for (field, part, draft) in cases {
        let invalid = kind_refused(draft);
        assert_eq!(invalid.field, field, "{invalid}");
        assert!(invalid.reason.contains(part), "{invalid}");
    }
}
