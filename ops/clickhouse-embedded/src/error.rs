//! One failed statement as ClickHouse words it: number, text, and the HTTP status that goes with it.
//! Never decides whether something is an error.

use http::StatusCode;

/// Error numbers of ClickHouse that this server raises itself or maps to a status.
pub(crate) mod code {
    /// A setting is not one that the engine knows.
    pub(crate) const UNKNOWN_SETTING: u32 = 115;
    /// A compressed block fails its checksum or does not unpack.
    pub(crate) const CANNOT_DECOMPRESS: u32 = 271;
    /// The request itself is malformed.
    pub(crate) const BAD_ARGUMENTS: u32 = 36;
    /// Part of the interface that is left out here.
    pub(crate) const NOT_IMPLEMENTED: u32 = 48;
    /// The text is not one statement.
    pub(crate) const SYNTAX_ERROR: u32 = 62;
    /// Waiting took longer than allowed.
    pub(crate) const TIMEOUT_EXCEEDED: u32 = 159;
    /// The method or setting allows reading only.
    pub(crate) const READONLY: u32 = 164;
    /// The text of a statement is longer than its limit.
    pub(crate) const QUERY_IS_TOO_LARGE: u32 = 229;
    /// All connections are busy and the queue is full.
    pub(crate) const TOO_MANY_SIMULTANEOUS_QUERIES: u32 = 202;
    /// The peer stopped sending or receiving.
    pub(crate) const SOCKET_TIMEOUT: u32 = 209;
    /// The peer went away in the middle of a body.
    pub(crate) const NETWORK_ERROR: u32 = 210;
    /// A query with this id is still running.
    pub(crate) const QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING: u32 = 216;
    /// Killed by `KILL QUERY`.
    pub(crate) const QUERY_WAS_CANCELLED: u32 = 394;
    /// A limit on rows or bytes was reached.
    pub(crate) const TOO_MANY_ROWS_OR_BYTES: u32 = 396;
    /// A setting that this server pins.
    pub(crate) const SETTING_CONSTRAINT_VIOLATION: u32 = 452;
    /// Not allowed for this caller.
    pub(crate) const ACCESS_DENIED: u32 = 497;
    /// Wrong name or password.
    pub(crate) const AUTHENTICATION_FAILED: u32 = 516;
    /// Something that the engine said without a number.
    pub(crate) const UNKNOWN_EXCEPTION: u32 = 1002;
}

/// A failed statement, in the words that a client expects in the body of the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct DbError {
    /// ClickHouse's error number, sent as `X-ClickHouse-Exception-Code`.
    pub code: u32,
    /// The complete line: `Code: N. DB::Exception: ...`.
    pub text: String,
}

impl DbError {
    /// Words an error of this server's own. `name` is ClickHouse's name for the number.
    #[must_use]
    pub(crate) fn new(code: u32, name: &str, sentence: &str) -> Self {
        let text = format!("Code: {code}. DB::Exception: {sentence} ({name})");
        Self { code, text }
    }

    /// Takes over what the engine said; the number is read from the text.
    #[must_use]
    pub(crate) fn from_engine(text: &str) -> Self {
        let number = text.strip_prefix("Code: ").and_then(|rest| rest.split_once('.'));
        let code = number.and_then(|(digits, _)| digits.parse().ok());
        let Some(code) = code else {
            return Self::new(code::UNKNOWN_EXCEPTION, "UNKNOWN_EXCEPTION", text.trim_end());
        };
        Self { code, text: text.trim_end().to_owned() }
    }

    /// Adds `(version V)` as a server does, unless it is there already.
    #[must_use]
    pub(crate) fn body(&self, version: &str) -> String {
        if self.text.contains("(version ") {
            return format!("{}\n", self.text);
        }
        format!("{} (version {version} (official build))\n", self.text)
    }

    /// The HTTP status that a ClickHouse server answers with for this number.
    #[must_use]
    pub(crate) fn status(&self) -> StatusCode {
        match self.code {
            code::AUTHENTICATION_FAILED | 192 | 193 | code::ACCESS_DENIED => StatusCode::FORBIDDEN,
            code::READONLY | code::SETTING_CONSTRAINT_VIOLATION => StatusCode::FORBIDDEN,
            // Text, numbers, dates, values and types that do not parse or do not fit.
            6 | 26 | 27 | 33 | 38 | 41 | 42 | 43 | 53 | 69 | 70 | 72 | 117 | 130 | 131 | 190 | 320 | 321 | 349
            | 350 | 675 => StatusCode::BAD_REQUEST,
            code::BAD_ARGUMENTS | code::SYNTAX_ERROR | code::CANNOT_DECOMPRESS => StatusCode::BAD_REQUEST,
            // Names that do not exist: columns, functions, identifiers, types, storages, tables, formats, databases.
            10 | 16 | 46 | 47 | 50 | 56 | 60 | 63 | 73 | 81 | 82 | code::UNKNOWN_SETTING => StatusCode::NOT_FOUND,
            code::QUERY_IS_TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
            code::NOT_IMPLEMENTED => StatusCode::NOT_IMPLEMENTED,
            code::TIMEOUT_EXCEEDED => StatusCode::REQUEST_TIMEOUT,
            76 | code::SOCKET_TIMEOUT | code::TOO_MANY_SIMULTANEOUS_QUERIES => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_comes_from_the_text_of_the_engine() {
        let error = DbError::from_engine("Code: 60. DB::Exception: Table default.x does not exist. (UNKNOWN_TABLE)");
        assert_eq!(error.code, 60);
        assert_eq!(error.status(), StatusCode::NOT_FOUND);
        assert!(error.body("26.7.2.1").ends_with("(UNKNOWN_TABLE) (version 26.7.2.1 (official build))\n"));
    }

    #[test]
    fn text_without_a_number_becomes_an_unknown_exception() {
        let error = DbError::from_engine("Insert stream initialization failed");
        assert_eq!(error.code, code::UNKNOWN_EXCEPTION);
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn the_version_is_not_written_twice() {
        let error = DbError::from_engine("Code: 33. DB::Exception: Cannot read all data. (version 26.7.2.1)");
        assert_eq!(error.body("26.7.2.1").matches("version").count(), 1);
    }
}
