//! The rules of `icmp` checks: how many echoes, how far apart, how large, how far. Never looks anything up.

use std::time::Duration;

use super::{Host, host};
use crate::model::InvalidField;
use crate::model::time::micros;

/// Smallest payload of an echo: it carries the probe's own 16 bytes of identity.
pub const ICMP_PAYLOAD_BYTES_MIN: u16 = 16;
/// Largest payload of an echo: fills a jumbo frame of 9,000 bytes.
pub const ICMP_PAYLOAD_BYTES_MAX: u16 = 8_952;
/// Payload of an echo when none is written, as `ping` has it.
pub const ICMP_PAYLOAD_BYTES_DEFAULT: u16 = 56;
/// Most echoes of one run.
pub const ICMP_COUNT_MAX: u8 = 100;
/// Shortest distance between two echoes of a run: 100 of them a second are no flood.
pub const ICMP_SPACING_MIN: Duration = Duration::from_millis(10);
/// Distance between two echoes of a run when none is written.
pub const ICMP_SPACING_DEFAULT: Duration = Duration::from_millis(100);

/// A train of ICMP echoes; of one, when nothing else is said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IcmpSpec {
    /// Target.
    pub host: Host,
    /// Payload bytes, [`ICMP_PAYLOAD_BYTES_MIN`] to [`ICMP_PAYLOAD_BYTES_MAX`].
    pub payload_bytes: u16,
    /// Echoes per run, 1 to [`ICMP_COUNT_MAX`].
    pub count: u8,
    /// Distance between two echoes, at least [`ICMP_SPACING_MIN`], whole milliseconds.
    pub spacing: Duration,
    /// Whether routers may not cut an echo in pieces.
    pub dont_fragment: bool,
    /// How many routers an echo may pass, 1 to 255; the system's choice when `None`.
    pub hop_limit: Option<u8>,
    /// Most echoes in a hundred that may be lost; when `None`, one answer is enough.
    pub loss_max_percent: Option<u8>,
}

/// An `icmp` check as somebody wrote it. The default of each field means that it was left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IcmpDraft {
    /// Name or address.
    pub host: String,
    /// Payload bytes; 0 means 56.
    pub payload_bytes: u32,
    /// Echoes per run; 0 means 1.
    pub count: u32,
    /// Distance between two echoes; zero means 100 ms.
    pub spacing: Duration,
    /// Whether routers may not cut an echo in pieces.
    pub dont_fragment: bool,
    /// How many routers an echo may pass; 0 means the system's choice.
    pub hop_limit: u32,
    /// Most echoes in a hundred that may be lost.
    pub loss_max_percent: Option<u32>,
}

impl IcmpSpec {
    pub(super) fn parse(draft: IcmpDraft) -> Result<Self, InvalidField> {
        let IcmpDraft { host, payload_bytes, count, spacing, dont_fragment, hop_limit, loss_max_percent } = draft;
        let payload_bytes = if payload_bytes == 0 { u32::from(ICMP_PAYLOAD_BYTES_DEFAULT) } else { payload_bytes };
        let spacing = if spacing.is_zero() { ICMP_SPACING_DEFAULT } else { spacing };
        if spacing < ICMP_SPACING_MIN || !micros(spacing).is_multiple_of(1_000) || spacing.subsec_nanos() % 1_000 != 0 {
            return Err(InvalidField::new(
                "icmp.spacing",
                format!("{spacing:?} is not possible: use whole milliseconds, at least {ICMP_SPACING_MIN:?}"),
            ));
        }
        let loss_max_percent = loss_max_percent.map(|percent| {
            number("icmp.loss_max_percent", percent, 0, 99, "percent; leave it out where one answer is enough")
        });
        Ok(Self {
            host: host::host("host", &host)?,
            payload_bytes: u16::try_from(payload_bytes)
                .ok()
                .filter(|bytes| (ICMP_PAYLOAD_BYTES_MIN..=ICMP_PAYLOAD_BYTES_MAX).contains(bytes))
                .ok_or_else(|| {
                    let (min, max) = (ICMP_PAYLOAD_BYTES_MIN, ICMP_PAYLOAD_BYTES_MAX);
                    InvalidField::new(
                        "icmp.payload_bytes",
                        format!("{payload_bytes} is not within {min} to {max} bytes"),
                    )
                })?,
            count: number("icmp.count", count.max(1), 1, ICMP_COUNT_MAX, "echoes")?,
            spacing,
            dont_fragment,
            hop_limit: hop_limit_of("icmp.hop_limit", hop_limit)?,
            loss_max_percent: loss_max_percent.transpose()?,
        })
    }

    pub(super) fn draft(&self) -> IcmpDraft {
        let Self { host, payload_bytes, count, spacing, dont_fragment, hop_limit, loss_max_percent } = self;
        IcmpDraft {
            host: host.to_string(),
            payload_bytes: u32::from(*payload_bytes),
            count: u32::from(*count),
            spacing: *spacing,
            dont_fragment: *dont_fragment,
            hop_limit: hop_limit.map_or(0, u32::from),
            loss_max_percent: loss_max_percent.map(u32::from),
        }
    }

    /// From the first echo to the last.
    pub fn length(&self) -> Duration {
        self.spacing * (u32::from(self.count) - 1)
    }

    /// Refuses a train that is still leaving when the run ends.
    pub(super) fn fits(&self, timeout: Duration) -> Result<(), InvalidField> {
        if self.length() < timeout {
            return Ok(());
        }
        Err(InvalidField::new(
            "icmp.spacing",
            format!(
                "{:?} between {} echoes take {:?}, and the run ends after {timeout:?}: use a longer timeout, a shorter \
                 spacing or fewer echoes",
                self.spacing,
                self.count,
                self.length()
            ),
        ))
    }
}

/// Reads how many routers a packet may pass; `None` for the system's choice.
fn hop_limit_of(field: &str, hops: u32) -> Result<Option<u8>, InvalidField> {
    (hops != 0).then(|| number(field, hops, 1, u8::MAX, "hops")).transpose()
}

/// Reads a small number.
pub(super) fn number(field: &str, value: u32, min: u8, max: u8, unit: &str) -> Result<u8, InvalidField> {
    u8::try_from(value)
        .ok()
        .filter(|value| (min..=max).contains(value))
        .ok_or_else(|| InvalidField::new(field, format!("{value} is not within {min} to {max} {unit}")))
}
