//! Splits a `multipart/form-data` body into fields. Never interprets them.

use crate::error::{DbError, code};

/// Fields in one form: the statement and its parameters.
const FIELDS_MAX: usize = 10_001;

/// Reads all fields.
///
/// # Errors
/// One sentence, when the body is no such form, or carries a file (external tables are not part of this server).
pub(crate) fn fields(body: &[u8], boundary: &str) -> Result<Vec<(String, String)>, DbError> {
    let delimiter = format!("--{boundary}");
    let between = format!("\r\n--{boundary}");
    let mut rest =
        body.strip_prefix(delimiter.as_bytes()).ok_or_else(|| bad("The form does not start with its boundary."))?;
    let mut fields = Vec::new();
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        if fields.len() >= FIELDS_MAX {
            return Err(bad("The form has more than 10001 fields."));
        }
        let head_end = find(part, b"\r\n\r\n").ok_or_else(|| bad("A field of the form has no end of its headers."))?;
        let (head, value) = part.split_at(head_end);
        let value = &value[4..];
        let end = find(value, between.as_bytes()).ok_or_else(|| bad("A field of the form has no end."))?;
        let head = std::str::from_utf8(head).map_err(|_| bad("The headers of a field are not UTF-8."))?;
        let text = std::str::from_utf8(&value[..end]).map_err(|_| bad("A field of the form is not UTF-8."))?;
        fields.push((name(head)?, text.to_owned()));
        rest = &value[end + between.len()..];
    }
    if rest.starts_with(b"--") { Ok(fields) } else { Err(bad("The form has no end.")) }
}

fn name(head: &str) -> Result<String, DbError> {
    let disposition = head
        .split("\r\n")
        .find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))
        .ok_or_else(|| bad("A field of the form has no name."))?;
    if disposition.contains("filename=") {
        let sentence =
            "External tables (files in a form) are not part of this server; insert the rows into a table first.";
        return Err(DbError::new(code::NOT_IMPLEMENTED, "NOT_IMPLEMENTED", sentence));
    }
    let name = disposition.split(';').find_map(|item| item.trim().strip_prefix("name="));
    Ok(name.ok_or_else(|| bad("A field of the form has no name."))?.trim_matches('"').to_owned())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn bad(sentence: &str) -> DbError {
    DbError::new(code::BAD_ARGUMENTS, "BAD_ARGUMENTS", sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT {x:String}\r\n\
                        --b\r\nContent-Disposition: form-data; name=\"param_x\"\r\n\r\na\r\nb\r\n--b--\r\n";

    #[test]
    fn fields_keep_their_line_breaks() {
        let fields = fields(FORM.as_bytes(), "b").unwrap();
        let expected = [("query", "SELECT {x:String}"), ("param_x", "a\r\nb")];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn every_cut_form_is_refused() {
        for length in 0..FORM.len() - "\r\n".len() {
            assert!(fields(&FORM.as_bytes()[..length], "b").is_err(), "cut at {length}");
        }
    }

    #[test]
    fn files_are_refused_in_words() {
        let form = "--b\r\nContent-Disposition: form-data; name=\"t\"; filename=\"t.tsv\"\r\n\r\n1\r\n--b--";
        assert_eq!(fields(form.as_bytes(), "b").unwrap_err().code, code::NOT_IMPLEMENTED);
    }
}
