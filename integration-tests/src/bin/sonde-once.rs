//! Runs one check once, in a process of its own, and says what it saw and what it cost. Never shares its memory with a
//! server that it measures, so that every byte of the cost is the run's own.
//!
//! The check and its surroundings come as JSON on standard input, the account leaves as JSON on standard output. Costs are
//! the kernel's numbers: the peak of resident memory above what the process had before the run, which holds the pages of code
//! that the run was first to touch as well, and the processor time of the one thread that there is,
//! beside the time that it waited for a processor.
#![expect(clippy::disallowed_methods, reason = "it says how long a real run took")]

use std::fs;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::time::{ClockId, clock_gettime};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sonde_probe::check::{self, Context, Observation};
use sonde_probe::clock::Clock;
use sonde_probe::guard::Guard;
use sonde_proto::convert::check_from_json;
use sonde_proto::model::address::Policy;
use sonde_proto::model::check::CheckSpec;
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::sample::Outcome;
use tokio::runtime::Builder;

/// What to run.
#[derive(Deserialize)]
struct Order {
    /// The check, as the collector stores it.
    check: Value,
    /// Who resolves names.
    resolver: SocketAddr,
    /// A certificate to trust, DER in standard base64.
    root_base64: String,
}

/// What came of it.
#[derive(Serialize)]
struct Account {
    /// `ok`, or the class of the failure.
    ending: &'static str,
    /// From the first poll of the run to its end.
    took_us: u64,
    /// How much of that the run could have gone on, but other threads of the machine had its processors.
    starved_us: u64,
    /// Sum of the phases.
    phases_us: u64,
    /// Total of the observation.
    total_us: u64,
    /// Peak of resident memory above what there was before.
    extra_kib: u64,
    /// Processor time of the longest stretch that the run did not let others go on.
    stretch_us: u64,
    /// Processor time of all.
    cpu_us: u64,
    /// Sockets that were still open when the run had ended.
    sockets_left: u64,
}

fn main() -> anyhow::Result<()> {
    let order: Order = serde_json::from_reader(std::io::stdin()).context("standard input is not an order")?;
    let spec = check_from_json(&order.check)?;
    let root = STANDARD.decode(&order.root_base64).context("root_base64")?;
    let policy = Policy { allow: vec!["127.0.0.0/8".parse()?], ..Policy::default() };
    let guard = Guard::new(policy, Some(order.resolver));
    let context = Context::new(Clock::system(), guard, vec![CertificateDer::from(root)])?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let account = runtime.block_on(account(&spec, &context))?;
    println!("{}", serde_json::to_string(&account)?);
    Ok(())
}

async fn account(spec: &CheckSpec, context: &Context) -> anyhow::Result<Account> {
    let before = sockets()?;
    // Sets the peak to what there is now.
    fs::write("/proc/self/clear_refs", "5").context("/proc/self/clear_refs")?;
    let (resident, starved) = (resident_kib("VmRSS:")?, starved()?);
    let (cpu, begin) = (cpu(), Instant::now());
    let (observation, stretch) = run(spec, context).await;
    let took = begin.elapsed();
    let cpu = cpu_since(cpu);
    let starved = self::starved()?.saturating_sub(starved);
    let peak = resident_kib("VmHWM:")?;
    Ok(Account {
        ending: match (observation.outcome, observation.error) {
            (Outcome::Ok, None) => "ok",
            (_, error) => error.map_or("neither ok nor failed", ErrorClass::name),
        },
        took_us: micros(took),
        starved_us: micros(starved),
        phases_us: observation.phases.sum_us(),
        total_us: u64::from(observation.total_us),
        extra_kib: peak.saturating_sub(resident),
        stretch_us: micros(stretch),
        cpu_us: micros(cpu),
        sockets_left: sockets()?.saturating_sub(before),
    })
}

/// Runs the check, and finds the longest stretch of processor time between two points where others can go on.
async fn run(spec: &CheckSpec, context: &Context) -> (Observation, Duration) {
    let order = check::Order {
        kind: &spec.kind,
        reach: spec.reach,
        timeout: spec.timeout,
        degraded_after: spec.degraded_after,
        assertions: &spec.assertions,
    };
    let mut run = pin!(check::run(order, context));
    let mut longest = Duration::ZERO;
    let observation = poll_fn(|cx| {
        let begin = cpu();
        let polled = run.as_mut().poll(cx);
        longest = longest.max(cpu_since(begin));
        polled
    })
    .await;
    (observation, longest)
}

/// Processor time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// How long the one thread has waited for a processor so far.
fn starved() -> anyhow::Result<Duration> {
    let text = fs::read_to_string("/proc/self/schedstat").context("/proc/self/schedstat")?;
    let waited = text.split_whitespace().nth(1).context("the kernel tells no time spent waiting for a processor")?;
    Ok(Duration::from_nanos(waited.parse()?))
}

fn cpu_since(begin: Duration) -> Duration {
    cpu().saturating_sub(begin)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A line of the process's status in KiB.
fn resident_kib(name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)).context("the kernel tells no resident memory")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Sockets of this process.
fn sockets() -> anyhow::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir("/proc/self/fd").context("/proc/self/fd")? {
        let target = fs::read_link(entry?.path());
        count += u64::from(target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:")));
    }
    Ok(count)
}
