//! What the audit log keeps of a check: everything but what may be a secret. Header values, bodies, what is sent,
//! passwords, tokens and keys are hidden, and a change of them is still told.

use serde_json::Value;
use sonde_proto::convert::check_to_json;
use sonde_proto::model::check::{CheckKind, CheckSpec, HttpOptions};
use sonde_proto::model::secret::Secret;

const HIDDEN: &str = Secret::HIDDEN;

/// Where the options of an `http` check hold secrets.
const SECRETS: [&[&str]; 5] = [
    &["auth", "basic", "password"],
    &["auth", "bearer", "token"],
    &["auth", "oauth2", "client_secret"],
    &["client_certificate", "key_pem"],
    &["proxy", "password"],
];

fn within<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, name| value.get_mut(name))
}

/// A check without its secrets.
pub(super) fn state(spec: &CheckSpec) -> Value {
    let mut json = check_to_json(spec);
    let kind = json.pointer_mut("/kind").and_then(Value::as_object_mut);
    for fields in kind.into_iter().flat_map(serde_json::Map::values_mut).filter_map(Value::as_object_mut) {
        // As JSON says them, by their names without the encoding.
        for (name, shown) in [("body_base64", "body"), ("send_base64", "send")] {
            if fields.remove(name).is_some() {
                fields.insert(shown.to_owned(), HIDDEN.into());
            }
        }
        let headers = fields.get_mut("headers").and_then(Value::as_array_mut);
        for value in headers.into_iter().flatten().filter_map(|header| header.get_mut(1)) {
            *value = HIDDEN.into();
        }
        for place in SECRETS {
            if let Some(secret) = fields.get_mut(place[0]).and_then(|inner| within(inner, &place[1..])) {
                *secret = HIDDEN.into();
            }
        }
    }
    json
}

/// A check before and after a change. When what is hidden changed, the state after says so.
pub(super) fn change(before: &CheckSpec, after: &CheckSpec) -> (Value, Value) {
    let (old, mut new) = (state(before), state(after));
    if secrets(before) != secrets(after)
        && let Some(fields) = new.as_object_mut()
    {
        fields.insert("hidden_changed".to_owned(), Value::Bool(true));
    }
    (old, new)
}

/// The parts that [`state`] hides.
fn secrets(spec: &CheckSpec) -> (Vec<&str>, &[u8], Vec<&Secret>) {
    fn values(headers: &[(String, String)]) -> Vec<&str> {
        headers.iter().map(|(_, value)| value.as_str()).collect()
    }
    match &spec.kind {
        CheckKind::Http(http) => {
            let options = http.options.as_deref();
            (values(&http.headers), &http.body, options.map(HttpOptions::secrets).unwrap_or_default())
        }
        CheckKind::Websocket(websocket) => (values(&websocket.headers), websocket.send.as_bytes(), Vec::new()),
        CheckKind::Tcp(tcp) => (Vec::new(), &tcp.send, Vec::new()),
        CheckKind::Udp(udp) => (Vec::new(), &udp.send, Vec::new()),
        CheckKind::Tls(_)
        | CheckKind::Dns(_)
        | CheckKind::Icmp(_)
        | CheckKind::Traceroute(_)
        | CheckKind::Grpc(_)
        | CheckKind::Quic(_)
        | CheckKind::Domain(_) => (Vec::new(), &[], Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sonde_proto::model::check::{
        AssertionsDraft, CheckDraft, ClientCredentials, HttpAuth, HttpDraft, HttpOptions, HttpProxy, KindDraft, Login,
        ReachDraft,
    };

    use super::*;

    fn spec(kind: KindDraft) -> CheckSpec {
        CheckSpec::new(CheckDraft {
            name: "one".to_owned(),
            kind,
            reach: ReachDraft::default(),
            assertions: AssertionsDraft::default(),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            regions: vec!["eu-west".to_owned()],
            degraded_after: None,
            paused: false,
        })
        .unwrap()
    }

    /// Each kind that holds a secret, and the secret in each place where it may stand.
    fn secretive(secret: &str) -> Vec<CheckSpec> {
        let (host, expect) = ("a.example".to_owned(), "ok".to_owned());
        let headers = vec![("authorization".to_owned(), secret.to_owned())];
        let send = secret.as_bytes().to_vec();
        let starttls = "smtp".to_owned();
        let kinds = [
            KindDraft::Http(HttpDraft {
                url: "https://a.example/".to_owned(),
                method: "POST".to_owned(),
                version: String::new(),
                headers: headers.clone(),
                body: send.clone(),
                expect_status: Vec::new(),
                options: HttpOptions::default(),
            }),
            KindDraft::Tcp { host: host.clone(), port: 25, starttls, send: send.clone(), expect: expect.clone() },
            KindDraft::Udp { host, port: 53, send, expect: expect.clone() },
            KindDraft::Websocket { url: "wss://a.example/".to_owned(), headers, send: secret.to_owned(), expect },
        ];
        kinds.into_iter().chain(optional(secret)).map(spec).collect()
    }

    /// The options of `http` that hold secrets, one each.
    fn optional(secret: &str) -> impl Iterator<Item = KindDraft> {
        let secret = Secret::new(secret);
        let login = Login { user: "ann".to_owned(), password: secret.clone() };
        let client = ClientCredentials {
            token_url: "https://a.example/token".to_owned(),
            client_id: "sonde".to_owned(),
            client_secret: secret.clone(),
            scope: String::new(),
        };
        let proxy = HttpProxy { url: "http://proxy.example:3128".to_owned(), login: login.clone() };
        let auths = [HttpAuth::Basic(login), HttpAuth::Bearer { token: secret }, HttpAuth::Oauth2(client)];
        let options = auths.map(|auth| HttpOptions { auth: Some(auth), ..HttpOptions::default() });
        let options = options.into_iter().chain([HttpOptions { proxy: Some(proxy), ..HttpOptions::default() }]);
        let url = "https://a.example/".to_owned();
        options.map(move |options| KindDraft::Http(HttpDraft { url: url.clone(), options, ..HttpDraft::default() }))
    }

    #[test]
    fn what_is_sent_is_hidden_and_a_change_of_it_is_told() {
        for (before, after) in secretive("canary-1").iter().zip(&secretive("canary-2")) {
            let (old, new) = change(before, after);
            let text = format!("{old}{new}");
            assert!(!text.contains("canary") && !text.contains(&base64_of("canary-1")), "{text}");
            assert!(text.contains(HIDDEN), "{text}");
            assert_eq!((old.get("hidden_changed"), &new["hidden_changed"]), (None, &Value::Bool(true)), "{text}");
            assert_eq!(change(before, before).1.get("hidden_changed"), None);
        }
    }

    /// As JSON spells it, without what may follow it.
    fn base64_of(text: &str) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text).trim_end_matches('=').to_owned()
    }
}
