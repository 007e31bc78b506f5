//! Answers of name servers, byte by byte, so that they can be wrong. Reads of a query only what an answer repeats.

pub(crate) const A: u16 = 1;
pub(crate) const CNAME: u16 = 5;
pub(crate) const TXT: u16 = 16;
pub(crate) const AAAA: u16 = 28;
/// The pseudo record of EDNS.
pub(crate) const OPT: u16 = 41;

const HEADER_BYTES: usize = 12;

/// A pointer to the name in the question.
pub(crate) const ASKED: &[u8] = &[0xc0, 12];

/// Response, recursion desired and available.
const FLAGS: u16 = 0x8180;
/// Truncated.
pub(crate) const TC: u16 = 0x0200;
/// Response.
pub(crate) const QR: u16 = 0x8000;

/// Where the question of `query` ends: behind the first label of no length, its type and its class.
pub(crate) fn question_end(query: &[u8]) -> usize {
    let zero = query[HEADER_BYTES..].iter().position(|byte| *byte == 0).unwrap();
    HEADER_BYTES + zero + 5
}

/// The type that `query` asks for.
pub(crate) fn asked_type(query: &[u8]) -> u16 {
    let end = question_end(query);
    u16::from_be_bytes([query[end - 4], query[end - 3]])
}

/// The first label of the name that `query` asks for.
pub(crate) fn asked_label(query: &[u8]) -> String {
    let length = usize::from(query[HEADER_BYTES]);
    String::from_utf8_lossy(&query[HEADER_BYTES + 1..][..length]).to_ascii_lowercase()
}

/// An answer to `query` with `flags` turned over and some records.
pub(crate) fn answer_with(query: &[u8], flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
    answer_of_count(query, flags, u16::try_from(records.len()).unwrap(), &records.concat())
}

/// An answer that says it has `count` records.
pub(crate) fn answer_of_count(query: &[u8], flags: u16, count: u16, records: &[u8]) -> Vec<u8> {
    let question = &query[HEADER_BYTES..question_end(query)];
    let flags = (FLAGS ^ flags).to_be_bytes();
    [&query[..2], &flags, &[0, 1], &count.to_be_bytes(), &[0; 4], question, records].concat()
}

/// An answer without records and with a response code.
pub(crate) fn refusal(query: &[u8], code: u16) -> Vec<u8> {
    answer_with(query, code, &[])
}

/// A record of the name that was asked for.
pub(crate) fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    record_of(ASKED, kind, data)
}

/// A record of `name`.
pub(crate) fn record_of(name: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    [name, &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 60], &length.to_be_bytes(), data].concat()
}

/// `text` as a name.
pub(crate) fn name(text: &str) -> Vec<u8> {
    let mut name = Vec::new();
    for label in text.split('.') {
        name.push(u8::try_from(label.len()).unwrap());
        name.extend(label.as_bytes());
    }
    name.push(0);
    name
}
