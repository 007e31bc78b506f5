//! The engine formats each piece of a streamed answer as a document of its own. This says which formats may be joined
//! by appending, and removes the header that `RowBinaryWithNamesAndTypes` repeats. Never reads rows.

/// How pieces of a format become one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joining {
    /// Appending is right: no header, no footer.
    Append,
    /// Appending is right once the names and types are removed from all pieces but the first.
    DropNamesAndTypes,
    /// Headers or footers differ: the answer must be made in one piece.
    Whole,
}

/// The joining for a format name, in any case.
#[must_use]
pub(crate) fn joining(format: &str) -> Joining {
    const APPENDED: [&str; 15] = [
        "Native",
        "TabSeparated",
        "TSV",
        "TabSeparatedRaw",
        "TSVRaw",
        "Raw",
        "CSV",
        "JSONEachRow",
        "JSONLines",
        "NDJSON",
        "JSONCompactEachRow",
        "JSONStringsEachRow",
        "TSKV",
        "LineAsString",
        "RowBinary",
    ];
    if APPENDED.iter().any(|name| name.eq_ignore_ascii_case(format)) {
        return Joining::Append;
    }
    if format.eq_ignore_ascii_case("RowBinaryWithNamesAndTypes") {
        return Joining::DropNamesAndTypes;
    }
    Joining::Whole
}

/// The `Content-Type` that a server sends for a format.
#[must_use]
pub(crate) fn content_type(format: &str) -> &'static str {
    match format.to_ascii_lowercase().as_str() {
        "tabseparated"
        | "tsv"
        | "tabseparatedraw"
        | "tsvraw"
        | "tabseparatedwithnames"
        | "tsvwithnames"
        | "tabseparatedwithnamesandtypes"
        | "tsvwithnamesandtypes" => "text/tab-separated-values; charset=UTF-8",
        "csv" | "csvwithnames" | "csvwithnamesandtypes" => "text/csv; charset=UTF-8; header=absent",
        "json" | "jsoncompact" | "jsonstrings" | "jsoncompactstrings" | "jsoncolumns" | "jsonobjecteachrow" => {
            "application/json; charset=UTF-8"
        }
        "jsoneachrow" | "jsonlines" | "ndjson" | "jsoncompacteachrow" | "jsonstringseachrow" => {
            "application/x-ndjson; charset=UTF-8"
        }
        "xml" => "application/xml; charset=UTF-8",
        "native"
        | "rowbinary"
        | "rowbinarywithnames"
        | "rowbinarywithnamesandtypes"
        | "parquet"
        | "arrow"
        | "arrowstream"
        | "orc"
        | "avro"
        | "rawblob" => "application/octet-stream",
        _ => "text/plain; charset=UTF-8",
    }
}

/// Length of the names and types at the start of a `RowBinaryWithNamesAndTypes` document.
#[must_use]
pub(crate) fn names_and_types_length(document: &[u8]) -> Option<usize> {
    let (columns, mut at) = number(document)?;
    for _ in 0..columns.checked_mul(2)? {
        let (length, digits) = number(document.get(at..)?)?;
        at = at.checked_add(digits)?.checked_add(length)?;
    }
    (at <= document.len()).then_some(at)
}

/// A variable-length number and how many bytes it takes.
fn number(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_usize;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_ends_where_the_rows_start() {
        let document = b"\x02\x01a\x02bc\x05UInt8\x06String\x07rows";
        let length = names_and_types_length(document).unwrap();
        assert_eq!(&document[length..], b"\x07rows");
        for cut in 0..length {
            assert_eq!(names_and_types_length(&document[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn formats_with_headers_are_not_appended() {
        assert_eq!(joining("native"), Joining::Append);
        assert_eq!(joining("RowBinaryWithNamesAndTypes"), Joining::DropNamesAndTypes);
        for format in ["JSON", "CSVWithNames", "TSVWithNames", "RowBinaryWithNames", "Pretty", "Parquet"] {
            assert_eq!(joining(format), Joining::Whole, "{format}");
        }
    }
}
