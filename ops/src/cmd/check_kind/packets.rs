//! The flags of checks that count packets. Never judges a value: the collector does.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use sonde_proto::model::time::micros;
use sonde_proto::wire;

use super::changes::set;
use crate::output;

/// Flags of an ICMP check.
#[derive(Debug, Args)]
pub(crate) struct IcmpArgs {
    /// Name or address of the target
    #[arg(long)]
    host: String,
    /// Payload bytes, 16 to 8952
    #[arg(long, default_value_t = 56, allow_negative_numbers = true)]
    payload_bytes: u32,
    /// Echoes per run, 1 to 100
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    count: u32,
    /// Distance between two echoes, at least 10ms; all of them have to leave within the timeout
    #[arg(long, default_value = "100ms", value_parser = output::parse_duration, allow_hyphen_values = true, value_name = "TIME")]
    spacing: Duration,
    /// Do not let routers cut an echo in pieces: one that is too large fails as `icmp_too_big`
    #[arg(long)]
    dont_fragment: bool,
    /// How many routers an echo may pass (TTL), 1 to 255; the system's choice without it
    #[arg(long, default_value_t = 0, hide_default_value = true, allow_negative_numbers = true)]
    hop_limit: u32,
    /// Most echoes in a hundred that may be lost, 0 to 99; without it one answer is enough
    #[arg(long, allow_negative_numbers = true, value_name = "PERCENT")]
    loss_max_percent: Option<u32>,
}

impl From<IcmpArgs> for wire::IcmpCheck {
    fn from(args: IcmpArgs) -> Self {
        let IcmpArgs { host, payload_bytes, count, spacing, dont_fragment, hop_limit, loss_max_percent } = args;
        let spacing_us = micros(spacing);
        Self { host, payload_bytes, count, spacing_us, dont_fragment, hop_limit, loss_max_percent }
    }
}

/// Flags of a traceroute check.
#[derive(Debug, Args)]
pub(crate) struct TracerouteArgs {
    /// Name or address of the target
    #[arg(long)]
    host: String,
    /// What to send: udp, which every probe may, or icmp
    #[arg(long, default_value = "udp")]
    method: String,
    /// How far to look, 1 to 64 hops
    #[arg(long, default_value_t = 30, allow_negative_numbers = true)]
    hops_max: u32,
    /// Packets for each hop, 1 to 5
    #[arg(long, default_value_t = 3, allow_negative_numbers = true)]
    packets_per_hop: u32,
}

impl From<TracerouteArgs> for wire::TracerouteCheck {
    fn from(args: TracerouteArgs) -> Self {
        let TracerouteArgs { host, method, hops_max, packets_per_hop } = args;
        Self { host, method, hops_max, packets_per_hop }
    }
}

/// Flags of `check update` for these kinds.
#[derive(Debug, Args, Default)]
pub(crate) struct PacketChanges {
    /// New payload bytes, 16 to 8952 (icmp)
    #[arg(long, allow_negative_numbers = true)]
    payload_bytes: Option<u32>,
    /// New number of echoes per run, 1 to 100 (icmp)
    #[arg(long, allow_negative_numbers = true)]
    count: Option<u32>,
    /// New distance between two echoes (icmp)
    #[arg(long, value_parser = output::parse_duration, allow_hyphen_values = true, value_name = "TIME")]
    spacing: Option<Duration>,
    /// Whether routers may not cut an echo in pieces: true or false (icmp)
    #[arg(long)]
    dont_fragment: Option<bool>,
    /// New number of routers that an echo may pass; 0 for the system's choice (icmp)
    #[arg(long, allow_negative_numbers = true)]
    hop_limit: Option<u32>,
    /// New limit of lost echoes in percent; 100 for none (icmp)
    #[arg(long, allow_negative_numbers = true, value_name = "PERCENT")]
    loss_max_percent: Option<u32>,
    /// New number of hops to look at, 1 to 64 (traceroute)
    #[arg(long, allow_negative_numbers = true)]
    hops_max: Option<u32>,
    /// New number of packets for each hop, 1 to 5 (traceroute)
    #[arg(long, allow_negative_numbers = true)]
    packets_per_hop: Option<u32>,
}

impl PacketChanges {
    pub(super) fn apply_to_trace(&mut self, trace: &mut wire::TracerouteCheck) {
        set(&mut trace.hops_max, &mut self.hops_max);
        set(&mut trace.packets_per_hop, &mut self.packets_per_hop);
    }

    pub(super) fn apply(&mut self, icmp: &mut wire::IcmpCheck) {
        set(&mut icmp.payload_bytes, &mut self.payload_bytes);
        set(&mut icmp.count, &mut self.count);
        set(&mut icmp.spacing_us, &mut self.spacing.take().map(micros));
        set(&mut icmp.dont_fragment, &mut self.dont_fragment);
        set(&mut icmp.hop_limit, &mut self.hop_limit);
        // Losing everything is a failure anyhow, so this limit is none.
        let limit = self.loss_max_percent.take().map(|percent| (percent != 100).then_some(percent));
        set(&mut icmp.loss_max_percent, &mut { limit });
    }

    /// Which flags are set.
    pub(super) fn flags(&self) -> [(&'static str, bool); 8] {
        [
            ("payload-bytes", self.payload_bytes.is_some()),
            ("count", self.count.is_some()),
            ("spacing", self.spacing.is_some()),
            ("dont-fragment", self.dont_fragment.is_some()),
            ("hop-limit", self.hop_limit.is_some()),
            ("loss-max-percent", self.loss_max_percent.is_some()),
            ("hops-max", self.hops_max.is_some()),
            ("packets-per-hop", self.packets_per_hop.is_some()),
        ]
    }
}

/// The fields of an ICMP check as JSON.
pub(super) fn icmp_details(icmp: &wire::IcmpCheck) -> Value {
    json!({
        "host": icmp.host,
        "payload_bytes": icmp.payload_bytes,
        "count": icmp.count,
        "spacing_us": icmp.spacing_us,
        "dont_fragment": icmp.dont_fragment,
        "hop_limit": icmp.hop_limit,
        "loss_max_percent": icmp.loss_max_percent,
    })
}

/// The fields of a traceroute check as JSON.
pub(super) fn trace_details(trace: &wire::TracerouteCheck) -> Value {
    json!({
        "host": trace.host,
        "method": trace.method,
        "hops_max": trace.hops_max,
        "packets_per_hop": trace.packets_per_hop,
    })
}

/// The fields of these kinds as rows for people; what says nothing is empty.
pub(super) fn settings(details: &Value) -> Vec<(&'static str, String)> {
    let number = |field: &str| details[field].as_u64();
    let train = number("count").filter(|count| *count > 1).map(|count| {
        let spacing = Duration::from_micros(number("spacing_us").unwrap_or_default());
        format!("{count} echoes, {spacing:?} apart")
    });
    let hops = number("hop_limit").filter(|hops| *hops > 0).map(|hops| hops.to_string());
    let loss = number("loss_max_percent").map(|percent| format!("{percent} % at most"));
    let whole = (details["dont_fragment"].as_bool() == Some(true)).then(|| "yes".to_owned());
    let far = number("hops_max").map(|hops| hops.to_string());
    let packets = number("packets_per_hop").map(|packets| packets.to_string());
    let trace = [("most hops", far), ("packets per hop", packets)];
    let rows = [("train", train), ("do not fragment", whole), ("hop limit", hops), ("loss", loss)];
    rows.into_iter().chain(trace).map(|(name, value)| (name, value.unwrap_or_default())).collect()
}
