//! What samples carry beyond their phases as two columns of table `samples`, and the way back. Never does I/O.

use std::net::{IpAddr, Ipv6Addr};

use sonde_proto::model::detail::{Detail, Part, Reading};
use sonde_proto::model::sample::Phases;

use super::row::put_text;

/// Name and type of the column of readings.
pub const READINGS: (&str, &str) = ("readings", "Map(String, Int64)");
/// Name and type of the column of parts.
pub const PARTS: (&str, &str) = (
    "parts",
    "Array(Tuple(kind Enum8('redirect' = 1, 'address' = 2, 'router' = 3), number UInt16, addr Nullable(IPv6), \
     error String, status_code Nullable(UInt16), dns_us Nullable(UInt32), connect_us Nullable(UInt32), \
     tls_us Nullable(UInt32), send_us Nullable(UInt32), ttfb_us Nullable(UInt32), transfer_us Nullable(UInt32), \
     total_us UInt32, sent UInt16, received UInt16))",
);

/// Both columns as a question asks for them: words as words, tuples without names.
pub(super) const SELECTED: &str = "arrayZip(mapKeys(readings), mapValues(readings)) AS reading_pairs, \
     arrayMap(p -> tuple(toString(p.1), p.2, p.3, p.4, p.5), parts) AS part_heads, \
     arrayMap(p -> tuple(p.6, p.7, p.8, p.9, p.10, p.11, p.12, p.13, p.14), parts) AS part_numbers";

/// Kind, number, address, class of the failure and status of a part.
pub(super) type PartHead = (String, u16, Option<Ipv6Addr>, String, Option<u16>);
/// Six phases, the total, packets sent and received.
pub(super) type PartNumbers =
    (Option<u32>, Option<u32>, Option<u32>, Option<u32>, Option<u32>, Option<u32>, u32, u16, u16);

/// The answer to [`SELECTED`], with its words as words: a newer build may have written ones that this build lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DetailRow {
    pub(super) reading_pairs: Vec<(String, i64)>,
    pub(super) part_heads: Vec<PartHead>,
    pub(super) part_numbers: Vec<PartNumbers>,
}

/// A part as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPart {
    /// `redirect`, `address` or `router`.
    pub kind: String,
    /// Its place from 1; of a router, its distance in hops.
    pub number: u16,
    /// The address that answered, or was to answer.
    pub addr: Option<IpAddr>,
    /// Class of the failure; empty unless failed.
    pub error: String,
    /// Status of its answer.
    pub status_code: Option<u16>,
    /// Durations of its steps.
    pub phases: Phases,
    /// From its beginning to its end, microseconds.
    pub total_us: u32,
    /// Packets sent.
    pub sent: u16,
    /// Packets answered.
    pub received: u16,
}

impl DetailRow {
    /// What the store holds once it has this detail.
    pub fn of(detail: Option<&Detail>) -> Self {
        let Some(detail) = detail else { return Self::default() };
        let pair = |reading: &Reading| (reading.key.name().to_owned(), reading.value);
        let head = |part: &Part| {
            let error = part.error.map_or_else(String::new, |error| error.name().to_owned());
            (part.kind.name().to_owned(), part.number, part.addr.map(as_v6), error, part.status_code)
        };
        let numbers = |part: &Part| {
            let Phases { dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us } = part.phases;
            (dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us, part.total_us, part.sent, part.received)
        };
        Self {
            reading_pairs: detail.readings.iter().map(pair).collect(),
            part_heads: detail.parts.iter().map(head).collect(),
            part_numbers: detail.parts.iter().map(numbers).collect(),
        }
    }

    /// The names and numbers.
    pub fn readings(&self) -> &[(String, i64)] {
        &self.reading_pairs
    }

    /// The parts in their order.
    pub fn parts(&self) -> impl Iterator<Item = ListedPart> {
        self.part_heads.iter().zip(&self.part_numbers).map(|(head, numbers)| {
            let (kind, number, addr, error, status_code) = head.clone();
            let (dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us, total_us, sent, received) = *numbers;
            let phases = Phases { dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us };
            let addr = addr.map(|addr| addr.to_canonical());
            ListedPart { kind, number, addr, error, status_code, phases, total_us, sent, received }
        })
    }
}

fn as_v6(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// The bytes of both columns so far. A block in which no row has a detail goes without them: the server fills them in.
#[derive(Debug, Default)]
pub(super) struct DetailColumns {
    /// Rows before the first that has a detail.
    rows: usize,
    /// End of each row's readings.
    reading_ends: Vec<u8>,
    readings: u64,
    keys: Vec<u8>,
    values: Vec<u8>,
    part_ends: Vec<u8>,
    parts: u64,
    /// The elements of the tuple in their order, each with its nulls before its values.
    elements: [Element; 14],
}

#[derive(Debug, Default)]
struct Element {
    nulls: Vec<u8>,
    values: Vec<u8>,
}

impl Element {
    fn put<const N: usize>(&mut self, value: [u8; N]) {
        self.values.extend_from_slice(&value);
    }

    fn put_nullable<const N: usize>(&mut self, value: Option<[u8; N]>) {
        self.nulls.push(u8::from(value.is_none()));
        self.values.extend_from_slice(&value.unwrap_or([0; N]));
    }
}

impl DetailColumns {
    /// Adds a row.
    pub(super) fn push(&mut self, detail: Option<&Detail>) {
        for reading in detail.map_or(&[][..], |detail| &detail.readings) {
            put_text(&mut self.keys, reading.key.name());
            self.values.extend_from_slice(&reading.value.to_le_bytes());
            self.readings += 1;
        }
        for part in detail.map_or(&[][..], |detail| &detail.parts) {
            self.push_part(part);
        }
        if self.readings == 0 && self.parts == 0 {
            self.rows += 1;
            return;
        }
        if self.reading_ends.is_empty() {
            // The rows before had none.
            self.reading_ends.resize(self.rows * 8, 0);
            self.part_ends.resize(self.rows * 8, 0);
        }
        self.reading_ends.extend_from_slice(&self.readings.to_le_bytes());
        self.part_ends.extend_from_slice(&self.parts.to_le_bytes());
    }

    fn push_part(&mut self, part: &Part) {
        let [kind, number, addr, error, status_code, phases @ .., total, sent, received] = &mut self.elements;
        kind.put([part.kind.code()]);
        number.put(part.number.to_le_bytes());
        addr.put_nullable(part.addr.map(|addr| as_v6(addr).octets()));
        put_text(&mut error.values, part.error.map_or("", |class| class.name()));
        status_code.put_nullable(part.status_code.map(u16::to_le_bytes));
        for (element, phase) in phases.iter_mut().zip(part.phases.in_order()) {
            element.put_nullable(phase.map(u32::to_le_bytes));
        }
        total.put(part.total_us.to_le_bytes());
        sent.put(part.sent.to_le_bytes());
        received.put(part.received.to_le_bytes());
        self.parts += 1;
    }

    /// How many columns [`Self::write`] adds.
    pub(super) fn count(&self) -> u64 {
        if self.reading_ends.is_empty() { 0 } else { 2 }
    }

    /// Appends the columns to a block.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        if self.reading_ends.is_empty() {
            return;
        }
        begin(out, READINGS, &self.reading_ends);
        out.extend_from_slice(&self.keys);
        out.extend_from_slice(&self.values);
        begin(out, PARTS, &self.part_ends);
        for element in &self.elements {
            out.extend_from_slice(&element.nulls);
            out.extend_from_slice(&element.values);
        }
    }
}

/// Name, type, and where each row's elements end.
fn begin(out: &mut Vec<u8>, (name, column_type): (&str, &str), ends: &[u8]) {
    put_text(out, name);
    put_text(out, column_type);
    out.extend_from_slice(ends);
}
