//! Samples as the admin API shows them.

use crate::model::detail::Part;
use crate::model::id::RegionId;
use crate::model::sample::{Phases, StoredSample};
use crate::wire;

/// Writes a sample with the region of its probe.
pub fn sample_row(stored: &StoredSample, region: &RegionId) -> wire::SampleRow {
    let sample = &stored.sample;
    let detail = sample.detail.as_deref();
    let readings = detail.map_or(&[][..], |detail| &detail.readings);
    let parts = detail.map_or(&[][..], |detail| &detail.parts);
    let Phases { dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us } = sample.phases;
    wire::SampleRow {
        check_id: sample.check.to_string(),
        probe_id: stored.probe.to_string(),
        region: region.to_string(),
        slot_at_us: sample.slot_at.0,
        started_at_us: sample.started_at.0,
        outcome: sample.outcome.name().to_owned(),
        error: sample.error.map(|error| error.name().to_owned()).unwrap_or_default(),
        dns_us,
        connect_us,
        tls_us,
        send_us,
        ttfb_us,
        transfer_us,
        total_us: sample.total_us,
        status_code: sample.status_code.map(u32::from),
        bytes: sample.bytes,
        readings: readings
            .iter()
            .map(|reading| wire::SampleReading { name: reading.key.name().to_owned(), value: reading.value })
            .collect(),
        parts: parts.iter().map(part_row).collect(),
    }
}

fn part_row(part: &Part) -> wire::SamplePart {
    let Phases { dns_us, connect_us, tls_us, send_us, ttfb_us, transfer_us } = part.phases;
    wire::SamplePart {
        kind: part.kind.name().to_owned(),
        number: part.number.into(),
        addr: part.addr.map(|addr| addr.to_string()).unwrap_or_default(),
        error: part.error.map(|error| error.name().to_owned()).unwrap_or_default(),
        status_code: part.status_code.map(u32::from),
        dns_us,
        connect_us,
        tls_us,
        send_us,
        ttfb_us,
        transfer_us,
        total_us: part.total_us,
        sent: part.sent.into(),
        received: part.received.into(),
    }
}
