//! Secrets while they are alive: drawn from the system's generator, shown once, kept only as a hash.
//! Never stores anything, and has no type of a secret that can be printed or serialised.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sonde_proto::model::time::Wall;
use uuid::Uuid;
use zeroize::Zeroizing;

/// What every API key begins with, so that scanners recognise one that leaked.
pub const API_KEY_TAG: &str = "sonde_";
/// Characters of an API key that are stored and shown: the tag and 36 of the 256 secret bits.
pub const PREFIX_CHARS: usize = 12;
/// 256 bits in base64url without padding.
const SECRET_CHARS: usize = 43;
/// 36 bits of a SHA-256, in base64url: a mistyped key is told from an unknown one without a look-up.
const CHECKSUM_CHARS: usize = 6;
/// Length of a join token in bytes.
pub const TOKEN_BYTES: usize = 32;
const API_KEY_CHARS: usize = API_KEY_TAG.len() + SECRET_CHARS + CHECKSUM_CHARS;

/// Fills an array from the system's cryptographic generator.
///
/// # Panics
/// When the generator fails, which leaves no safe way to go on.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random number generator works");
    bytes
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// A new id of version 7: ordered by the time it was made, and not to be guessed.
pub fn new_id(at: Wall) -> Uuid {
    let millis = u64::try_from(at.0 / 1_000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random()).into_uuid()
}

/// An API key: `sonde_`, 43 characters of secret, 6 of checksum. Wiped from memory when it is dropped.
pub struct ApiKey(Zeroizing<String>);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(hidden)")
    }
}

impl ApiKey {
    /// Draws a new key.
    pub fn mint() -> Self {
        let secret = Zeroizing::new(random::<32>());
        let mut text = Zeroizing::new(String::with_capacity(API_KEY_CHARS));
        text.push_str(API_KEY_TAG);
        URL_SAFE_NO_PAD.encode_string(secret.as_slice(), &mut text);
        let sum = checksum(&text);
        text.push_str(&sum);
        Self(text)
    }

    /// Takes a key as somebody presents it; `None` when it cannot be one, for example because it was mistyped.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != API_KEY_CHARS || !text.is_ascii() || !text.starts_with(API_KEY_TAG) {
            return None;
        }
        let (body, sum) = text.split_at(API_KEY_CHARS - CHECKSUM_CHARS);
        (checksum(body) == sum).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The key itself, to be shown once to whom it belongs.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The first characters, enough to recognise it.
    pub fn prefix(&self) -> &str {
        self.0.get(..PREFIX_CHARS).unwrap_or_default()
    }

    /// What is stored of it.
    pub fn digest(&self) -> [u8; 32] {
        sha256(self.0.as_bytes())
    }
}

fn checksum(body: &str) -> String {
    let mut sum = URL_SAFE_NO_PAD.encode(sha256(body.as_bytes()));
    sum.truncate(CHECKSUM_CHARS);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_every_typing_error_is_caught() {
        let key = ApiKey::mint();
        let text = key.reveal().to_owned();
        assert_eq!(text.len(), 55);
        assert_eq!(ApiKey::parse(&text).unwrap().digest(), key.digest());
        assert_eq!(key.prefix(), &text[..12]);
        for at in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if wrong[at] == b'x' { b'y' } else { b'x' };
            assert!(ApiKey::parse(std::str::from_utf8(&wrong).unwrap()).is_none(), "position {at}");
        }
        assert!(ApiKey::parse("").is_none());
        assert!(ApiKey::parse(&text[..54]).is_none());
        assert!(ApiKey::parse(&"é".repeat(27)).is_none());
    }

    #[test]
    fn keys_differ_and_their_debug_form_hides_them() {
        let (one, two) = (ApiKey::mint(), ApiKey::mint());
        assert_ne!(one.digest(), two.digest());
        assert_eq!(format!("{one:?}"), "ApiKey(hidden)");
    }

    #[test]
    fn ids_are_of_version_7_and_carry_their_time() {
        let id = new_id(Wall(1_700_000_000_123_456));
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.get_timestamp().unwrap().to_unix(), (1_700_000_000, 123_000_000));
    }
}
