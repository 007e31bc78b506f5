//! Configuration files of the laboratory's collectors and probes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sonde_proto::model::id::RegionId;

use super::party::{Party, TARGET_NETWORK, port};
use super::stores::{self, Postgres};

/// Runs at once of a probe: a whole region of 3,000 checks whose target swallows packets for 300 ms, and as much again.
const CONCURRENCY: usize = 2_048;

/// The first `count` regions.
///
/// # Errors
/// Never: the names are good.
pub fn regions(count: usize) -> anyhow::Result<BTreeSet<RegionId>> {
    (0..count).map(|number| Ok(RegionId::new(format!("region-{number}"))?)).collect()
}

/// Where a party's configuration lies.
pub fn file(dir: &Path, party: Party) -> PathBuf {
    dir.join(format!("{party}.toml"))
}

/// Where the CA of all collectors lies.
pub fn ca_dir(dir: &Path) -> PathBuf {
    dir.join("ca")
}

/// Writes a collector's file.
///
/// # Errors
/// When it cannot be written.
pub fn write_collector(dir: &Path, party: Party, collectors: usize) -> anyhow::Result<()> {
    let address = party.address();
    let at = |port: u16| format!("{address}:{port}");
    // One collector needs no shared CA: its own data folder is it.
    let (data, ca) = if collectors > 1 {
        (dir.join(party.to_string()), format!("ca_dir = {:?}\n", ca_dir(dir)))
    } else {
        (ca_dir(dir), String::new())
    };
    let text = format!(
        "collector_id = \"{party}\"\ntrust_domain = \"chaos.internal\"\ndata_dir = {data:?}\n{ca}\
         [listen]\nmesh = \"{mesh}\"\nenrol = \"{enrol}\"\nadmin = \"{admin}\"\nweb = \"127.0.0.1:{web}\"\n\
         [advertise]\nmesh = \"{mesh}\"\nenrol = \"{enrol}\"\nnames = [\"{address}\"]\n\
         [postgres]\nurl = \"{postgres}\"\n[clickhouse]\nurl = \"{clickhouse}\"\ndatabase = \"sonde\"\n",
        mesh = at(port::MESH),
        enrol = at(port::ENROL),
        admin = at(port::ADMIN),
        web = port::WEB,
        postgres = Postgres::url(dir),
        clickhouse = stores::engine_url(),
    );
    Ok(fs::write(file(dir, party), text)?)
}

/// Writes a probe's file and its join string.
///
/// # Errors
/// When they cannot be written.
pub fn write_probe(dir: &Path, party: Party, collectors: usize, join_string: &str) -> anyhow::Result<()> {
    let join = dir.join(format!("{party}.join"));
    fs::write(&join, join_string)?;
    let mut text = format!(
        "data_dir = {:?}\njoin_string_file = {join:?}\nallow_networks = [\"{TARGET_NETWORK}\"]\n\
         concurrency_max = {CONCURRENCY}\n",
        dir.join(party.to_string())
    );
    if collectors > 1 {
        let Party::Probe(number) = party else { anyhow::bail!("{party} is no probe") };
        // Every probe begins with another collector, so that each has work.
        let count = u8::try_from(collectors)?;
        let addresses: Vec<String> = (0..count)
            .map(|offset| format!("{}:{}", Party::Collector((number + offset) % count).address(), port::MESH))
            .collect();
        text.push_str(&format!("mesh_addresses = {addresses:?}\n"));
    }
    Ok(fs::write(file(dir, party), text)?)
}
