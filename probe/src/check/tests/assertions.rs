//! Assertions against real answers and by hand: what holds, what does not, and what a person is told then.

use http::HeaderMap;
use sonde_proto::model::check::{
    AssertionDraft, Assertions, AssertionsDraft, CheckKind, DnsDraft, IcmpDraft, KindDraft, Severity,
};
use sonde_proto::model::detail::{Detail, Reading, ReadingKey};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::sample::{Outcome, Phases};

use super::servers::http1_server;
use super::{GENEROUS, Order, assert_failed, assert_ok, context, http_kind, run};
use crate::check::judge::{Facts, Miss, first_miss};
use crate::check::trace::Seen;

/// Assertions and their severities.
type Lines<'a> = &'a [(&'a str, &'a str)];

fn assertions(kind: &CheckKind, lines: Lines<'_>, is_inverted: bool) -> Assertions {
    let draft = |(text, severity): &(&str, &str)| AssertionDraft { text: (*text).into(), severity: (*severity).into() };
    Assertions::parse(&AssertionsDraft { all: lines.iter().map(draft).collect(), is_inverted }, kind).unwrap()
}

/// A kind that sees what the line is about.
fn of_line(line: &str) -> CheckKind {
    if line.starts_with("loss") || line.starts_with("packets") || line.starts_with("hops") {
        CheckKind::parse(KindDraft::Icmp(IcmpDraft { host: "a.test".to_owned(), ..IcmpDraft::default() })).unwrap()
    } else if line.starts_with("record") {
        let dns = DnsDraft { name: "a.test".to_owned(), ..DnsDraft::default() };
        CheckKind::parse(KindDraft::Dns(dns)).unwrap()
    } else {
        http_kind("http://a.test/", |_| {})
    }
}

/// An answer with something of everything.
fn missed(line: &str) -> Result<Option<Miss>, ErrorClass> {
    let mut head = HeaderMap::new();
    head.append("content-type", "application/json".parse().unwrap());
    head.append("via", "one".parse().unwrap());
    head.append("via", "two".parse().unwrap());
    head.append("age", "17".parse().unwrap());
    let body = br#"{"status":"up","queue":{"depth":7.5,"names":["a","b"]},"null":null,"bad":"\u0000<b>"}"#;
    let records = vec!["a.test. 60 IN A 192.0.2.1".to_owned(), "a.test. 60 IN TXT \"two words\"".to_owned()];
    let seen = Seen { head: Some(head), body: body.to_vec(), records, ..Seen::default() };
    let mut detail = Detail::default();
    detail.read(ReadingKey::TlsCertSecondsLeft, 14 * 86_400 - 1);
    detail.read(ReadingKey::PacketsSent, 1_000);
    detail.read(ReadingKey::PacketsReceived, 999);
    let facts = Facts {
        status_code: Some(200),
        bytes: Some(body.len() as u64),
        phases: Phases { dns_us: None, ttfb_us: Some(250_000), ..Phases::default() },
        total_us: 300_000,
        detail: &detail,
        seen: &seen,
    };
    let kind = of_line(line);
    first_miss(&assertions(&kind, &[(line, "")], false), &facts, |_| true)
}

#[test]
fn what_is_true_holds() {
    for line in [
        "status == 200",
        "status != 404",
        "total <= 300ms",
        "total < 0.300001s",
        "ttfb >= 250000us",
        "body_bytes > 10",
        "loss_percent <= 1",
        "tls_cert_days_left >= 13",
        "packets_sent == 1000",
        "header Content-Type contains json",
        "header via == two",
        "header via not_contains three",
        "header x-debug absent",
        "header x-debug != on",
        "header age < 18",
        r"body matches ^\{.*up",
        "body not_contains down",
        "body exists",
        "record == 192.0.2.1",
        "record contains IN A",
        "record != 192.0.2.2",
        "json $.status == up",
        r#"json $.status == "up""#,
        "json $.queue.depth > 7",
        "json $.queue.names[*] == b",
        "json $.null == null",
        "json $.nothing absent",
        "json $['queue']['names'][-1] matches ^b$",
    ] {
        assert_eq!(missed(line), Ok(None), "{line}");
    }
}

#[test]
fn what_is_not_true_says_what_was_seen() {
    for (line, shown) in [
        ("status == 404", "status == 404: saw 200"),
        ("total  <  300ms", "total < 300ms: saw 300000us"),
        ("dns < 1s", "dns < 1s: saw nothing"),
        ("loss_percent == 0", "loss_percent == 0: saw 1"),
        ("tls_cert_days_left >= 14", "tls_cert_days_left >= 14: saw 13"),
        ("hops < 3", "hops < 3: saw nothing"),
        ("header VIA == three", r#"header via == three: saw "one" and 1 more"#),
        ("record == 192.0.2.2", r#"record == 192.0.2.2: saw "192.0.2.1" and 1 more"#),
        ("record != 192.0.2.1", r#"record != 192.0.2.1: saw "192.0.2.1" and 1 more"#),
        ("header x-debug exists", "header x-debug exists: saw nothing"),
        ("header age > 17", r#"header age > 17: saw "17""#),
        ("header content-type > 3", r#"header content-type > 3: saw "application/json""#),
        ("json $.bad == x", r#"json $.bad == x: saw "\0<b>""#),
        ("json $.queue.names[*] not_contains b", r#"json $.queue.names[*] not_contains b: saw "a" and 1 more"#),
        ("json $.nothing == 1", "json $.nothing == 1: saw nothing"),
    ] {
        let miss = missed(line).unwrap().unwrap_or_else(|| panic!("{line} held"));
        assert_eq!((miss.text.as_str(), miss.place, miss.severity), (shown, 1, Severity::Failed));
    }
    let long = missed("body contains zzz").unwrap().unwrap().text;
    assert!(long.chars().count() < 200 && !long.contains('\n'), "{long}");
}

#[tokio::test]
async fn an_answer_is_judged_by_the_worst_assertion_that_does_not_hold() {
    let body = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 8\r\n\r\n{\"a\": 1}";
    let addr = http1_server(body.as_bytes()).await;
    let kind = http_kind(&format!("http://{addr}/"), |_| {});
    let cases: [(Lines<'_>, Outcome, Option<ErrorClass>, Option<Reading>); 4] = [
        (&[("json $.a == 1", ""), ("header content-type contains plain", "")], Outcome::Ok, None, None),
        (
            &[("status == 200", "degraded"), ("json $.a > 1", "degraded")],
            Outcome::Degraded,
            None,
            Some(Reading { key: ReadingKey::AssertionDegraded, value: 2 }),
        ),
        (
            &[("json $.a > 1", "degraded"), ("body contains b", ""), ("body contains c", "")],
            Outcome::Failed,
            Some(ErrorClass::AssertionFailed),
            Some(Reading { key: ReadingKey::AssertionFailed, value: 2 }),
        ),
        (&[("body_bytes == 8", ""), ("connect < 30s", "degraded")], Outcome::Ok, None, None),
    ];
    for (lines, outcome, error, reading) in cases {
        let assertions = assertions(&kind, lines, false);
        let order = Order { assertions: &assertions, ..Order::new(&kind, GENEROUS) };
        let observation = run(order, &context()).await;
        assert_eq!((observation.outcome, observation.error), (outcome, error), "{lines:?}");
        let detail = observation.detail.unwrap_or_default();
        for key in [ReadingKey::AssertionFailed, ReadingKey::AssertionDegraded] {
            let expected = reading.filter(|reading| reading.key == key).map(|reading| reading.value);
            assert_eq!(detail.reading(key), expected, "{lines:?}");
        }
    }
}

#[tokio::test]
async fn an_inverted_check_fails_on_success_and_not_on_the_targets_failure() {
    let addr = http1_server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let good = http_kind(&format!("http://{addr}/"), |_| {});
    let inverted = |kind: &CheckKind, lines| assertions(kind, lines, true);
    let order = |kind, assertions| Order { assertions, ..Order::new(kind, GENEROUS) };
    let demanded = inverted(&good, &[]);
    assert_failed(&run(order(&good, &demanded), &context()).await, ErrorClass::UnexpectedSuccess);
    // An assertion that does not hold is a failure of the target.
    let demanded = inverted(&good, &[("status == 503", "")]);
    assert_ok(&run(order(&good, &demanded), &context()).await);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = CheckKind::parse(KindDraft::tcp("127.0.0.1", closed.port())).unwrap();
    let demanded = inverted(&refused, &[]);
    assert_ok(&run(order(&refused, &demanded), &context()).await);
    // What the probe refuses says nothing about the target.
    let forbidden = CheckKind::parse(KindDraft::tcp("169.254.169.254", 80)).unwrap();
    assert_failed(&run(order(&forbidden, &demanded), &context()).await, ErrorClass::AddressForbidden);
}
