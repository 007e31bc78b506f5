//! Tokens that the probe fetches by the client credentials grant of RFC 6749, and keeps in memory until shortly before
//! they end. Never on a connection that a run measures: the time that it takes is a reading of its own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context as Hasher, SHA256};
use serde::Deserialize;
use sonde_proto::model::check::{ClientCredentials, HttpMethod, HttpVersion};
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::secret::Secret;
use sonde_proto::model::time::{Mono, micros};
use url::{Url, form_urlencoded};

use super::request::Ask;
use super::{Keep, Passage, ask_once, proxy, sensitive};
use crate::check::Context;
use crate::check::trace::Trace;

/// Most tokens that are kept: 8 MiB of the largest.
const TOKENS_MAX: usize = 1_024;
/// Largest answer of a token endpoint.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest token.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How long a token is good for when its server does not say.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(300);
/// Longest time that a token is kept.
const LIFETIME_MAX: Duration = Duration::from_secs(86_400);
/// How long before its end a token is fetched anew: no run of 60 s may see it end.
const MARGIN: Duration = Duration::from_secs(70);

/// Whom a token is for, and the way to where it comes from; hashed, since a map shows its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key([u8; 32]);

impl Key {
    pub(super) fn of(client: &ClientCredentials, passage: &Passage<'_>) -> Self {
        let proxy = passage.proxy.map(|proxy| proxy.url.as_str()).unwrap_or_default();
        let secret = client.client_secret.expose();
        let mut hasher = Hasher::new(&SHA256);
        for part in [&client.token_url, &client.client_id, secret, &client.scope, proxy, passage.ca_pem] {
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let mut key = [0; 32];
        key.copy_from_slice(hasher.finish().as_ref());
        Self(key)
    }
}

/// A token, and until when it is used.
#[derive(Debug)]
struct Token {
    text: Secret,
    until: Mono,
}

type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// The tokens of a probe. Whoever needs one that is being fetched waits for it, within its own timeout.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<BTreeMap<Key, Slot>>);

impl Tokens {
    fn slot(&self, key: Key) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= TOKENS_MAX && !slots.contains_key(&key) {
            // Those that nobody uses right now can be fetched again.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        if slots.len() >= TOKENS_MAX && !slots.contains_key(&key) {
            return Slot::default();
        }
        Arc::clone(slots.entry(key).or_default())
    }

    /// Forgets a token that the target did not take: it may have been revoked.
    pub(super) fn forget(&self, key: Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
}

/// What a token endpoint answers.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    #[serde(default)]
    expires_in: Option<f64>,
}

/// A token for `client`, kept or fetched over `passage`.
///
/// # Errors
/// [`ErrorClass::TokenRefused`], [`ErrorClass::TokenUnavailable`], and [`ErrorClass::AddressForbidden`] when the token
/// URL leads to an address that may not be dialled.
pub(super) async fn token(
    client: &ClientCredentials,
    passage: &Passage<'_>,
    context: &Context,
    trace: &mut Trace,
) -> Result<Secret, ErrorClass> {
    let slot = context.tokens.slot(Key::of(client, passage));
    let Some(mut held) = trace.within(slot.lock()).await else { return Err(ErrorClass::TokenUnavailable) };
    let from = trace.now();
    if let Some(token) = held.as_ref().filter(|token| token.until > from) {
        return Ok(token.text.clone());
    }
    *held = None;
    let (text, lifetime) = fetch(client, passage, context, trace).await?;
    let took = micros(trace.now().since(from));
    trace.read(ReadingKey::HttpTokenTime, i64::try_from(took).unwrap_or(i64::MAX));
    *held = Some(Token { text: text.clone(), until: from + lifetime.saturating_sub(MARGIN) });
    Ok(text)
}

async fn fetch(
    client: &ClientCredentials,
    passage: &Passage<'_>,
    context: &Context,
    trace: &Trace,
) -> Result<(Secret, Duration), ErrorClass> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let mut form = "grant_type=client_credentials".to_owned();
    if !client.scope.is_empty() {
        form.push_str("&scope=");
        form.push_str(&encoded(&client.scope));
    }
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    // RFC 6749, section 2.3.1: both are encoded as in a form before they are joined.
    let login = proxy::basic(&encoded(&client.client_id), &encoded(client.client_secret.expose()));
    let ask = Ask {
        url: Cow::Owned(Url::parse(&client.token_url).map_err(|_| ErrorClass::ProbeError)?),
        method: HttpMethod::Post,
        headers: Cow::Owned(vec![
            header("content-type", "application/x-www-form-urlencoded"),
            header("accept", "application/json"),
        ]),
        body: form.as_bytes(),
        authorization: Some(sensitive(&login)?),
    };
    let keep = Keep { bytes_max: ANSWER_BYTES_MAX as u64, body_bytes: ANSWER_BYTES_MAX, ..Keep::default() };
    let mut aside = trace.aside();
    let asked = Box::pin(ask_once(&ask, HttpVersion::Negotiated, passage, keep, context, &mut aside)).await;
    match asked {
        Ok(progress) => match progress.status {
            Some(200) => read(&aside.seen.body),
            Some(400..=403) => Err(ErrorClass::TokenRefused),
            Some(_) | None => Err(ErrorClass::TokenUnavailable),
        },
        Err(class @ (ErrorClass::AddressForbidden | ErrorClass::ProbeError)) => Err(class),
        Err(_) => Err(ErrorClass::TokenUnavailable),
    }
}

fn read(body: &[u8]) -> Result<(Secret, Duration), ErrorClass> {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return Err(ErrorClass::TokenUnavailable) };
    let text = Secret::new(answer.access_token);
    let is_token =
        (1..=TOKEN_BYTES_MAX).contains(&text.expose().len()) && text.expose().bytes().all(|b| b.is_ascii_graphic());
    if !is_token || !answer.token_type.eq_ignore_ascii_case("bearer") {
        return Err(ErrorClass::TokenUnavailable);
    }
    let lifetime = answer.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok((text, lifetime.unwrap_or(LIFETIME_DEFAULT).min(LIFETIME_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_token_is_one() {
        let of = |text: &str| read(text.as_bytes());
        let (token, lifetime) =
            of(r#"{"access_token":"a.b","token_type":"Bearer","expires_in":3600,"x":[1]}"#).unwrap();
        assert_eq!((token.expose(), lifetime), ("a.b", Duration::from_secs(3_600)));
        let (_, lifetime) = of(r#"{"access_token":"a","token_type":"bearer","expires_in":1e300}"#).unwrap();
        assert_eq!(lifetime, LIFETIME_DEFAULT);
        for broken in [
            "",
            "[]",
            r#"{"access_token":"a"}"#,
            r#"{"access_token":"a","token_type":"mac"}"#,
            r#"{"access_token":"","token_type":"bearer"}"#,
            r#"{"access_token":"a\r\nb","token_type":"bearer"}"#,
            &format!(r#"{{"access_token":"{}","token_type":"bearer"}}"#, "x".repeat(9_000)),
        ] {
            assert_eq!(of(broken).err(), Some(ErrorClass::TokenUnavailable), "{broken:.60}");
        }
    }

    #[test]
    fn the_tokens_are_bounded_and_those_in_use_stay() {
        let tokens = Tokens::default();
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            Key(key)
        };
        let used = tokens.slot(key(0));
        for number in 1..5_000 {
            tokens.slot(key(number));
        }
        assert!(Arc::ptr_eq(&used, &tokens.slot(key(0))));
        assert!(tokens.0.lock().unwrap().len() <= TOKENS_MAX);
        tokens.forget(key(0));
        assert!(!Arc::ptr_eq(&used, &tokens.slot(key(0))));
    }
}
