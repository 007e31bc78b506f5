//! Checks that count packets, as JSON. Never knows the wire.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::check::{IcmpDraft, TracerouteDraft};
use crate::model::time::micros;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JsonIcmp {
    host: String,
    payload_bytes: u32,
    /// Absent in what an older version wrote, as all that follow; the default of each is what it did.
    #[serde(default)]
    count: u32,
    #[serde(default)]
    spacing_us: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    dont_fragment: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    hop_limit: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss_max_percent: Option<u32>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_false(is: &bool) -> bool {
    !is
}

impl From<IcmpDraft> for JsonIcmp {
    fn from(draft: IcmpDraft) -> Self {
        let IcmpDraft { host, payload_bytes, count, spacing, dont_fragment, hop_limit, loss_max_percent } = draft;
        let spacing_us = micros(spacing);
        Self { host, payload_bytes, count, spacing_us, dont_fragment, hop_limit, loss_max_percent }
    }
}

impl From<JsonIcmp> for IcmpDraft {
    fn from(json: JsonIcmp) -> Self {
        let JsonIcmp { host, payload_bytes, count, spacing_us, dont_fragment, hop_limit, loss_max_percent } = json;
        let spacing = Duration::from_micros(spacing_us);
        Self { host, payload_bytes, count, spacing, dont_fragment, hop_limit, loss_max_percent }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JsonTraceroute {
    host: String,
    method: String,
    hops_max: u32,
    packets_per_hop: u32,
}

impl From<TracerouteDraft> for JsonTraceroute {
    fn from(draft: TracerouteDraft) -> Self {
        let TracerouteDraft { host, method, hops_max, packets_per_hop } = draft;
        Self { host, method, hops_max, packets_per_hop }
    }
}

impl From<JsonTraceroute> for TracerouteDraft {
    fn from(json: JsonTraceroute) -> Self {
        let JsonTraceroute { host, method, hops_max, packets_per_hop } = json;
        Self { host, method, hops_max, packets_per_hop }
    }
}
