//! What can go wrong with ClickHouse, told apart as far as callers care. Never shows a password or a statement's data.

use thiserror::Error;

/// Longest piece of a server's message that is repeated, in characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// Codes of a server that gave up because the question was too big: time, memory, rows.
const TOO_BIG_CODES: [u32; 5] = [158, 159, 160, 241, 396];
/// Codes of a server that cannot answer now: too many queries, no connection to a replica, shutting down.
const AWAY_CODES: [u32; 5] = [202, 210, 242, 279, 425];

/// Why ClickHouse did not do what it was asked.
#[derive(Debug, Error)]
pub enum ClickHouseError {
    /// It does not answer; the same call may work soon.
    #[error("ClickHouse at {url} does not answer ({detail}); check that it runs and that `clickhouse.url` names it")]
    Unavailable {
        /// Its address.
        url: String,
        /// What the system said.
        detail: String,
    },
    /// The question needs more time or memory than one question may.
    #[error("the question is too big for ClickHouse ({detail}); ask for a shorter window or a single check")]
    TooBig {
        /// What the server said.
        detail: String,
    },
    /// It refused, with its own code.
    #[error("ClickHouse refused with code {code}: {detail}")]
    Refused {
        /// ClickHouse's exception code.
        code: u32,
        /// What it said, shortened.
        detail: String,
    },
    /// The answer makes no sense to this build.
    #[error("ClickHouse sent an answer that this build does not understand: {0}")]
    Protocol(String),
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// A migration that was applied is not the one in this build.
    #[error(
        "ClickHouse migration {version} was applied as another text than this build has; install the build that belongs to this database, or use a new database"
    )]
    MigrationChanged {
        /// Its number.
        version: u32,
    },
}

impl ClickHouseError {
    /// Whether the same call may work in a few seconds.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::TooBig { .. }
            | Self::Refused { .. }
            | Self::Protocol(_)
            | Self::Config(_)
            | Self::MigrationChanged { .. } => false,
        }
    }

    pub(super) fn from_crate(url: &str, source: &::clickhouse::error::Error) -> Self {
        use ::clickhouse::error::Error;
        if let Error::BadResponse(text) = source {
            return Self::from_response(url, text);
        }
        if matches!(source, Error::Network(_) | Error::TimedOut) {
            return Self::Unavailable { url: url.to_owned(), detail: innermost(source) };
        }
        Self::Protocol(shorten(&source.to_string()))
    }

    pub(super) fn from_response(url: &str, text: &str) -> Self {
        let detail = shorten(text);
        match exception_code(text) {
            Some(code) if TOO_BIG_CODES.contains(&code) => Self::TooBig { detail },
            Some(code) if AWAY_CODES.contains(&code) => Self::Unavailable { url: url.to_owned(), detail },
            Some(code) => Self::Refused { code, detail },
            // A proxy or a stranger on that port answered.
            None => Self::Unavailable { url: url.to_owned(), detail },
        }
    }
}

/// Reads the number in `Code: 60. DB::Exception: …`.
pub(super) fn exception_code(text: &str) -> Option<u32> {
    let rest = text.split_once("Code: ")?.1;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// First line, at most [`MESSAGE_CHARS_MAX`] characters, control characters escaped.
pub(super) fn shorten(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().take(MESSAGE_CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// The cause at the end of the chain, which is the one that says what happened.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    shorten(&cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_from_the_text_of_an_exception() {
        assert_eq!(exception_code("Code: 60. DB::Exception: no table"), Some(60));
        assert_eq!(exception_code("Code: 115"), Some(115));
        assert_eq!(exception_code("502 Bad Gateway"), None);
    }

    #[test]
    fn errors_are_told_apart_by_what_the_caller_can_do() {
        let too_big = ClickHouseError::from_response("u", "Code: 159. DB::Exception: Timeout exceeded");
        assert!(matches!(too_big, ClickHouseError::TooBig { .. }) && !too_big.is_retryable());
        let busy = ClickHouseError::from_response("u", "Code: 202. DB::Exception: Too many simultaneous queries");
        assert!(busy.is_retryable());
        let stranger = ClickHouseError::from_response("u", "404 Not Found");
        assert!(stranger.is_retryable());
        let refused = ClickHouseError::from_response("u", "Code: 60. DB::Exception: no\nsecret second line");
        assert!(refused.to_string().contains("code 60") && !refused.to_string().contains("second line"));
    }
}
