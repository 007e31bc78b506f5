//! A real probe that runs hostile checks of every group beside healthy ones: nobody loses a slot to them.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use sonde_integration_tests::mesh::{Mesh, PATIENCE};
use sonde_integration_tests::{target, wait};
use sonde_proto::convert::{check_definition, check_from_json};
use sonde_proto::wire;
use sonde_proto::wire::checks_client::ChecksClient;
use sonde_proto::wire::samples_client::SamplesClient;
use tonic::Request;
use tonic::transport::Channel;

use super::case::{Case, Lab, http, tcp};
use super::servers::{Then, blurts};
use super::{QUIET, cases};
use crate::ports::channel;

const REGION: &str = "eu-west";

/// Distance between two runs of a healthy check.
const HEALTHY_INTERVAL: Duration = Duration::from_secs(4);
/// Healthy checks, of two kinds in turn.
const HEALTHY: [&str; 10] = ["ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine"];
/// Slots of each that are looked at.
const HEALTHY_SLOTS: usize = 5;

/// One case of so many runs beside them, counted through all groups: without optimisation two cores, which are those of
/// the servers as well, do not carry all of them at a time.
const HOSTILE_STEP: usize = 8;
/// Distance between two runs of a hostile check: all of them begin within it.
const HOSTILE_INTERVAL: Duration = Duration::from_secs(8);
/// The longest that a hostile check may take.
const HOSTILE_TIMEOUT: Duration = Duration::from_secs(4);
/// Slots of each that are looked at.
const HOSTILE_SLOTS: usize = 2;

/// How late half of the healthy runs may begin, without optimisation, with the servers on the same machine.
const LATENESS_MEDIAN_MAX_US: i64 = 250_000;
/// How late any may begin: later, and its next slot would have come.
const LATENESS_MAX_US: i64 = 4_000_000;

/// Peak of resident memory of the probe: what it holds anyway, and far less than 8 MiB for each run at a time.
const PEAK_KIB_MAX: u64 = 192 * 1024;

/// What the samples of one check say.
#[derive(Debug, Default)]
struct Slots {
    /// Slot, how late the run began, outcome.
    rows: Vec<(i64, i64, String)>,
}

impl Slots {
    /// The newest `count` slots are `interval` apart, none is missing.
    fn is_whole(&self, count: usize, interval: Duration) -> bool {
        let mut slots: Vec<i64> = self.rows.iter().map(|(slot, ..)| *slot).collect();
        slots.sort_unstable();
        let step = i64::try_from(interval.as_micros()).unwrap();
        slots.len() >= count && slots.windows(2).all(|pair| pair[1] - pair[0] == step)
    }
}

/// An admin of the mesh.
struct Admin {
    channel: Channel,
    key: String,
}

impl Admin {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.key).parse().unwrap());
        request
    }

    /// Creates a check and returns its id.
    async fn create(&self, case: &Case, interval: Duration, timeout: Duration) -> String {
        let spec = check_from_json(&case.check(REGION, interval, timeout)).unwrap();
        let request = wire::CreateCheckRequest { definition: Some(check_definition(&spec)), ..Default::default() };
        let made = ChecksClient::new(self.channel.clone()).create_check(self.request(request)).await;
        made.unwrap_or_else(|status| panic!("{}: {status}", case.name)).into_inner().id
    }

    /// All samples, by check.
    async fn samples(&self) -> BTreeMap<String, Slots> {
        let request = wire::ListSamplesRequest { last_s: 300, limit: 100_000, ..Default::default() };
        let mut client = SamplesClient::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        let mut checks: BTreeMap<String, Slots> = BTreeMap::new();
        for row in client.list_samples(self.request(request)).await.unwrap().into_inner().samples {
            let lateness = row.started_at_us - row.slot_at_us;
            checks.entry(row.check_id).or_default().rows.push((row.slot_at_us, lateness, row.outcome));
        }
        checks
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn healthy_checks_keep_their_slots_beside_hostile_ones() {
    let _quiet = QUIET.lock().await;
    let lab = Lab::start().await;
    let hostile: Vec<Case> = cases(&lab).await.into_iter().step_by(HOSTILE_STEP).collect();
    let dir = tempfile::tempdir().unwrap();
    let roots = dir.path().join("ca.pem");
    fs::write(&roots, &lab.authority.pem).unwrap();
    let mut mesh = Mesh::start_trusting(&[], &roots).await;
    assert_eq!(mesh.cli().run(&["region", "create", "--name", REGION]).code, 0);
    mesh.add_probe_configured(REGION, "one", &format!("resolver = \"{}\"", lab.resolver));
    mesh.wait_for_probe(REGION, "live").await;
    let key = fs::read_to_string(mesh.dir.path().join("admin.key")).unwrap().trim().to_owned();
    let admin = Admin { channel: channel(&mesh, mesh.endpoints.admin).await, key };

    let web = target::http().await;
    let greeting = blurts(b"220 ready\r\n", Then::Hold).await;
    let mut healthy = Vec::new();
    for (nth, name) in HEALTHY.into_iter().enumerate() {
        let kind = if nth % 2 == 0 { http(web.address()) } else { tcp(greeting, "^220 ready") };
        let case = Case::healthy(name, kind);
        healthy.push(admin.create(&case, HEALTHY_INTERVAL, HEALTHY_INTERVAL).await);
    }
    let mut ids = Vec::new();
    for case in &hostile {
        ids.push(admin.create(case, HOSTILE_INTERVAL, case.timeout().min(HOSTILE_TIMEOUT)).await);
    }
    let samples = wait::until(PATIENCE, "enough slots of every check", async || {
        let samples = admin.samples().await;
        let has = |id: &String, count| samples.get(id).is_some_and(|slots| slots.rows.len() >= count);
        let all = healthy.iter().all(|id| has(id, HEALTHY_SLOTS)) && ids.iter().all(|id| has(id, HOSTILE_SLOTS));
        all.then_some(samples)
    })
    .await;
    assert!(mesh.probes[0].process.is_alive(), "the probe ended");
    judge(&samples, &healthy, &ids, &hostile);
    let peak = peak_kib(mesh.probes[0].process.id());
    assert!(peak <= PEAK_KIB_MAX, "the probe took {peak} KiB");
    let log = mesh.probes[0].process.log();
    assert!(!log.contains("panicked") && !log.contains("cut off"), "{log}");
}

fn judge(samples: &BTreeMap<String, Slots>, healthy: &[String], ids: &[String], hostile: &[Case]) {
    for (id, case) in ids.iter().zip(hostile) {
        let slots = &samples[id];
        assert!(slots.is_whole(HOSTILE_SLOTS, HOSTILE_INTERVAL), "{}, {}: {slots:?}", case.group, case.name);
    }
    let mut lateness = Vec::new();
    for id in healthy {
        let slots = &samples[id];
        assert!(slots.is_whole(HEALTHY_SLOTS, HEALTHY_INTERVAL), "{slots:?}");
        assert!(slots.rows.iter().all(|(.., outcome)| outcome == "ok"), "{slots:?}");
        lateness.extend(slots.rows.iter().map(|(_, lateness, _)| *lateness));
    }
    lateness.sort_unstable();
    let (median, most) = (lateness[lateness.len() / 2], lateness[lateness.len() - 1]);
    assert!(
        median <= LATENESS_MEDIAN_MAX_US && most <= LATENESS_MAX_US,
        "half late by {median} us, one by {most} us: {lateness:?}"
    );
}

/// Peak of resident memory of a process.
fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}
