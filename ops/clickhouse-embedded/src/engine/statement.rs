//! Collects the text of a statement from URL and body, as far as it must be in memory. Never runs it.

use std::io::Read;

use crate::body::read_error;
use crate::error::{DbError, code};
use crate::request::Request;
use crate::sql::shape::{Shape, shape};

/// Bytes of a body in which the head of an INSERT must end: ClickHouse's own `max_query_size`.
const HEAD_BYTES_MAX: usize = 256 << 10;
/// A text that runs as a whole, rows of VALUES among it; larger inserts use another format and stream.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// The text of a statement and the way that it takes. For rows, the text ends with the first of them.
#[derive(Debug)]
pub(super) struct Statement {
    /// The bytes.
    pub text: Vec<u8>,
    /// The way.
    pub shape: Shape,
}

/// Reads as much of `body` as the statement needs; the rest of an INSERT's rows stays in it.
///
/// # Errors
/// When the body cannot be read or the text is too long.
pub(super) fn collect(request: &Request, body: &mut dyn Read) -> Result<Statement, DbError> {
    let mut text = request.query.trim_end().as_bytes().to_vec();
    if !text.is_empty() {
        text.push(b'\n');
    }
    let found = shape(&text);
    if matches!(found, Shape::InsertRows { .. }) {
        return Ok(Statement { text, shape: found });
    }
    let head_limit = text.len() + HEAD_BYTES_MAX;
    read_up_to(body, &mut text, head_limit)?;
    let found = shape(&text);
    if matches!(found, Shape::InsertRows { .. }) {
        return Ok(Statement { text, shape: found });
    }
    read_up_to(body, &mut text, TEXT_BYTES_MAX)?;
    if text.len() >= TEXT_BYTES_MAX {
        let sentence = "The statement is longer than 16 MiB; send many rows with INSERT ... FORMAT instead of VALUES.";
        return Err(DbError::new(code::QUERY_IS_TOO_LARGE, "QUERY_IS_TOO_LARGE", sentence));
    }
    let shape = shape(&text);
    Ok(Statement { text, shape })
}

fn read_up_to(body: &mut dyn Read, text: &mut Vec<u8>, limit: usize) -> Result<(), DbError> {
    let left = u64::try_from(limit.saturating_sub(text.len())).unwrap_or(u64::MAX);
    body.take(left).read_to_end(text).map(drop).map_err(|error| read_error(&error))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;

    fn statement(query: &str, body: &[u8]) -> (Statement, Vec<u8>) {
        let mut request = Request::read(&Method::POST, "", &HeaderMap::new()).unwrap();
        query.clone_into(&mut request.query);
        let mut rest = body;
        let statement = collect(&request, &mut rest).unwrap();
        (statement, rest.to_vec())
    }

    #[test]
    fn rows_stay_in_the_body_when_the_statement_is_in_the_url() {
        let (statement, rest) = statement("INSERT INTO t FORMAT RowBinary", b"\n\x01");
        assert!(matches!(statement.shape, Shape::InsertRows { rows_start, .. } if rows_start == statement.text.len()));
        assert_eq!(rest, b"\n\x01");
    }

    #[test]
    fn a_statement_in_the_body_takes_the_first_rows_along() {
        let (statement, rest) = statement("", b"INSERT INTO t FORMAT CSV\n1,2\n");
        let Shape::InsertRows { rows_start, .. } = statement.shape else { panic!("{statement:?}") };
        assert_eq!(&statement.text[rows_start..], b"1,2\n");
        assert!(rest.is_empty());
    }

    #[test]
    fn url_and_body_form_one_text() {
        let (statement, _) = statement("SELECT 1,", b"2");
        assert_eq!(statement.text, b"SELECT 1,\n2");
    }

    #[test]
    fn endless_texts_are_refused() {
        let request = Request::read(&Method::POST, "", &HeaderMap::new()).unwrap();
        let error = collect(&request, &mut std::io::repeat(b' ')).unwrap_err();
        assert_eq!(error.code, code::QUERY_IS_TOO_LARGE);
    }
}
