//! What a collector says: `session::FromCollector` to and from `wire::CollectorMessage`.

use std::net::SocketAddr;
use std::time::Duration;

use super::assignment;
use super::bounds::{
    REASON_BYTES_MAX, TEXT_BYTES_MAX, WORD_BYTES_MAX, at, blob, clip, id_bytes, len, range, ranges, required, text,
    wall, wire_range, wire_ranges, within, within_u32,
};
use super::from_probe::BUNDLE_VERSION_MAX;
use crate::model::InvalidField;
use crate::model::id::{BootId, Epoch, cut};
use crate::model::sample::BATCH_SAMPLES_MAX;
use crate::session::{ENDPOINTS_MAX, FromCollector, Limits, RenewAnswer, UNACKED_RANGES_MAX, Welcome};
use crate::wire;
use crate::wire::collector_message::Body;

/// Most ranges in one Ack.
pub const ACK_RANGES_MAX: usize = 1_024;
/// Most certificates in a chain or a bundle.
pub const CERTIFICATES_MAX: usize = 16;
/// Largest certificate in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

impl From<FromCollector> for wire::CollectorMessage {
    fn from(message: FromCollector) -> Self {
        let body = match message {
            FromCollector::Welcome(welcome) => Body::Welcome(wire_welcome(welcome)),
            FromCollector::Assignment(update) => Body::Assignment(assignment::wire_update(update)),
            FromCollector::Ack { boot, ranges } => {
                Body::Ack(wire::Ack { boot: id_bytes(boot.0), ranges: wire_ranges(ranges) })
            }
            FromCollector::Heartbeat { wall } => Body::Heartbeat(wire::CollectorHeartbeat { wall_us: wall.0 }),
            FromCollector::Renewed(RenewAnswer { chain_der, ca_der, bundle_version, refused }) => {
                let refused = clip(refused, TEXT_BYTES_MAX);
                Body::Renewed(wire::RenewAnswer { chain_der, ca_der, bundle_version, refused })
            }
            FromCollector::Drain { reason } => Body::Drain(wire::Drain { reason: clip(reason, REASON_BYTES_MAX) }),
            FromCollector::Refusal { boot, range, code, detail } => Body::Refusal(wire::Refusal {
                boot: id_bytes(boot.0),
                range: Some(wire_range(range)),
                code: clip(code, WORD_BYTES_MAX),
                detail: clip(detail, TEXT_BYTES_MAX),
            }),
            FromCollector::Release => Body::Release(wire::Release {}),
        };
        Self { body: Some(body) }
    }
}

fn wire_welcome(welcome: Welcome) -> wire::Welcome {
    let Welcome { epoch, wall, stored, in_doubt, limits, collector_id, endpoints } = welcome;
    let Limits { batch_samples_max, batch_age_max, batches_in_flight_max } = limits;
    wire::Welcome {
        epoch: epoch.0,
        wall_us: wall.0,
        stored: wire_ranges(stored),
        limits: Some(wire::Limits {
            batch_samples_max,
            batch_age_ms_max: u32::try_from(batch_age_max.as_millis()).unwrap_or(u32::MAX),
            batches_in_flight_max,
        }),
        collector_id: clip(collector_id, WORD_BYTES_MAX),
        in_doubt: wire_ranges(in_doubt),
        endpoints: endpoints.iter().map(ToString::to_string).collect(),
    }
}

impl TryFrom<wire::CollectorMessage> for FromCollector {
    type Error = InvalidField;

    fn try_from(message: wire::CollectorMessage) -> Result<Self, InvalidField> {
        match required("body", message.body)? {
            Body::Welcome(message) => welcome(message).map(Self::Welcome),
            Body::Assignment(message) => assignment::update(message).map(Self::Assignment),
            Body::Ack(message) => Ok(Self::Ack {
                boot: BootId::from_slice(&message.boot).map_err(at("ack.boot"))?,
                ranges: ranges("ack.ranges", message.ranges, ACK_RANGES_MAX)?,
            }),
            Body::Heartbeat(message) => Ok(Self::Heartbeat { wall: wall("heartbeat.wall_us", message.wall_us)? }),
            Body::Renewed(message) => renewed(message).map(Self::Renewed),
            Body::Drain(wire::Drain { reason }) => {
                Ok(Self::Drain { reason: text("drain.reason", reason, REASON_BYTES_MAX)? })
            }
            Body::Refusal(message) => Ok(Self::Refusal {
                boot: BootId::from_slice(&message.boot).map_err(at("refusal.boot"))?,
                range: range("refusal.range", required("refusal.range", message.range)?)?,
                code: text("refusal.code", message.code, WORD_BYTES_MAX)?,
                detail: text("refusal.detail", message.detail, TEXT_BYTES_MAX)?,
            }),
            Body::Release(wire::Release {}) => Ok(Self::Release),
        }
    }
}

fn welcome(message: wire::Welcome) -> Result<Welcome, InvalidField> {
    let wire::Welcome { epoch, wall_us, stored, limits, collector_id, in_doubt, endpoints } = message;
    Ok(Welcome {
        epoch: Epoch(epoch),
        wall: wall("welcome.wall_us", wall_us)?,
        stored: ranges("welcome.stored", stored, UNACKED_RANGES_MAX)?,
        in_doubt: ranges("welcome.in_doubt", in_doubt, UNACKED_RANGES_MAX)?,
        limits: self::limits(required("welcome.limits", limits)?)?,
        collector_id: text("welcome.collector_id", collector_id, WORD_BYTES_MAX)?,
        endpoints: self::endpoints(endpoints)?,
    })
}

fn endpoints(texts: Vec<String>) -> Result<Vec<SocketAddr>, InvalidField> {
    const FIELD: &str = "welcome.endpoints";
    len(FIELD, texts.len(), 0..=ENDPOINTS_MAX, "endpoints")?;
    let endpoint = |text: String| {
        text.parse().map_err(|_| InvalidField::new(FIELD, format!("`{}` is not `address:port`", cut(&text))))
    };
    texts.into_iter().map(endpoint).collect()
}

fn limits(message: wire::Limits) -> Result<Limits, InvalidField> {
    let wire::Limits { batch_samples_max, batch_age_ms_max, batches_in_flight_max } = message;
    let age_ms = within_u32("welcome.limits.batch_age_ms_max", batch_age_ms_max, 10..=60_000)?;
    Ok(Limits {
        batch_samples_max: within_u32("welcome.limits.batch_samples_max", batch_samples_max, 1..=BATCH_SAMPLES_MAX)?,
        batch_age_max: Duration::from_millis(age_ms.into()),
        batches_in_flight_max: within_u32("welcome.limits.batches_in_flight_max", batches_in_flight_max, 1..=1_024)?,
    })
}

fn renewed(message: wire::RenewAnswer) -> Result<RenewAnswer, InvalidField> {
    let wire::RenewAnswer { chain_der, ca_der, bundle_version, refused } = message;
    let refused = text("renewed.refused", refused, TEXT_BYTES_MAX)?;
    if refused.is_empty() == chain_der.is_empty() {
        return Err(InvalidField::new("renewed.chain_der", "must be there exactly when `refused` is empty"));
    }
    Ok(RenewAnswer {
        chain_der: certificates("renewed.chain_der", chain_der)?,
        ca_der: certificates("renewed.ca_der", ca_der)?,
        bundle_version: within("renewed.bundle_version", bundle_version, 0..=BUNDLE_VERSION_MAX)?,
        refused,
    })
}

fn certificates(field: &str, certificates: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, InvalidField> {
    len(field, certificates.len(), 0..=CERTIFICATES_MAX, "certificates")?;
    certificates.into_iter().map(|der| blob(field, der, CERTIFICATE_BYTES_MAX)).collect()
}
