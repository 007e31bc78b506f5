//! Faults at random moments in a laboratory of real processes: every slot is accounted for, and nothing is left behind.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use sonde_integration_tests::process::program;
use sonde_integration_tests::wait;

/// Patience with a laboratory that starts, and with one that ends.
const PATIENCE: Duration = Duration::from_secs(60);
/// What one run of the tests must survive.
const KILLS: u64 = 10;

fn chaos(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("sonde-chaos"));
    command.arg("run").args(arguments).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn ten_kills_cost_no_slot_that_is_not_accounted_for() {
    let dir = tempfile::tempdir().unwrap();
    let (report, log, checkpoint) =
        (dir.path().join("report.json"), dir.path().join("log.md"), dir.path().join("checkpoint.json"));
    let kills = KILLS.to_string();
    let mut run = chaos(&["--for", "30s", "--kills", &kills, "--disturbances", "5", "--rate", "300"]);
    run.arg("--report").arg(&report).arg("--log").arg(&log).arg("--checkpoint").arg(&checkpoint);
    // The run prints its seed; a failed test shows it with everything else that was said.
    let output = run.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));

    let verdicts: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    let verdict = &verdicts[0];
    let killed: u64 = verdict["kills"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(killed, KILLS, "{verdict}");
    let number = |name: &str| verdict[name].as_u64().unwrap_or_else(|| panic!("{name}: {verdict}"));
    assert!(number("expected") >= 30 * 300, "{verdict}");
    assert_eq!(number("stored") + number("gaps"), number("expected"), "{verdict}");
    assert_eq!((number("unaccounted"), number("duplicates")), (0, 0), "{verdict}");
    assert!(number("minutes") > 0 && number("boots") >= 4, "the ledger and every life were compared: {verdict}");
    assert_eq!(fs::read_to_string(&log).unwrap().lines().filter(|line| line.contains("accounted for")).count(), 1);

    assert!(!checkpoint.exists(), "the same command is a new run the next time");
}

#[test]
fn three_samples_that_vanish_fail_the_run() {
    let output =
        chaos(&["--for", "6s", "--kills", "0", "--disturbances", "0", "--rate", "20", "--sabotage"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("WRONG: 3 slots are missing"), "{}", said(&output));
}

/// Ends a run that a failed test leaves.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may be gone already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Processes of which a word of the command line contains `mark`.
fn processes(mark: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(mark)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_leaves_nothing_behind() {
    let seed = format!("77{:08}", std::process::id());
    let dir = tempfile::tempdir().unwrap();
    let log = fs::File::create(dir.path().join("log")).unwrap();
    let mut run = Killed(chaos(&["--seed", &seed, "--for", "60s", "--rate", "20"]).stderr(log).spawn().unwrap());
    let begun = |dir: &Path| fs::read_to_string(dir.join("log")).is_ok_and(|text| text.contains("up after"));
    wait::until(2 * PATIENCE, "the laboratory is up", async || {
        assert!(run.0.try_wait().unwrap().is_none(), "{}", fs::read_to_string(dir.path().join("log")).unwrap());
        begun(dir.path()).then_some(())
    })
    .await;
    assert!(processes(&seed) >= 3, "the program, its first process and the driver carry the seed");
    run.0.kill().unwrap();
    run.0.wait().unwrap();
    wait::until(PATIENCE, "every process is gone", async || (processes(&seed) == 0).then_some(())).await;
    assert!(!Path::new("/dev/shm/lab").exists(), "its files were in a file system of its own");
}

#[test]
fn senseless_options_are_refused_in_one_sentence() {
    for (arguments, word) in [
        (&["--collectors", "0"][..], "--collectors"),
        (&["--rate", "1"], "--rate"),
        (&["--faults", "drop"], "--kills"),
        (&["--from", "3", "--to", "3"], "--to"),
        (&["--for", "1s"], "--for"),
    ] {
        let output = chaos(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(word), "{arguments:?}: {}", said(&output));
    }
    let nonsense = chaos(&["--for", "soon"]).output().unwrap();
    assert_eq!(nonsense.status.code(), Some(2), "{}", said(&nonsense));
}

#[test]
fn missing_rights_fail_in_one_sentence() {
    // A program that finds itself in a name space without room for further ones.
    let script = "echo 0 >/proc/sys/user/max_net_namespaces && exec \"$0\" run --for 5s --kills 0";
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "sh", "-c", script]).arg(program("sonde-chaos"));
    let output = unshare.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(said(&output).lines().count(), 1, "{}", said(&output));
    assert!(said(&output).contains("run as root"), "{}", said(&output));
}
