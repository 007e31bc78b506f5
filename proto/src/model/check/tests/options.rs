//! What an `http` check may add to a plain request.

use rcgen::{CertificateParams, KeyPair};

use super::super::{
    CheckKind, ClientCertificate, ClientCredentials, HttpAuth, HttpDraft, HttpOptions, HttpProxy, KindDraft, Login,
};
use crate::model::secret::Secret;

fn draft(options: HttpOptions) -> KindDraft {
    KindDraft::Http(HttpDraft { url: "https://example.com/".to_owned(), options, ..HttpDraft::default() })
}

fn accepted(options: HttpOptions) -> HttpOptions {
    let kind = CheckKind::parse(draft(options)).unwrap();
    assert_eq!(CheckKind::parse(kind.draft()).as_ref(), Ok(&kind));
    assert_eq!(CheckKind::restore(kind.draft()).as_ref(), Ok(&kind));
    let CheckKind::Http(spec) = kind else { panic!("a draft of http is a check of http") };
    *spec.options.unwrap()
}

/// The field that is refused, and why.
fn refused(change: impl FnOnce(&mut HttpDraft)) -> (String, String) {
    let KindDraft::Http(mut http) = draft(HttpOptions::default()) else { panic!("it is a draft of http") };
    change(&mut http);
    let invalid = CheckKind::parse(KindDraft::Http(http)).unwrap_err();
    assert!(!invalid.reason.contains("canary") && invalid.reason.len() < 300, "{invalid}");
    (invalid.field, invalid.reason)
}

fn login(user: &str, password: &str) -> Login {
    Login { user: user.to_owned(), password: Secret::new(password) }
}

fn client() -> ClientCredentials {
    ClientCredentials {
        token_url: "https://id.example/token".to_owned(),
        client_id: "sonde".to_owned(),
        client_secret: Secret::new("canary"),
        scope: "read write".to_owned(),
    }
}

/// A certificate and its key.
fn identity() -> ClientCertificate {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "a probe");
    let certificate_pem = params.self_signed(&key).unwrap().pem();
    ClientCertificate { certificate_pem, key_pem: Secret::new(key.serialize_pem()) }
}

#[test]
fn a_check_without_options_holds_none() {
    let CheckKind::Http(spec) = CheckKind::parse(draft(HttpOptions::default())).unwrap() else { panic!() };
    assert_eq!(spec.options, None);
}

#[test]
fn options_that_make_sense_are_kept() {
    let all = HttpOptions {
        follow_redirects: 10,
        auth: Some(HttpAuth::Basic(login("ann", "pass: word"))),
        client_certificate: Some(identity()),
        proxy: Some(HttpProxy { url: "http://Proxy.example:3128".to_owned(), login: login("bob", "") }),
        body_bytes_max: 8 * 1024 * 1024,
        ca_pem: identity().certificate_pem,
    };
    let kept = accepted(all);
    assert_eq!(kept.proxy.unwrap().url, "http://proxy.example:3128/");
    let summary = kept.client_certificate.unwrap().summary().unwrap();
    assert!(summary.subject.contains("a probe"), "{summary:?}");
    assert!(summary.not_after.0 > 1_800_000_000_000_000, "{summary:?}");
    accepted(HttpOptions { auth: Some(HttpAuth::Oauth2(client())), ..HttpOptions::default() });
    accepted(HttpOptions { auth: Some(HttpAuth::Bearer { token: Secret::new("a.b~c=") }), ..HttpOptions::default() });
}

#[test]
fn each_option_names_itself() {
    let auth = |auth: HttpAuth| refused(|http| http.options.auth = Some(auth)).0;
    assert_eq!(refused(|http| http.options.follow_redirects = 11).0, "http.follow_redirects");
    assert_eq!(refused(|http| http.options.body_bytes_max = 8 * 1024 * 1024 + 1).0, "http.body_bytes_max");
    for (user, password) in [("", "canary"), ("a:b", "canary"), ("a\n", ""), ("a", "canary\0"), ("a", "(hidden)")] {
        assert_eq!(auth(HttpAuth::Basic(login(user, password))), "http.basic_auth", "{user}");
        let proxy = HttpProxy { url: "http://proxy.example:3128".to_owned(), login: login(user, password) };
        assert_eq!(refused(|http| http.options.proxy = Some(proxy)).0, "http.proxy_auth", "{user}");
    }
    for token in ["", "a b", "ü", "a\r\nb", "(hidden)", &"x".repeat(4_097)] {
        assert_eq!(auth(HttpAuth::Bearer { token: Secret::new(token) }), "http.bearer_token", "{token}");
    }
    for url in ["", "http://id.example/", "https://ann:canary@id.example/", "ftp://a/"] {
        let changed = ClientCredentials { token_url: url.to_owned(), ..client() };
        assert_eq!(auth(HttpAuth::Oauth2(changed)), "http.oauth2_token_url", "{url}");
    }
    let with = |change: fn(&mut ClientCredentials)| {
        let mut changed = client();
        change(&mut changed);
        auth(HttpAuth::Oauth2(changed))
    };
    assert_eq!(with(|it| it.client_id.clear()), "http.oauth2_client_id");
    assert_eq!(with(|it| it.client_id.push('ü')), "http.oauth2_client_id");
    assert_eq!(with(|it| it.client_secret = Secret::default()), "http.oauth2_client_secret");
    assert_eq!(with(|it| it.client_secret = Secret::new("canary\n")), "http.oauth2_client_secret");
    assert_eq!(with(|it| it.scope = "x".repeat(1_025)), "http.oauth2_scope");
    let proxy = HttpProxy { url: "http://proxy.example:3128".to_owned(), ..HttpProxy::default() };
    let over_udp = refused(|http| (http.options.proxy, http.version) = (Some(proxy), "3".to_owned()));
    assert!(over_udp.0 == "http.proxy" && over_udp.1.contains("HTTP/3"), "{over_udp:?}");
    for url in ["", "proxy.example:3128", "https://proxy.example", "socks5://a", "http://a/path", "http://a:canary@b"] {
        let proxy = HttpProxy { url: url.to_owned(), ..HttpProxy::default() };
        assert_eq!(refused(|http| http.options.proxy = Some(proxy)).0, "http.proxy", "{url}");
    }
    let said_twice = refused(|http| {
        http.headers = vec![("Authorization".to_owned(), "canary".to_owned())];
        http.options.auth = Some(HttpAuth::Basic(login("ann", "")));
    });
    assert_eq!(said_twice.0, "http.header");
}

#[test]
fn what_takes_the_way_of_tcp_is_refused_for_http_3() {
    let with = |change: fn(&mut HttpOptions)| {
        refused(|http| {
            http.version = "3".to_owned();
            change(&mut http.options);
        })
        .0
    };
    let proxy = |options: &mut HttpOptions| {
        options.proxy = Some(HttpProxy { url: "http://proxy.example:3128".to_owned(), ..HttpProxy::default() });
    };
    assert_eq!(with(proxy), "http.proxy");
    assert_eq!(with(|options| options.client_certificate = Some(identity())), "http.client_cert");
    assert_eq!(with(|options| options.ca_pem = identity().certificate_pem), "http.ca");
}

#[test]
fn certificates_are_read_and_compared_with_their_key() {
    let refused_identity =
        |identity: ClientCertificate| refused(|http| http.options.client_certificate = Some(identity));
    let good = identity();
    let foreign = ClientCertificate { key_pem: identity().key_pem, ..good.clone() };
    let (field, why) = refused_identity(foreign);
    assert!(field == "http.client_key" && why.contains("not the key"), "{field}: {why}");
    for key in ["", "canary", "(hidden)", good.certificate_pem.as_str()] {
        let broken = ClientCertificate { key_pem: Secret::new(key), ..good.clone() };
        assert_eq!(refused_identity(broken).0, "http.client_key", "{key}");
    }
    let truncated = good.certificate_pem[..200].to_owned();
    let noise = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for certificate in ["", "text", &truncated, noise, good.key_pem.expose(), "a\0", &good.certificate_pem.repeat(17)] {
        let broken = ClientCertificate { certificate_pem: certificate.to_owned(), ..good.clone() };
        assert_eq!(refused_identity(broken).0, "http.client_cert", "{certificate}");
    }
    for ca in ["text", noise, &"x".repeat(32 * 1024 + 1)] {
        assert_eq!(refused(|http| http.options.ca_pem = ca.to_owned()).0, "http.ca", "{ca}");
    }
    let (field, why) = refused(|http| {
        "http://example.com/".clone_into(&mut http.url);
        http.options.client_certificate = Some(good);
    });
    assert!(field == "http.client_cert" && why.contains("TLS"), "{field}: {why}");
}
