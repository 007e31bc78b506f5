//! What holds for every draft, hostile ones included.

use std::time::Duration;

use proptest::prelude::*;

use super::super::{
    AssertionDraft, Assertions, AssertionsDraft, CheckDraft, CheckKind, CheckSpec, ClientCertificate,
    ClientCredentials, DnsDraft, DomainDraft, HttpAuth, HttpDraft, HttpOptions, HttpProxy, IcmpDraft, KindDraft, Login,
    QuicDraft, Reach, ReachDraft, TracerouteDraft,
};
use super::http;
use crate::model::secret::Secret;

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-zA-Z0-9._:/@%?#\\[\\]-]{0,60}",
        "https?://[a-zA-Z0-9ü._:@%-]{0,40}(/[ -~]{0,40})?",
        "[a-z0-9-]{1,20}(\\.[a-zß0-9-]{1,20}){0,4}\\.?",
        "([0-9]{1,3}\\.){3}[0-9]{1,3}(:[0-9]{1,6})?",
        "\\[?[0-9a-f:]{2,20}\\]?(:[0-9]{1,5})?",
    ]
}

fn any_kind() -> BoxedStrategy<KindDraft> {
    let headers = prop::collection::vec((any_text(), any_text()), 0..4);
    let statuses = prop::collection::vec(prop_oneof![any::<String>(), "[1-6][0-9]{2}(-[1-6][0-9]{2})?"], 0..4);
    let body = prop::collection::vec(any::<u8>(), 0..64);
    prop_oneof![
        (any_text(), "(GET|put|X|)", "(1.1|2|3|)", headers, body, statuses, any_options())
            .prop_map(|(url, method, version, headers, body, expect_status, options)| {
                KindDraft::Http(HttpDraft { url, method, version, headers, body, expect_status, options })
            })
            .boxed(),
        (any_text(), any::<u16>()).prop_map(|(host, port)| KindDraft::tcp(host, port)),
        (any_text(), any::<u16>(), any_text()).prop_map(|(host, port, server_name)| KindDraft::tls(
            host,
            port,
            server_name
        )),
        any_dns(),
        any_train().boxed(),
        (any_text(), "(udp|icmp|tcp|)", 0_u32..70, 0_u32..8)
            .prop_map(|(host, method, hops_max, packets_per_hop)| {
                KindDraft::Traceroute(TracerouteDraft { host, method, hops_max, packets_per_hop })
            })
            .boxed(),
        (any_text(), any_text()).prop_map(|(name, server)| KindDraft::Domain(DomainDraft { name, server })).boxed(),
        any_dialogue().boxed(),
    ]
    .boxed()
}

/// Boxed: a draft of many options does not fit the stack of a test.
fn any_options() -> BoxedStrategy<HttpOptions> {
    let secret = || any_text().prop_map(Secret::new);
    let login = || (any_text(), secret()).prop_map(|(user, password)| Login { user, password }).boxed();
    let client =
        (any_text(), any_text(), secret(), any_text()).prop_map(|(token_url, client_id, client_secret, scope)| {
            HttpAuth::Oauth2(ClientCredentials { token_url, client_id, client_secret, scope })
        });
    let auth =
        prop_oneof![login().prop_map(HttpAuth::Basic), secret().prop_map(|token| HttpAuth::Bearer { token }), client]
            .boxed();
    let certificate =
        (any_text(), secret()).prop_map(|(certificate_pem, key_pem)| ClientCertificate { certificate_pem, key_pem });
    let proxy = ("(http://)?[a-z.:0-9]{1,20}/?", login()).prop_map(|(url, login)| HttpProxy { url, login });
    let rare = |strategy| prop::option::weighted(0.05, strategy).boxed();
    let parts =
        (0_u32..12, prop::option::weighted(0.3, auth), rare(certificate), prop::option::of(proxy), 0_u64..9_000_000);
    let options = parts.prop_map(|(follow_redirects, auth, client_certificate, proxy, body_bytes_max)| HttpOptions {
        follow_redirects,
        auth,
        client_certificate,
        proxy,
        body_bytes_max,
        ca_pem: String::new(),
    });
    prop_oneof![Just(HttpOptions::default()), options].boxed()
}

fn any_train() -> impl Strategy<Value = KindDraft> {
    let flags = (any::<bool>(), 0_u32..300, prop::option::of(0_u32..110));
    (any_text(), 0_u32..9_500, 0_u32..120, 0_u64..300, flags).prop_map(
        |(host, payload_bytes, count, spacing_ms, (dont_fragment, hop_limit, loss_max_percent))| {
            let spacing = Duration::from_millis(spacing_ms);
            KindDraft::Icmp(IcmpDraft {
                host,
                payload_bytes,
                count,
                spacing,
                dont_fragment,
                hop_limit,
                loss_max_percent,
            })
        },
    )
}

fn any_dns() -> impl Strategy<Value = KindDraft> {
    let server = || prop_oneof![any_text(), "(https://)?[a-z.]{1,9}(:[0-9]{1,5})?(/[a-z]{0,5})?"];
    let anchor =
        prop_oneof![any_text(), "(\\.|[a-z]{1,3}\\.) (IN )?DNSKEY (257|256|385|x) [34] (8|13|5) [A-Za-z0-9+/=]{0,12}"];
    let words = (
        "(A|mx|CAA|TYPE[0-9]{1,6}|)",
        "(udp|DoT|doh|doq|tcp|x|)",
        "(off|require|validate|x|)",
        "(|NXDOMAIN|[0-9]{1,5})",
    );
    let texts = (any_text(), server(), prop_oneof![Just(String::new()), any_text()]);
    (texts, words, any::<bool>(), prop::collection::vec(anchor, 0..3)).prop_map(
        |((name, server, server_name), (record, transport, dnssec, expect_rcode), no_recursion, trust_anchors)| {
            KindDraft::Dns(DnsDraft {
                name,
                record,
                server,
                transport,
                server_name,
                no_recursion,
                dnssec,
                trust_anchors,
                expect_rcode,
            })
        },
    )
}

/// Kinds that say something and hear something.
fn any_dialogue() -> impl Strategy<Value = KindDraft> {
    let target = || (any_text(), any::<u16>().prop_map(u32::from));
    let words = || (prop::collection::vec(any::<u8>(), 0..64), any_pattern());
    let starttls = || "(smtp|IMAP|ldap|telnet|)";
    prop_oneof![
        (target(), starttls(), words()).prop_map(|((host, port), starttls, (send, expect))| {
            KindDraft::Tcp { host, port, starttls, send, expect }
        }),
        (target(), any_text(), starttls())
            .prop_map(|((host, port), server_name, starttls)| { KindDraft::Tls { host, port, server_name, starttls } }),
        (target(), words()).prop_map(|((host, port), (send, expect))| KindDraft::Udp { host, port, send, expect }),
        (target(), any::<bool>(), any_text(), any_text()).prop_map(|((host, port), is_tls, server_name, service)| {
            KindDraft::Grpc { host, port, is_tls, server_name, service }
        }),
        (
            "(ws|wss|http|)(://[a-z.]{1,20}/?)?",
            prop::collection::vec((any_text(), any_text()), 0..3),
            any_text(),
            any_pattern()
        )
            .prop_map(|(url, headers, send, expect)| KindDraft::Websocket { url, headers, send, expect }),
        (target(), prop::collection::vec("(h3|doq|[ -~]{0,4}|ü)", 0..10), any_text(), any::<bool>()).prop_map(
            |((host, port), alpn, server_name, zero_rtt)| {
                KindDraft::Quic(QuicDraft { host, port, alpn, server_name, zero_rtt })
            }
        ),
    ]
}

fn any_pattern() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a-z.*+?()\\[\\]{}0-9,|^$-]{0,30}", r"(\\w\{[0-9]{1,4}\}){0,3}"]
}

fn any_assertions() -> impl Strategy<Value = AssertionsDraft> {
    let word = "(status|total|header|body|json|record|dns_ttl|loss_percent|[a-z_.$\\[\\]'0-9-]{0,12}|==|!=|<|>=|exists|absent|matches|not_contains|\"x\"|5ms|1\\.5s|-3|[^ ]{0,6})";
    let line = prop_oneof![any_text(), prop::collection::vec(word, 1..5).prop_map(|words| words.join(" "))];
    let one = (line, "(failed|degraded|)").prop_map(|(text, severity)| AssertionDraft { text, severity });
    (prop::collection::vec(one, 0..3), any::<bool>())
        .prop_map(|(all, is_inverted)| AssertionsDraft { all, is_inverted })
}

fn any_reach() -> impl Strategy<Value = ReachDraft> {
    (("(4|6|any|5|)", "(first|all|ALL|)"), (any_text(), any_text())).prop_map(
        |((family, addresses), (resolver, resolve_to))| ReachDraft { family, addresses, resolver, resolve_to },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn hostile_kinds_never_panic_and_accepted_ones_read_back_equal(kind in any_kind()) {
        if let Ok(parsed) = CheckKind::parse(kind) {
            prop_assert_eq!(CheckKind::parse(parsed.draft()), Ok(parsed));
        }
    }

    #[test]
    fn hostile_ways_never_panic_and_accepted_ones_read_back_equal(kind in any_kind(), draft in any_reach()) {
        if let Ok(kind) = CheckKind::parse(kind)
            && let Ok(reach) = Reach::parse(&draft, &kind)
        {
            prop_assert_eq!(Reach::parse(&reach.draft(), &kind), Ok(reach));
        }
    }

    #[test]
    fn hostile_assertions_never_panic_and_accepted_ones_read_back_equal(kind in any_kind(), draft in any_assertions()) {
        if let Ok(kind) = CheckKind::parse(kind)
            && let Ok(assertions) = Assertions::parse(&draft, &kind)
        {
            prop_assert_eq!(Assertions::parse(&assertions.draft(), &kind), Ok(assertions.clone()));
            prop_assert_eq!(Assertions::restore(&assertions.draft(), &kind), Ok(assertions));
        }
    }

    #[test]
    fn hostile_drafts_never_panic_and_accepted_ones_read_back_equal(
        name in any_text(), interval in 0_u64..100_000_000, timeout in any::<u32>(), after in any::<Option<u32>>(),
        regions in prop::collection::vec("[a-z-]{0,8}", 0..4), paused: bool, reach in any_reach(), assertions in any_assertions(),
    ) {
        let draft = CheckDraft {
            name, kind: http("https://example.com/"), reach, assertions, regions, paused,
            interval: Duration::from_millis(interval), timeout: Duration::from_micros(timeout.into()),
            degraded_after: after.map(|after| Duration::from_micros(after.into())),
        };
        if let Ok(spec) = CheckSpec::new(draft) {
            prop_assert_eq!(CheckSpec::new(spec.draft()), Ok(spec));
        }
    }
}
