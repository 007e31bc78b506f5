//! Each rule with what it accepts and what it says when it refuses.

use std::time::Duration;

mod assertions;
mod dialogues;
mod dns;
mod options;
mod properties;
mod reach;
mod spellings;

use super::{
    AssertionsDraft, CheckDraft, CheckKind, CheckSpec, Host, HttpDraft, HttpMethod, HttpVersion, IcmpDraft, KindDraft,
    ReachDraft,
};
use crate::model::InvalidField;

fn http(url: &str) -> KindDraft {
    KindDraft::http(url)
}

fn draft() -> CheckDraft {
    CheckDraft {
        name: "front page".to_owned(),
        kind: http("https://example.com/"),
        reach: ReachDraft::default(),
        assertions: AssertionsDraft::default(),
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        regions: vec!["eu-west".to_owned(), "us-east".to_owned()],
        degraded_after: Some(Duration::from_millis(800)),
        paused: false,
    }
}

fn refused(change: impl FnOnce(&mut CheckDraft)) -> InvalidField {
    let mut draft = draft();
    change(&mut draft);
    CheckSpec::new(draft.clone()).expect_err(&format!("{draft:?}"))
}

fn kind_refused(kind: KindDraft) -> InvalidField {
    let shown = format!("{kind:?}");
    CheckKind::parse(kind).expect_err(&shown)
}

#[test]
fn a_sensible_draft_is_accepted() {
    let spec = CheckSpec::new(draft()).unwrap();
    assert_eq!(spec.regions.len(), 2);
    assert_eq!(spec.degraded_after, Some(Duration::from_millis(800)));
    assert_eq!(CheckSpec::new(spec.draft()), Ok(spec));
}

#[test]
fn shared_rules_name_their_field() {
    let ms = Duration::from_millis;
    let cases: Vec<(&str, &str, InvalidField)> = vec![
        ("name", "is empty", refused(|d| d.name.clear())),
        ("name", "at most 120", refused(|d| d.name = "ü".repeat(121))),
        ("name", "control character", refused(|d| d.name = "a\nb".to_owned())),
        ("name", "space", refused(|d| d.name = " a".to_owned())),
        ("interval", "within 1s to 86400s", refused(|d| d.interval = ms(999))),
        ("interval", "within 1s to 86400s", refused(|d| d.interval = Duration::from_secs(86_401))),
        ("interval", "milliseconds", refused(|d| d.interval = Duration::from_micros(5_000_001))),
        ("interval", "shorter than the timeout of 2s", refused(|d| d.interval = ms(1_500))),
        ("timeout", "within 10ms to 60s", refused(|d| d.timeout = ms(9))),
        ("timeout", "within 10ms to 60s", refused(|d| d.timeout = ms(60_001))),
        ("timeout", "microseconds", refused(|d| d.timeout = Duration::from_nanos(10_000_001))),
        ("degraded_after", "zero", refused(|d| d.degraded_after = Some(Duration::ZERO))),
        ("degraded_after", "timeout of 2s", refused(|d| d.degraded_after = Some(ms(2_000)))),
        ("regions", "is empty", refused(|d| d.regions.clear())),
        ("regions", "at most 64", refused(|d| d.regions = (0..65).map(|n| format!("r-{n}")).collect())),
        ("regions", "`Mars`", refused(|d| d.regions.push("Mars".to_owned()))),
        ("port", "1 to 65535", refused(|d| d.kind = KindDraft::tcp("a.b", 0))),
    ];
    for (field, part, invalid) in cases {
        assert_eq!(invalid.field, field, "{invalid}");
        assert!(invalid.reason.contains(part), "{invalid}");
    }
}

#[test]
fn limits_themselves_are_accepted() {
    let mut widest = draft();
    widest.name = "ü".repeat(120);
    widest.interval = Duration::from_secs(86_400);
    widest.timeout = Duration::from_secs(60);
    widest.regions = (0..64).map(|n| format!("r-{n}")).collect();
    CheckSpec::new(widest).unwrap();
    let mut narrowest = draft();
    (narrowest.interval, narrowest.timeout) = (Duration::from_secs(1), Duration::from_secs(1));
    narrowest.degraded_after = None;
    CheckSpec::new(narrowest).unwrap();
}

#[test]
fn urls_are_normalised() {
    for (text, expected) in [
        ("https://example.com", "https://example.com/"),
        ("HTTP://EXAMPLE.com:80/a b".replace(' ', "%20").as_str(), "http://example.com/a%20b"),
        ("https://bücher.example/ü?q=ß", "https://xn--bcher-kva.example/%C3%BC?q=%C3%9F"),
        ("https://example.com./x", "https://example.com/x"),
        ("http://[2001:DB8::1]:8080/", "http://[2001:db8::1]:8080/"),
        ("http://127.0.0.1:9000/healthz", "http://127.0.0.1:9000/healthz"),
        ("http://my_service/", "http://my_service/"),
    ] {
        let CheckKind::Http(spec) = CheckKind::parse(http(text)).expect(text) else { panic!("{text}") };
        assert_eq!(spec.url.as_str(), expected);
        assert_eq!(spec.expect_status.iter().map(ToString::to_string).collect::<Vec<_>>(), ["200-399"]);
    }
}

#[test]
fn urls_that_mean_two_things_are_refused() {
    let long = format!("https://example.com/{}", "a".repeat(2_048));
    let encoded = format!("https://example.com/{}", "ü".repeat(700));
    for text in [
        "",
        "example.com",
        "ftp://example.com/",
        "https:example.com",
        "https:///",
        "https://",
        "javascript:alert(1)",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://@example.com/",
        "https://:@example.com/",
        "https://example.com/#part",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:x/",
        "https://example.com\\@evil.example/",
        "https://exa mple.com/",
        " https://example.com/",
        "https://example.com/\n",
        "https://example.com/\t",
        "https://-a.example/",
        "https://a..example/",
        "https://a_b.example/",
        "https://[::1/",
        "https://exa%00mple.com/",
        "https://999.1.1.1/",
        "https://[fe80::1%25eth0]/",
        "https://ex\u{0}ample.com/",
        &long,
        &encoded,
    ] {
        let invalid = kind_refused(http(text));
        assert_eq!(invalid.field, "http.url", "{text}: {invalid}");
        assert!(!invalid.reason.contains("secret"), "{invalid}");
    }
}

#[test]
fn requests_are_verified() {
    let with = |name: &str, value: &str| {
        KindDraft::Http(HttpDraft {
            url: "https://example.com/".to_owned(),
            method: "post".to_owned(),
            version: "2".to_owned(),
            headers: vec![(name.to_owned(), value.to_owned())],
            body: b"{}".to_vec(),
            expect_status: vec!["204".to_owned(), "301-308".to_owned()],
            ..HttpDraft::default()
        })
    };
    let CheckKind::Http(spec) = CheckKind::parse(with("X-Token", " abc\tdef ")).unwrap() else { panic!() };
    assert_eq!((spec.method, spec.version), (HttpMethod::Post, HttpVersion::Http2));
    assert_eq!(spec.headers, [("x-token".to_owned(), "abc\tdef".to_owned())]);
    assert_eq!(spec.expect_status.iter().map(ToString::to_string).collect::<Vec<_>>(), ["204", "301-308"]);
    for (name, value) in [
        ("", "x"),
        ("a b", "x"),
        ("a:", "x"),
        (":path", "x"),
        ("ü", "x"),
        ("x", "a\r\nb: c"),
        ("x", "a\0"),
        ("x", "\u{7f}"),
        ("Content-Length", "3"),
        ("transfer-encoding", "chunked"),
        ("x", &"v".repeat(4_097)),
        (&"n".repeat(129), "x"),
    ] {
        assert_eq!(kind_refused(with(name, value)).field, "http.header", "{name:?}: {value:?}");
    }
}

#[test]
fn each_part_of_a_request_names_itself() {
    let change = |change: fn(&mut HttpDraft)| {
        let mut draft = HttpDraft { url: "https://example.com/".to_owned(), ..HttpDraft::default() };
        change(&mut draft);
        kind_refused(KindDraft::Http(draft)).field
    };
    assert_eq!(change(|p| p.method = "CONNECT".to_owned()), "http.method");
    assert_eq!(change(|p| p.version = "4".to_owned()), "http.version");
    assert_eq!(change(|p| (p.version, p.url) = ("3".to_owned(), "http://example.com/".to_owned())), "http.version");
    assert_eq!(change(|p| p.headers = vec![("x".to_owned(), String::new()); 33]), "http.header");
    assert_eq!(change(|p| p.body = vec![0; 65_537]), "http.body");
    assert_eq!(change(|p| p.expect_status = vec!["200".to_owned(); 17]), "http.expect_status");
    for bad in ["99", "600", "299-200", "2xx", "+200", "200-", "-200", "", "200-299-399", "0200"] {
        let (url, expect_status) = ("https://example.com/".to_owned(), vec![bad.to_owned()]);
        let kind = KindDraft::Http(HttpDraft { url, expect_status, ..HttpDraft::default() });
        assert_eq!(kind_refused(kind).field, "http.expect_status", "{bad}");
    }
}

#[test]
fn hosts_have_one_spelling() {
    let host = |text: &str| CheckKind::parse(KindDraft::tcp(text, 443));
    for (text, expected) in [
        ("Example.COM.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("my_db", "my_db"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[::1]", "::1"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
    ] {
        let CheckKind::Tcp(spec) = host(text).expect(text) else { panic!("{text}") };
        assert_eq!(spec.host.to_string(), expected);
        assert_eq!(
            matches!(spec.host, Host::Addr(_)),
            text.parse::<std::net::IpAddr>().is_ok() || text.starts_with('[')
        );
    }
    let long = format!("{}.example", "a".repeat(64));
    let longer = ["a".repeat(63).as_str(); 4].join(".");
    for text in [
        "",
        ".",
        "a..b",
        "-a.b",
        "a-.b",
        "a b",
        "a/b",
        "http://a",
        "a:80",
        "fe80::1%eth0",
        "0x7f000001",
        "127.1",
        "2130706433",
        "1.2.3.256",
        "[1.2.3.4]",
        "a\0b",
        "user@a",
        &long,
        &longer,
        &"ü".repeat(600),
    ] {
        let invalid = host(text).expect_err(text);
        assert_eq!(invalid.field, "host", "{invalid}");
        assert!(invalid.reason.chars().count() < 200, "{invalid}");
    }
}

#[test]
fn tls_is_verified() {
    let tls = |host: &str, server_name: &str| CheckKind::parse(KindDraft::tls(host, 443, server_name));
    let CheckKind::Tls(spec) = tls("192.0.2.1", "Example.com").unwrap() else { panic!() };
    assert_eq!(spec.server_name.as_deref(), Some("example.com"));
    let CheckKind::Tls(spec) = tls("example.com", "EXAMPLE.com").unwrap() else { panic!() };
    assert_eq!(spec.server_name, None);
    assert_eq!(tls("example.com", "192.0.2.1").unwrap_err().field, "tls.server_name");
    assert_eq!(tls("a_b", "").unwrap_err().field, "host");
}

type Change = fn(&mut IcmpDraft);

#[test]
fn trains_of_echoes_are_verified() {
    let change = |change: Change| {
        let mut draft = IcmpDraft { host: "a.b".to_owned(), ..IcmpDraft::default() };
        change(&mut draft);
        CheckKind::parse(KindDraft::Icmp(draft))
    };
    let CheckKind::Icmp(spec) = change(|_| {}).unwrap() else { panic!() };
    assert_eq!((spec.payload_bytes, spec.count, spec.spacing), (56, 1, Duration::from_millis(100)));
    assert_eq!((spec.hop_limit, spec.loss_max_percent, spec.length()), (None, None, Duration::ZERO));
    let good: [Change; 5] = [
        |it| it.payload_bytes = 16,
        |it| it.payload_bytes = 8_952,
        |it| (it.count, it.spacing) = (100, Duration::from_millis(10)),
        |it| it.hop_limit = 255,
        |it| it.loss_max_percent = Some(0),
    ];
    for (nth, good) in good.into_iter().enumerate() {
        assert!(change(good).is_ok(), "{nth}");
    }
    let bad: [(&str, Change); 10] = [
        ("icmp.payload_bytes", |it| it.payload_bytes = 1),
        ("icmp.payload_bytes", |it| it.payload_bytes = 15),
        ("icmp.payload_bytes", |it| it.payload_bytes = 8_953),
        ("icmp.payload_bytes", |it| it.payload_bytes = u32::MAX),
        ("icmp.count", |it| it.count = 101),
        ("icmp.count", |it| it.count = u32::MAX),
        ("icmp.spacing", |it| it.spacing = Duration::from_millis(9)),
        ("icmp.spacing", |it| it.spacing = Duration::from_micros(10_500)),
        ("icmp.hop_limit", |it| it.hop_limit = 256),
        ("icmp.loss_max_percent", |it| it.loss_max_percent = Some(100)),
    ];
    for (field, bad) in bad {
        assert_eq!(change(bad).unwrap_err().field, field);
    }
}

#[test]
fn a_train_leaves_before_the_run_ends() {
    let train = |count, spacing_ms| {
        let spacing = Duration::from_millis(spacing_ms);
        KindDraft::Icmp(IcmpDraft { host: "a.b".to_owned(), count, spacing, ..IcmpDraft::default() })
    };
    // The timeout of the draft is 2 s.
    for (count, spacing_ms) in [(1, 60_000), (100, 20), (2, 1_999)] {
        CheckSpec::new(CheckDraft { kind: train(count, spacing_ms), ..draft() }).unwrap();
    }
    for (count, spacing_ms) in [(2, 2_000), (100, 21), (3, 86_400_000)] {
        let invalid = refused(|draft| draft.kind = train(count, spacing_ms));
        assert_eq!(invalid.field, "icmp.spacing");
        assert!(invalid.reason.contains("longer timeout"), "{invalid}");
    }
}
