//! Details of samples: any that are sound come back, what is not is refused, and the usual ones cost next to nothing.

use std::net::IpAddr;

use super::*;
use crate::model::detail::{Detail, PARTS_MAX, Part, PartKind, READINGS_MAX, Reading, ReadingKey};

fn any_part() -> impl Strategy<Value = Part> {
    let head = (prop::sample::select(PartKind::ALL.to_vec()), any::<u16>(), any::<Option<IpAddr>>());
    let error = prop::option::of(prop::sample::select(ErrorClass::ALL.to_vec()));
    let phases = any::<[Option<u32>; 6]>();
    (head, error, any::<Option<u16>>(), phases, any::<u32>(), any::<u16>(), any::<u16>()).prop_map(
        |((kind, number, addr), error, status_code, phases, total_us, sent, received)| {
            let [dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us] = phases;
            Part {
                kind,
                number,
                // No address is written as the unspecified one, and IPv4 as itself.
                addr: addr.map(|addr| addr.to_canonical()).filter(|addr| *addr != IpAddr::from([0_u16; 8])),
                error,
                status_code,
                phases: Phases { dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us },
                total_us,
                sent,
                received,
            }
        },
    )
}

/// No detail, or one that is sound.
pub(super) fn any_detail() -> impl Strategy<Value = Option<Box<Detail>>> {
    let readings = prop::collection::vec((prop::sample::select(ReadingKey::ALL.to_vec()), any::<i64>()), 0..6);
    let some = (readings, prop::collection::vec(any_part(), 0..4)).prop_map(|(readings, parts)| {
        let mut detail = Detail { parts, ..Detail::default() };
        for (key, value) in readings {
            detail.read(key, value);
        }
        (!detail.is_empty()).then(|| Box::new(detail))
    });
    prop_oneof![3 => Just(None), 2 => some]
}

fn with(detail: Detail) -> Sample {
    let mut sample = mesh(&mut Random(1), Spread::Alike, 1).remove(0);
    sample.detail = Some(Box::new(detail));
    sample
}

fn part(number: u16) -> Part {
    Part {
        kind: PartKind::Router,
        number,
        addr: Some(IpAddr::from([192, 0, 2, 1])),
        error: None,
        status_code: None,
        phases: Phases { ttfb_us: Some(1_000), ..Phases::default() },
        total_us: 900,
        sent: 3,
        received: 2,
    }
}

#[test]
fn what_is_not_sound_is_refused() {
    let reading = |key| Reading { key, value: 1 };
    let twice = vec![reading(ReadingKey::Hops), reading(ReadingKey::Hops)];
    let too_many = (0..=PARTS_MAX).map(|_| part(1)).collect();
    for detail in [
        Detail::default(),
        Detail { readings: twice, ..Detail::default() },
        Detail { parts: too_many, ..Detail::default() },
    ] {
        assert_eq!(encode(&[with(detail)]).map(|_| ()), Err(CodecError::Details));
    }
}

#[test]
fn the_largest_detail_fits_a_batch_and_many_of_them_do_not() {
    let parts: Vec<Part> = (0_u16..).take(PARTS_MAX).map(part).collect();
    let mut largest = Detail { parts, ..Detail::default() };
    for key in ReadingKey::ALL.iter().take(READINGS_MAX) {
        largest.read(*key, i64::MIN);
    }
    let one = with(largest);
    let (columns, numbers) = encode(std::slice::from_ref(&one)).unwrap();
    assert_eq!(decode(&columns, 1, &numbers), Ok(vec![one.clone()]));
    assert_eq!(encode(&vec![one; 1_000]).map(|_| ()), Err(CodecError::Details));
}

#[test]
fn a_reading_that_is_the_same_in_each_sample_costs_less_than_a_bit_each() {
    let plain = mesh(&mut Random(2), Spread::Alike, 1_000);
    let mut carrying = plain.clone();
    for sample in &mut carrying {
        let mut detail = Detail::default();
        detail.read(ReadingKey::HttpVersion, 20);
        sample.detail = Some(Box::new(detail));
    }
    let (without, with) = (encode(&plain).unwrap().0.len(), encode(&carrying).unwrap().0.len());
    assert!(with - without <= 40, "{} bytes for 1,000 samples", with - without);
}
