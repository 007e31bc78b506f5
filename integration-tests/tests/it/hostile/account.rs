//! Runs a case in a process of its own, and judges what it cost. Never knows what the server of a case does.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use sonde_integration_tests::process::program;
use sonde_proto::model::error_class::ErrorClass;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::case::{Case, Lab};

/// What a run may take beyond its timeout.
const OVERTIME: Duration = Duration::from_secs(1);

/// What a run may take of memory.
const EXTRA_KIB_MAX: u64 = 8 * 1024;

/// Processor time after which a run has let others go on. Without optimisation signatures and patterns take many
/// times as long, and more where two threads share a core.
const STRETCH_MAX: Duration = Duration::from_millis(if cfg!(debug_assertions) { 5_000 } else { 200 });

/// What `sonde-once` says.
#[derive(Debug, Deserialize)]
pub(super) struct Account {
    ending: String,
    took_us: u64,
    starved_us: u64,
    phases_us: u64,
    total_us: u64,
    extra_kib: u64,
    stretch_us: u64,
    cpu_us: u64,
    sockets_left: u64,
}

/// Runs `case` once.
pub(super) async fn measure(lab: &Lab, case: &Case) -> Account {
    let mut command = Command::new(program("sonde-once"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("sonde-once can be started");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(case.order(lab).to_string().as_bytes()).await.expect("sonde-once listens");
    drop(stdin);
    let output = child.wait_with_output().await.expect("sonde-once ends");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|fault| {
        panic!("{}, {}: {fault}: {}", case.group, case.name, String::from_utf8_lossy(&output.stderr))
    })
}

/// Heads of the columns of [`Account::line`].
pub(super) const HEAD: &str =
    "group      ending                 took ms  starved ms  extra KiB  stretch ms  cpu ms  case";

impl Account {
    /// A line of the table.
    pub(super) fn line(&self, case: &Case) -> String {
        format!(
            "{:<10} {:<22} {:>7}  {:>10}  {:>9}  {:>10}  {:>6}  {}",
            case.group,
            self.ending,
            self.took_us / 1_000,
            self.starved_us / 1_000,
            self.extra_kib,
            self.stretch_us / 1_000,
            self.cpu_us / 1_000,
            case.name
        )
    }

    /// Whatever is not as it must be.
    pub(super) fn faults(&self, case: &Case) -> Vec<String> {
        let expected = case.ends.map_or("ok", ErrorClass::name);
        // A machine that has no processor for the run makes it late, whatever the run does.
        let longest = u64::try_from((case.timeout() + OVERTIME).as_micros()).unwrap_or(u64::MAX) + self.starved_us;
        let stretch_max = u64::try_from(STRETCH_MAX.as_micros()).unwrap_or(u64::MAX);
        let mut faults = Vec::new();
        let mut demand = |is_kept: bool, what: String| {
            if !is_kept {
                faults.push(format!("{}, {}: {what}", case.group, case.name));
            }
        };
        let is_other = case.or.is_some_and(|class| self.ending == class.name());
        demand(self.ending == expected || is_other, format!("ended as {}, not as {expected}", self.ending));
        demand(self.took_us <= longest, format!("took {} us of {longest}", self.took_us));
        demand(self.total_us <= longest, format!("says that it took {} us of {longest}", self.total_us));
        demand(self.phases_us <= self.total_us, format!("phases of {} us in {} us", self.phases_us, self.total_us));
        demand(self.extra_kib <= EXTRA_KIB_MAX, format!("took {} KiB of {EXTRA_KIB_MAX}", self.extra_kib));
        demand(self.stretch_us <= stretch_max, format!("held its thread for {} us", self.stretch_us));
        demand(self.sockets_left == 0, format!("left {} sockets open", self.sockets_left));
        faults
    }
}
