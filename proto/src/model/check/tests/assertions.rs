//! Assertions: what is read, and what nobody can mean.

use super::super::{
    AssertionDraft, Assertions, AssertionsDraft, CheckKind, Compare, IcmpDraft, KindDraft, Number, Severity, Subject,
    Test,
};
use super::http;

fn parsed(kind: &CheckKind, text: &str) -> Result<Assertions, String> {
    let all = vec![AssertionDraft { text: text.to_owned(), severity: String::new() }];
    Assertions::parse(&AssertionsDraft { all, is_inverted: false }, kind).map_err(|invalid| {
        assert_eq!(invalid.field, "assertions");
        invalid.reason
    })
}

fn web() -> CheckKind {
    CheckKind::parse(http("https://example.com/")).unwrap()
}

#[test]
fn what_makes_sense_is_read() {
    let all = parsed(&web(), "  total   <=  1.25s ").unwrap().all;
    assert_eq!((all[0].subject.clone(), all[0].severity), (Subject::Number(Number::Total), Severity::Failed));
    assert_eq!(
        (&all[0].test, all[0].to_string().as_str()),
        (&Test::Number(Compare::AtMost, 1_250_000), "total <= 1.25s")
    );
    let all = parsed(&web(), "header X-Any not_contains \"  two  spaces \"").unwrap().all;
    assert_eq!(all[0].subject, Subject::Header("x-any".to_owned()));
    assert_eq!(all[0].test, Test::Contains { text: "  two  spaces ".to_owned(), is_negated: true });
    let all = parsed(&web(), "tls_cert_days_left > 14").unwrap().all;
    assert_eq!(all[0].test, Test::Number(Compare::Above, 14 * 86_400));
}

#[test]
fn what_makes_none_says_what_would() {
    let tcp = CheckKind::parse(KindDraft::tcp("a.example", 80)).unwrap();
    let icmp = IcmpDraft { host: "a.example".to_owned(), ..IcmpDraft::default() };
    let echo = CheckKind::parse(KindDraft::Icmp(icmp)).unwrap();
    for (kind, text, reason) in [
        (&web(), "", "is empty"),
        (&web(), "latency < 3ms", "begins with nothing that can be asserted"),
        (&web(), "assertion_failed == 1", "begins with nothing that can be asserted"),
        (&web(), "status", "lacks"),
        (&web(), "status 200", "lacks an operator"),
        (&web(), "status ==", "lacks a value"),
        (&web(), "status contains 2", "lacks an operator that suits `status`"),
        (&web(), "status == two", "no whole number"),
        (&web(), "total < 300", "no time such as"),
        (&web(), "total < 0.1us", "no time such as"),
        (&echo, "loss_percent < 101", "0 to 100"),
        (&web(), "tls_cert_days_left > 99999999999999999", "too many"),
        (&web(), "body < 3", "lacks an operator that suits `body`"),
        (&web(), "body matches (", "has a pattern that cannot be"),
        (&web(), "body exists x", "leave it out"),
        (&web(), "body has\u{7}bell", "control character"),
        (&web(), "header a:b == x", "which cannot be"),
        (&web(), "json == 3", "has a path that cannot be"),
        (&web(), "json $..a == 3", "whose cost has no bound"),
        (&web(), "json $[?@.a] exists", "whose cost has no bound"),
        (&web(), "json $[*,*][*,*] exists", "whose cost has no bound"),
        (&web(), "domain_days_left > 3", "never see"),
        (&web(), "loss_percent < 3", "never see"),
        (&tcp, "dns_ttl < 3", "never see"),
        (&tcp, "http_version == 20", "never see"),
        (&web(), "json $.a < up", "which is no number"),
        (&web(), "record == 192.0.2.1", "only dns checks see"),
        (&tcp, "body contains x", "only http and domain checks see, and this one is of kind tcp"),
    ] {
        let refused = parsed(kind, text).unwrap_err();
        assert!(refused.contains(reason), "{text}: {refused}");
    }
    let long = format!("body contains {}", "x".repeat(2_000));
    assert!(parsed(&web(), &long).unwrap_err().contains("longer than 1400"));
}

#[test]
fn an_inverted_check_cannot_be_degraded() {
    let all = vec![AssertionDraft { text: "total < 1s".to_owned(), severity: "degraded".to_owned() }];
    let refused = Assertions::parse(&AssertionsDraft { all, is_inverted: true }, &web()).unwrap_err();
    assert!(refused.to_string().contains("inverted"), "{refused}");
    let many = AssertionsDraft { all: vec![AssertionDraft::default(); 33], is_inverted: false };
    assert!(Assertions::parse(&many, &web()).unwrap_err().to_string().contains("at most 32"));
}
