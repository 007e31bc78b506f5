//! The parts of requests that several services share, from text to values that mean something.
//! Never asks the store: what depends on stored things is judged there.

use std::str::FromStr;
use std::time::Duration;

use sonde_proto::model::InvalidField;
use sonde_proto::model::id::cut;
use uuid::Uuid;

/// Longest name of a key, in characters.
const KEY_NAME_CHARS_MAX: usize = 120;
/// Longest name of a workspace, in bytes.
const SLUG_BYTES_MAX: usize = 64;
/// Longest life of a key that ends: ten years of 365 days, in seconds.
const KEY_TTL_S_MAX: u64 = 315_360_000;

/// An id that stands in field `field`.
pub(super) fn id<T: FromStr<Err = InvalidField>>(field: &str, text: &str) -> Result<T, InvalidField> {
    if text.is_empty() {
        return Err(InvalidField::new(field, "is missing; give the id, a UUID"));
    }
    text.parse().map_err(|error: InvalidField| InvalidField::new(field, error.reason))
}

/// An optional UUID; empty means none.
pub(super) fn request_id(text: &str) -> Result<Option<Uuid>, InvalidField> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = Uuid::parse_str(text);
    parsed.map(Some).map_err(|_| InvalidField::new("request_id", format!("`{}` is not a UUID", cut(text))))
}

/// The name of a workspace: 1 to 64 of a-z, 0-9 and -.
pub(super) fn workspace_name(text: &str) -> Result<&str, InvalidField> {
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if text.is_empty() || text.len() > SLUG_BYTES_MAX || !plain {
        let reason = format!("`{}` is not a workspace name: use 1 to {SLUG_BYTES_MAX} of a-z, 0-9 and -", cut(text));
        return Err(InvalidField::new("name", reason));
    }
    Ok(text)
}

/// The name of a key: 1 to 120 characters on one line.
pub(super) fn key_name(text: &str) -> Result<&str, InvalidField> {
    let sized = (1..=KEY_NAME_CHARS_MAX).contains(&text.chars().count());
    if !sized || text.trim() != text || text.chars().any(char::is_control) {
        let reason = format!(
            "`{}` is not a key name: use 1 to {KEY_NAME_CHARS_MAX} characters without line breaks or outer spaces",
            cut(text)
        );
        return Err(InvalidField::new("name", reason));
    }
    Ok(text)
}

/// How long a key is good; 0 means for ever.
pub(super) fn key_ttl(seconds: u64) -> Result<Option<Duration>, InvalidField> {
    match seconds {
        0 => Ok(None),
        1..=KEY_TTL_S_MAX => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(InvalidField::new(
            "ttl_s",
            format!("{seconds} is too long; use at most {KEY_TTL_S_MAX}, or 0 for no end"),
        )),
    }
}

/// How many rows to return: 0 means `default`.
pub(super) fn limit(given: u32, default: u32, max: u32) -> Result<u32, InvalidField> {
    match given {
        0 => Ok(default),
        given if given <= max => Ok(given),
        given => Err(InvalidField::new("limit", format!("{given} is too many; use 1 to {max}"))),
    }
}

#[cfg(test)]
mod tests {
    use sonde_proto::model::id::CheckId;

    use super::*;

    #[test]
    fn refusals_name_the_field() {
        assert_eq!(id::<CheckId>("id", "x").unwrap_err().field, "id");
        assert_eq!(id::<CheckId>("check_id", "").unwrap_err().field, "check_id");
        assert_eq!(request_id("x").unwrap_err().field, "request_id");
        assert_eq!(key_ttl(u64::MAX).unwrap_err().field, "ttl_s");
        assert_eq!(limit(10_001, 100, 10_000).unwrap_err().field, "limit");
        for bad in ["", "Upper", "under_score", &"a".repeat(65)] {
            assert_eq!(workspace_name(bad).unwrap_err().field, "name", "{bad}");
        }
        for bad in ["", " x", "a\nb", &"a".repeat(121)] {
            assert_eq!(key_name(bad).unwrap_err().field, "name", "{bad}");
        }
    }

    #[test]
    fn what_is_allowed_is_taken_as_it_is() {
        assert_eq!(request_id("").unwrap(), None);
        assert_eq!(key_ttl(0).unwrap(), None);
        assert_eq!(limit(0, 100, 10_000).unwrap(), 100);
        assert_eq!(workspace_name("team-1").unwrap(), "team-1");
        assert_eq!(key_name("Ünser Schlüssel").unwrap(), "Ünser Schlüssel");
    }
}
