//! The options of `http` on the wire, and what people may read and change of them.

use crate::convert::{check_definition, check_spec, check_spec_over, holds_hidden};
use crate::model::check::{
    CheckDraft, CheckKind, CheckSpec, ClientCredentials, HttpAuth, HttpDraft, HttpOptions, HttpProxy, KindDraft, Login,
    ReachDraft,
};
use crate::model::secret::Secret;
use crate::wire;
use crate::wire::check_kind::Kind;
use crate::wire::http_auth::Scheme;

/// Options that differ by `number`.
pub(super) fn sample(number: u32) -> HttpOptions {
    let secret = || Secret::new(format!("canary-{number}"));
    let login = Login { user: "ann".to_owned(), password: secret() };
    let client = ClientCredentials {
        token_url: "https://id.example/token".to_owned(),
        client_id: "sonde".to_owned(),
        client_secret: secret(),
        scope: "read".to_owned(),
    };
    let auth = match number % 4 {
        0 => return HttpOptions::default(),
        1 => HttpAuth::Basic(login.clone()),
        2 => HttpAuth::Bearer { token: secret() },
        _ => HttpAuth::Oauth2(client),
    };
    HttpOptions {
        follow_redirects: number % 11,
        auth: Some(auth),
        proxy: number.is_multiple_of(3).then(|| HttpProxy { url: "http://proxy.example:3128/".to_owned(), login }),
        body_bytes_max: number.into(),
        ..HttpOptions::default()
    }
}

fn spec(options: HttpOptions) -> CheckSpec {
    let url = "https://a.example/".to_owned();
    let second = std::time::Duration::from_secs(1);
    CheckSpec::new(CheckDraft {
        name: "one".to_owned(),
        kind: KindDraft::Http(HttpDraft { url, options, ..HttpDraft::default() }),
        reach: ReachDraft::default(),
        assertions: crate::model::check::AssertionsDraft::default(),
        interval: second,
        timeout: second,
        regions: vec!["eu".to_owned()],
        degraded_after: None,
        paused: false,
    })
    .unwrap()
}

fn http(definition: &mut wire::CheckDefinition) -> &mut wire::HttpCheck {
    match definition.kind.as_mut().and_then(|kind| kind.kind.as_mut()) {
        Some(Kind::Http(http)) => http,
        other => panic!("{other:?}"),
    }
}

/// What a change of a check that was read makes of it.
fn changed(number: u32, change: impl FnOnce(&mut wire::HttpCheck)) -> Result<HttpOptions, String> {
    let stored = spec(sample(number));
    let mut definition = check_definition(&stored);
    assert!(holds_hidden(&definition));
    change(http(&mut definition));
    let changed = check_spec_over(definition, &stored).map_err(|invalid| invalid.field)?;
    let CheckKind::Http(spec) = changed.kind else { panic!("it stays a check of http") };
    Ok(*spec.options.unwrap())
}

#[test]
fn a_secret_stays_while_it_goes_where_it_went() {
    for number in [1, 2, 3, 9] {
        let kept = changed(number, |http| {
            http.url = "https://a.example/other?path".to_owned();
            http.follow_redirects = 1;
        });
        assert_eq!(kept, Ok(HttpOptions { follow_redirects: 1, ..sample(number) }));
    }
    let replaced = changed(1, |http| {
        let login = wire::Login { user: "bob".to_owned(), password: "new".to_owned() };
        http.auth = Some(wire::HttpAuth { scheme: Some(Scheme::Basic(login)) });
        http.url = "https://b.example/".to_owned();
    });
    let login = Login { user: "bob".to_owned(), password: Secret::new("new") };
    assert_eq!(replaced.unwrap().auth, Some(HttpAuth::Basic(login)));
}

#[test]
fn a_secret_is_not_kept_for_another_place() {
    let elsewhere = |http: &mut wire::HttpCheck| http.url = "https://evil.example/".to_owned();
    for (number, field) in [(1, "http.basic_auth"), (2, "http.bearer_token"), (3, "http.oauth2_client_secret")] {
        assert_eq!(changed(number, elsewhere), Err(field.to_owned()));
        assert_eq!(changed(number, |http| http.url = "http://a.example/".to_owned()), Err(field.to_owned()));
        let proxy = wire::HttpProxy { url: "http://evil.example:80/".to_owned(), login: None };
        assert_eq!(changed(number, |http| http.proxy = Some(proxy)), Err(field.to_owned()));
    }
    let other_token_url = changed(3, |http| {
        let Some(Scheme::Oauth2(client)) = http.auth.as_mut().and_then(|auth| auth.scheme.as_mut()) else { panic!() };
        client.token_url = "https://evil.example/".to_owned();
    });
    assert_eq!(other_token_url, Err("http.oauth2_client_secret".to_owned()));
    let other_proxy = changed(9, |http| {
        http.auth = None;
        http.proxy.as_mut().unwrap().url = "http://evil.example:80/".to_owned();
    });
    assert_eq!(other_proxy, Err("http.proxy_auth".to_owned()));
}

#[test]
fn a_new_check_cannot_stand_for_a_secret() {
    let definition = check_definition(&spec(sample(1)));
    assert_eq!(check_spec(definition, false).unwrap_err().field, "http.basic_auth");
}
