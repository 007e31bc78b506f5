//! What is kept of an answer: numbers for the sample, and the records themselves for whoever wants to look at them. Never
//! judges them.

use std::fmt::Write as _;

use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record, RecordType as WireType};
use sonde_proto::model::check::RecordType;
use sonde_proto::model::detail::ReadingKey;

use crate::check::trace::Trace;

/// Records that are kept, bytes of each, and bytes of all.
const RECORDS_MAX: usize = 64;
const RECORD_BYTES_MAX: usize = 4 * 1024;
const BYTES_MAX: usize = 64 * 1024;

/// Keeps what is known of the answer to a question for `asked`.
pub(super) fn keep(answer: &Message, asked: WireType, trace: &mut Trace) {
    let wants_signatures = matches!(asked, WireType::RRSIG | WireType::ANY);
    let answers = || answer.answers.iter().filter(|record| wants_signatures || !record.record_type().is_rrsig());
    let authorities = answer.authorities.iter().map(Record::record_type);
    let count = |records: usize| i64::try_from(records).unwrap_or(i64::MAX);
    let metadata = &answer.metadata;
    trace.read(ReadingKey::DnsRcode, i64::from(u16::from(metadata.response_code)));
    trace.read(ReadingKey::DnsAnswers, count(answers().count()));
    if let Some(ttl) = answers().map(|record| record.ttl).min() {
        trace.read(ReadingKey::DnsTtl, i64::from(ttl));
    }
    let of_zone = authorities.filter(|kind| matches!(kind, WireType::NS | WireType::SOA));
    trace.read(ReadingKey::DnsAuthority, count(of_zone.count()));
    trace.read(ReadingKey::DnsAuthoritative, i64::from(metadata.authoritative));
    trace.read(ReadingKey::DnsAuthenticData, i64::from(metadata.authentic_data));
    if trace.wants.records {
        let mut room = BYTES_MAX;
        trace.seen.records = answers()
            .take(RECORDS_MAX)
            .map(presented)
            .take_while(|text| {
                let fits = text.len() <= room;
                room = room.saturating_sub(text.len());
                fits
            })
            .collect();
    }
}

/// A record as a zone file has it: owner, time to live, class, type and value, cut to [`RECORD_BYTES_MAX`].
fn presented(record: &Record) -> String {
    let kind = RecordType::from(u16::from(record.record_type()));
    let mut text = format!("{} {} {} {kind} ", record.name.to_ascii(), record.ttl, record.dns_class);
    value(&record.data, &mut text);
    text.truncate(text.floor_char_boundary(RECORD_BYTES_MAX));
    text
}

fn value(data: &RData, text: &mut String) {
    let written = if let RData::TXT(strings) = data {
        strings.txt_data.iter().enumerate().try_for_each(|(index, string)| {
            text.push_str(if index > 0 { " " } else { "" });
            quoted(string, text)
        })
    } else if let RData::Unknown { rdata, .. } = data {
        unknown(&rdata.anything, text)
    } else {
        write!(text, "{data}")
    };
    if written.is_err() {
        // A type that stands in messages only, which no answer holds.
        text.push('?');
    }
}

/// Text in quotes (RFC 1035, 5.1): what cannot be printed is a backslash and three digits.
fn quoted(bytes: &[u8], text: &mut String) -> std::fmt::Result {
    text.push('"');
    for byte in bytes {
        match byte {
            b'"' | b'\\' => write!(text, "\\{}", char::from(*byte))?,
            b' '..=b'~' => text.push(char::from(*byte)),
            byte => write!(text, "\\{byte:03}")?,
        }
    }
    text.push('"');
    Ok(())
}

/// The value of a type that has no spelling of its own (RFC 3597).
fn unknown(bytes: &[u8], text: &mut String) -> std::fmt::Result {
    write!(text, "\\# {} ", bytes.len())?;
    bytes.iter().try_for_each(|byte| write!(text, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hickory_proto::op::{MessageType, OpCode, ResponseCode};
    use hickory_proto::rr::rdata::{A, MX, NULL, TXT};
    use hickory_proto::rr::{Name, RData};

    use super::*;
    use crate::check::trace::Wants;
    use crate::clock::Clock;

    fn record(data: RData) -> Record {
        Record::from_rdata("a.test.".parse().unwrap(), 60, data)
    }

    fn seen(answers: Vec<Record>) -> Vec<String> {
        let mut message = Message::new(0, MessageType::Response, OpCode::Query);
        message.metadata.response_code = ResponseCode::NoError;
        message.add_answers(answers);
        let wants = Wants { records: true, ..Wants::default() };
        let mut trace = Trace::begin(Clock::system(), Duration::from_secs(1), wants);
        keep(&message, WireType::A, &mut trace);
        trace.seen.records
    }

    #[test]
    fn records_are_shown_as_a_zone_file_has_them() {
        let unknown = |code: u16, bytes: &[u8]| RData::Unknown { code: code.into(), rdata: NULL::with(bytes.to_vec()) };
        let shown = seen(
            [
                RData::A(A::new(192, 0, 2, 1)),
                RData::MX(MX::new(10, Name::from_ascii("mx.test.").unwrap())),
                RData::TXT(TXT::from_bytes(vec![b"v=spf1 -all", b"a\"b\\c\n\xff"])),
                unknown(65_280, b"\x00\xff"),
                unknown(108, b"\x01"),
            ]
            .map(record)
            .to_vec(),
        );
        assert_eq!(
            shown,
            [
                "a.test. 60 IN A 192.0.2.1",
                "a.test. 60 IN MX 10 mx.test.",
                r#"a.test. 60 IN TXT "v=spf1 -all" "a\"b\\c\010\255""#,
                r"a.test. 60 IN TYPE65280 \# 2 00ff",
                r"a.test. 60 IN EUI48 \# 1 01",
            ]
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        assert_eq!(seen(vec![record(RData::A(A::new(192, 0, 2, 1))); 100]).len(), RECORDS_MAX);
        let long = record(RData::TXT(TXT::from_bytes(vec![&[0xff; 255]; 40])));
        let kept = seen(vec![long; 60]);
        assert!(kept.iter().all(|text| text.len() == RECORD_BYTES_MAX));
        assert_eq!(kept.len(), BYTES_MAX / RECORD_BYTES_MAX);
    }
}
