//! The README's commands do what it says: they are run as they stand, against this build.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The first shell block below the heading.
fn block_below(text: &str, heading: &str) -> String {
    let below = text.split_once(heading).unwrap_or_else(|| panic!("no {heading}")).1;
    let block = below.split_once("```sh\n").expect("a shell block").1;
    block.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_commands_of_the_readme_work() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("README.md")).unwrap();
    let script = block_below(&text, "## Try it");
    assert!(script.contains("make up") && script.contains("make down"), "{script}");
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("mesh");
    // The block as it stands, but with a folder and the build of this test, so that a mesh of the developer is left alone.
    let script = script.replace(". .sonde/env", ". \"$DIR/env\"");
    let output = Command::new("sh")
        .args(["-euxc", &script])
        .env("DIR", &dir)
        .env("PROFILE", "dev")
        .current_dir(root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        // Leave nothing running, whatever failed.
        let _ = Command::new("make").arg("down").env("DIR", &dir).env("PROFILE", "dev").current_dir(root).output();
    }
    if let Ok(data) = fs::read_link(dir.join("postgres")) {
        let _ = fs::remove_dir_all(data.parent().unwrap());
    }
    assert!(output.status.success(), "{said}\n{log}");
    for region in ["eu-west", "us-east", "ap-south"] {
        assert!(said.contains(region), "{region}: {said}\n{log}");
    }
    assert!(said.contains("ttfb") && said.contains("stopped"), "{said}");
}
