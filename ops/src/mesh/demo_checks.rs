//! The checks of the demo target: one that is well and three that are unwell in different ways.

use sonde_proto::wire::{self, check_kind::Kind};

use super::layout::Ports;
use super::world::PROBES;
use crate::client::Client;
use crate::demo;
use crate::error::{self, Result};

/// Distance between two runs of a demo check in one region.
const INTERVAL_US: u64 = 3_000_000;
/// Timeout of a demo check.
const TIMEOUT_US: u64 = 2_000_000;
/// Above this the slow target counts as degraded.
const DEGRADED_AFTER_US: u64 = 250_000;

/// Creates those that are not there yet.
pub(super) async fn create(client: &Client, ports: Ports) -> Result<()> {
    let at = |offset: u16| ports.demo + offset;
    let http = |url: String| Kind::Http(wire::HttpCheck { url, ..Default::default() });
    let wanted = [
        ("demo-healthy", http(format!("http://127.0.0.1:{}/", at(demo::HEALTHY)))),
        ("demo-healthy-tls", http(format!("https://localhost:{}/", at(demo::HEALTHY_TLS)))),
        ("demo-slow", http(format!("http://127.0.0.1:{}/", at(demo::SLOW)))),
        ("demo-flaky", http(format!("http://127.0.0.1:{}/", at(demo::FLAKY)))),
        ("demo-broken-certificate", http(format!("https://localhost:{}/", at(demo::BROKEN_CERTIFICATE)))),
    ];
    for (name, kind) in wanted {
        let definition = wire::CheckDefinition {
            name: name.to_owned(),
            kind: Some(wire::CheckKind { kind: Some(kind) }),
            interval_us: INTERVAL_US,
            timeout_us: TIMEOUT_US,
            regions: PROBES.iter().map(|(region, _)| (*region).to_owned()).collect(),
            degraded_after_us: DEGRADED_AFTER_US,
            ..Default::default()
        };
        let request = wire::CreateCheckRequest { definition: Some(definition), ..Default::default() };
        match client.create_check(request).await {
            // Left over from an earlier `up` that was cut off before it could remember.
            Err(fault) if fault.kind == error::Kind::Conflict => {}
            other => drop(other?),
        }
    }
    Ok(())
}
