//! The README's commands do what it says: they are run as they stand, against this build. And the set-up that it
//! promises knows every program that tests run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sonde_integration_tests::process::program;

use crate::local_mesh::remove_what_lies_outside;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The first shell block below the heading.
fn block_below(text: &str, heading: &str) -> String {
    let below = text.split_once(heading).unwrap_or_else(|| panic!("no {heading}")).1;
    let block = below.split_once("```sh\n").expect("a shell block").1;
    block.split_once("```").expect("its end").0.to_owned()
}

/// A mesh of `make` in a folder of its own, so that the developer's is left alone; nothing is left of it afterwards.
struct Made {
    folder: tempfile::TempDir,
}

impl Made {
    fn dir(&self) -> PathBuf {
        self.folder.path().join("mesh")
    }

    /// Runs a script as a developer's shell would, against the programs of this test.
    fn sh(&self, script: &str) -> Output {
        let mut command = Command::new("sh");
        command.args(["-euxc", script]).current_dir(root());
        // What cargo tells its tests, an outer make its scripts and a running mesh its users is not in a new shell.
        for (name, _) in std::env::vars_os() {
            if is_foreign(&name.to_string_lossy()) {
                command.env_remove(&name);
            }
        }
        let built = program("sonde");
        let built = built.parent().unwrap();
        let profile = built.file_name().unwrap().to_str().unwrap();
        command.env("CARGO_TARGET_DIR", built.parent().unwrap());
        command.env("PROFILE", if profile == "debug" { "dev" } else { profile });
        command.env("DIR", self.dir()).output().unwrap()
    }
}

/// Whether a variable would lead a developer's script elsewhere, or have it build anew.
fn is_foreign(name: &str) -> bool {
    let is_cargo =
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_", "CARGO_TARGET_TMP"];
    let is_make = ["MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "CARGO_MAKEFLAGS", "DETACH"];
    let is_setting = ["SONDE_PG_BIN", "SONDE_LIBCHDB"];
    is_make.contains(&name)
        || is_cargo.iter().any(|start| name.starts_with(start))
        || (name.starts_with("SONDE_") && !is_setting.contains(&name))
}

impl Drop for Made {
    fn drop(&mut self) {
        // Nothing keeps running, whatever failed.
        let _ = self.sh("make down");
        remove_what_lies_outside(&self.dir());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_commands_of_the_readme_work() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let script = block_below(&readme, "## Try it");
    assert!(script.contains("make up") && script.contains("make down"), "{script}");
    let made = Made { folder: tempfile::tempdir().unwrap() };
    // The block as it stands, but for the folder.
    let output = made.sh(&script.replace(". .sonde/env", ". \"$DIR/env\""));
    let (said, log) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}\n{log}");
    assert!(!log.contains("Compiling"), "`cargo build --workspace --bins` comes before the tests: {log}");
    for region in ["eu-west", "us-east", "ap-south"] {
        assert!(said.contains(region), "{region}: {said}\n{log}");
    }
    assert!(said.contains("ttfb") && said.contains("stopped"), "{said}");
}

#[test]
fn make_down_says_that_nothing_runs_where_nothing_was_started() {
    let made = Made { folder: tempfile::tempdir().unwrap() };
    let output = made.sh("make down && make down");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "nothing is running\nnothing is running\n");
    assert!(!made.dir().exists(), "nothing is made by stopping");
}

/// Rust files in a folder and below it.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_set_up_installs_every_program_that_tests_run() {
    // In every Debian and Ubuntu, or what the reader of the README has used already.
    const PRESENT: [&str; 4] = ["sh", "sleep", "true", "make"];
    let set_up = fs::read_to_string(root().join("ops/setup.sh")).unwrap();
    let installed: BTreeSet<&str> =
        set_up.lines().filter_map(|line| line.trim().strip_prefix("need ")).flat_map(str::split_whitespace).collect();
    let mut files = Vec::new();
    for folder in ["integration-tests", "probe/src", "collector/src", "ops/src", "ops/clickhouse-embedded/src"] {
        sources(&root().join(folder), &mut files);
    }
    let mut run = BTreeSet::new();
    for file in files.iter().filter(|file| !file.ends_with("it/readme.rs") && !file.ends_with("mesh/postgres.rs")) {
        let source = fs::read_to_string(file).unwrap();
        run.extend(source.split("Command::new(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    assert!(run.contains("openssl") && run.contains("curl"), "the search lost its way: {run:?}");
    let forgotten: Vec<&String> =
        run.iter().filter(|name| !PRESENT.contains(&name.as_str()) && !installed.contains(name.as_str())).collect();
    assert!(forgotten.is_empty(), "ops/setup.sh does not install {forgotten:?}");
}
