//! What some samples carry beyond their columns: readings and parts, as columns of their own. Never trusts a byte.
//!
//! Everything of one meaning in all samples of a batch stands together: the same number in each sample costs next to
//! nothing. What may be absent is written one higher, with 0 for absent.

use std::net::{IpAddr, Ipv6Addr};

use super::bits::{BitReader, BitWriter};
use super::{CodecError, column, marks};
use crate::model::detail::{Detail, PARTS_MAX, Part, PartKind, READINGS_MAX, Reading, ReadingKey};
use crate::model::error_class::ErrorClass;
use crate::model::sample::{BATCH_SAMPLES_MAX, Phases, Sample};

/// Most parts in one batch: as many as keep a body far below its largest size, with every number at its widest.
pub(super) const BATCH_PARTS_MAX: usize = 1_000;
/// Most readings in one batch.
pub(super) const BATCH_READINGS_MAX: usize = 10_000;

/// Numbers that a column takes at once.
const CHUNK: usize = BATCH_SAMPLES_MAX as usize;

const BAD: CodecError = CodecError::Malformed { what: "detail" };

/// Whether the samples carry no more than one batch can. One sample alone never carries more.
pub(super) fn fits(samples: &[Sample]) -> bool {
    let (readings, parts) = details(samples)
        .fold((0, 0), |(readings, parts), detail| (readings + detail.readings.len(), parts + detail.parts.len()));
    readings <= BATCH_READINGS_MAX && parts <= BATCH_PARTS_MAX
}
const _: () = assert!(READINGS_MAX <= BATCH_READINGS_MAX && PARTS_MAX <= BATCH_PARTS_MAX);

fn details(samples: &[Sample]) -> impl Iterator<Item = &Detail> {
    samples.iter().filter_map(|sample| sample.detail.as_deref())
}

/// Writes what the samples carry.
pub(super) fn put(out: &mut BitWriter, samples: &[Sample]) {
    marks::put(out, &samples.iter().map(|sample| sample.detail.is_some()).collect::<Vec<_>>());
    if samples.iter().all(|sample| sample.detail.is_none()) {
        return;
    }
    put_long(out, details(samples).map(|detail| length(detail.readings.len())));
    put_long(out, readings(samples).map(|reading| i64::from(reading.key.code())));
    for key in ReadingKey::ALL {
        put_long(out, readings(samples).filter(|reading| reading.key == *key).map(|reading| reading.value));
    }
    put_long(out, details(samples).map(|detail| length(detail.parts.len())));
    for number in PartNumber::ALL {
        put_long(out, details(samples).flat_map(|detail| &detail.parts).map(|part| number.of(part)));
    }
}

fn readings(samples: &[Sample]) -> impl Iterator<Item = &Reading> {
    details(samples).flat_map(|detail| &detail.readings)
}

fn length(length: usize) -> i64 {
    i64::try_from(length).expect("a bounded list")
}

/// Reads what the samples carry, one entry for each of `count` rows.
pub(super) fn take(reader: &mut BitReader<'_>, count: usize) -> Result<Vec<Option<Box<Detail>>>, CodecError> {
    let marks = marks::take(reader, count)?;
    let carriers = marks.iter().filter(|mark| **mark).count();
    let mut found = vec![Detail::default(); carriers];
    if carriers > 0 {
        take_readings(reader, &mut found)?;
        take_parts(reader, &mut found)?;
    }
    let mut found = found.into_iter();
    marks
        .into_iter()
        .map(|is_carrier| {
            let detail = if is_carrier { found.next() } else { None };
            // Only what `encode` writes is read: no detail that is empty, none beyond its bounds.
            match detail {
                Some(detail) if detail.is_empty() || !detail.is_sound() => Err(BAD),
                detail => Ok(detail.map(Box::new)),
            }
        })
        .collect()
}

fn take_readings(reader: &mut BitReader<'_>, found: &mut [Detail]) -> Result<(), CodecError> {
    let lengths = take_lengths(reader, found.len(), READINGS_MAX, BATCH_READINGS_MAX)?;
    let keys: Vec<ReadingKey> = take_long(reader, lengths.iter().sum())?
        .into_iter()
        .map(|code| u16::try_from(code).ok().and_then(ReadingKey::from_code).ok_or(BAD))
        .collect::<Result<_, _>>()?;
    let mut values = vec![0; keys.len()];
    for key in ReadingKey::ALL {
        let places: Vec<usize> = (0..keys.len()).filter(|place| keys[*place] == *key).collect();
        for (place, value) in places.iter().zip(take_long(reader, places.len())?) {
            values[*place] = value;
        }
    }
    let mut all = keys.into_iter().zip(values).map(|(key, value)| Reading { key, value });
    for (detail, length) in found.iter_mut().zip(lengths) {
        detail.readings = all.by_ref().take(length).collect();
    }
    Ok(())
}

fn take_parts(reader: &mut BitReader<'_>, found: &mut [Detail]) -> Result<(), CodecError> {
    let lengths = take_lengths(reader, found.len(), PARTS_MAX, BATCH_PARTS_MAX)?;
    let mut all = vec![RawPart::default(); lengths.iter().sum()];
    for number in PartNumber::ALL {
        let values = take_long(reader, all.len())?;
        for (part, value) in all.iter_mut().zip(values) {
            part[number.place()] = value;
        }
    }
    let mut all = all.into_iter();
    for (detail, length) in found.iter_mut().zip(lengths) {
        detail.parts = all.by_ref().take(length).map(|raw| part(&raw)).collect::<Result<_, _>>()?;
    }
    Ok(())
}

fn take_lengths(
    reader: &mut BitReader<'_>,
    count: usize,
    each_max: usize,
    all_max: usize,
) -> Result<Vec<usize>, CodecError> {
    let lengths: Vec<usize> = take_long(reader, count)?
        .into_iter()
        .map(|length| usize::try_from(length).ok().filter(|length| *length <= each_max).ok_or(BAD))
        .collect::<Result<_, _>>()?;
    if lengths.iter().sum::<usize>() > all_max { Err(BAD) } else { Ok(lengths) }
}

/// One of the numbers of a part.
#[derive(Debug, Clone, Copy)]
enum PartNumber {
    Kind,
    Number,
    AddrHigh,
    AddrLow,
    Error,
    Status,
    Phase(usize),
    Total,
    Sent,
    Received,
}

/// The numbers of a part in the order of [`PartNumber::ALL`].
type RawPart = [i64; PartNumber::ALL.len()];

impl PartNumber {
    const ALL: [Self; 15] = [
        Self::Kind,
        Self::Number,
        Self::AddrHigh,
        Self::AddrLow,
        Self::Error,
        Self::Status,
        Self::Phase(0),
        Self::Phase(1),
        Self::Phase(2),
        Self::Phase(3),
        Self::Phase(4),
        Self::Phase(5),
        Self::Total,
        Self::Sent,
        Self::Received,
    ];

    fn place(self) -> usize {
        match self {
            Self::Kind => 0,
            Self::Number => 1,
            Self::AddrHigh => 2,
            Self::AddrLow => 3,
            Self::Error => 4,
            Self::Status => 5,
            Self::Phase(phase) => 6 + phase,
            Self::Total => 12,
            Self::Sent => 13,
            Self::Received => 14,
        }
    }

    fn of(self, part: &Part) -> i64 {
        match self {
            Self::Kind => i64::from(part.kind.code()),
            Self::Number => i64::from(part.number),
            Self::AddrHigh => halves(part.addr).0,
            Self::AddrLow => halves(part.addr).1,
            // A class has no number 0.
            Self::Error => part.error.map_or(0, |error| i64::from(error.code())),
            Self::Status => part.status_code.map_or(0, |status| i64::from(status) + 1),
            Self::Phase(phase) => part.phases.in_order()[phase].map_or(0, |us| i64::from(us) + 1),
            Self::Total => i64::from(part.total_us),
            Self::Sent => i64::from(part.sent),
            Self::Received => i64::from(part.received),
        }
    }
}

/// An address as IPv6, of IPv4 the mapped form; no address as the unspecified one.
fn halves(addr: Option<IpAddr>) -> (i64, i64) {
    let bits = match addr {
        None => 0,
        Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped().to_bits(),
        Some(IpAddr::V6(v6)) => v6.to_bits(),
    };
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).expect("64 bits").cast_signed();
    (half(bits >> 64), half(bits))
}

fn addr((high, low): (i64, i64)) -> Option<IpAddr> {
    let bits = u128::from(high.cast_unsigned()) << 64 | u128::from(low.cast_unsigned());
    (bits != 0).then(|| Ipv6Addr::from_bits(bits).to_canonical())
}

fn part(raw: &RawPart) -> Result<Part, CodecError> {
    let of = |number: PartNumber| raw[number.place()];
    let phase = |phase: usize| optional(of(PartNumber::Phase(phase)));
    let error = match of(PartNumber::Error) {
        0 => None,
        code => Some(u16::try_from(code).ok().and_then(ErrorClass::from_code).ok_or(BAD)?),
    };
    Ok(Part {
        kind: u8::try_from(of(PartNumber::Kind)).ok().and_then(PartKind::from_code).ok_or(BAD)?,
        number: narrow(of(PartNumber::Number))?,
        addr: addr((of(PartNumber::AddrHigh), of(PartNumber::AddrLow))),
        error,
        status_code: optional(of(PartNumber::Status))?,
        phases: Phases {
            dns_us: phase(0)?,
            connect_us: phase(1)?,
            tls_us: phase(2)?,
            send_us: phase(3)?,
            ttfb_us: phase(4)?,
            transfer_us: phase(5)?,
        },
        total_us: narrow(of(PartNumber::Total))?,
        sent: narrow(of(PartNumber::Sent))?,
        received: narrow(of(PartNumber::Received))?,
    })
}

fn narrow<T: TryFrom<i64>>(value: i64) -> Result<T, CodecError> {
    T::try_from(value).map_err(|_| BAD)
}

fn optional<T: TryFrom<i64>>(value: i64) -> Result<Option<T>, CodecError> {
    if value == 0 { Ok(None) } else { narrow(value.checked_sub(1).ok_or(BAD)?).map(Some) }
}

/// Writes a column that may be longer than a batch has rows, in pieces.
fn put_long(out: &mut BitWriter, values: impl Iterator<Item = i64>) {
    for chunk in values.collect::<Vec<_>>().chunks(CHUNK) {
        column::put(out, chunk, &[]);
    }
}

/// Reads `count` numbers of such a column.
fn take_long(reader: &mut BitReader<'_>, count: usize) -> Result<Vec<i64>, CodecError> {
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        values.extend(column::take(reader, (count - values.len()).min(CHUNK), &[])?);
    }
    Ok(values)
}
