//! Documents name files that exist, decisions have their parts, and every line of the protocol says what it means.

use std::collections::BTreeSet;
use std::fs;

use sonde_proto::model::error_class::ErrorClass;

use super::{complain, root};

#[test]
fn the_files_named_in_the_documents_exist() {
    let mut faults = Vec::new();
    for document in ["ARCHITECTURE.md", "README.md", "SECURITY.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let named = text.split('`').skip(1).step_by(2).filter(|name| {
            // Written by `make bench`, kept out of the repository.
            *name != "benches/report.json"
                && name.contains('/')
                && !name.contains(' ')
                && !name.starts_with(['.', '/', 'h', '-', '<', '~'])
        });
        let mut count = 0;
        for name in named {
            count += 1;
            if !root().join(name).exists() {
                faults.push(format!("{document} names `{name}`, which does not exist"));
            }
        }
        if document == "ARCHITECTURE.md" {
            assert!(count > 20, "{document} names only {count} files: the walks are gone");
        }
    }
    complain("documents", &faults);
}

/// Whoever is woken by a class of error finds out what it means.
#[test]
fn every_class_of_error_is_explained() {
    let guide = fs::read_to_string(root().join("docs/guide/errors.md")).unwrap();
    let explained: Vec<&str> = guide.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let known: Vec<&str> = ErrorClass::ALL.iter().map(|class| class.name()).collect();
    let missing =
        known.iter().filter(|name| !explained.contains(name)).map(|name| format!("`{name}` is not explained"));
    let unknown = explained.iter().filter(|name| !known.contains(name)).map(|name| format!("`{name}` does not exist"));
    complain("docs/guide/errors.md", &missing.chain(unknown).collect::<Vec<_>>());
}

#[test]
fn every_line_of_the_protocol_is_documented() {
    let mut faults = Vec::new();
    let mut lines_seen = 0;
    for entry in fs::read_dir(root().join("proto/sonde/v1")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let mut is_documented = false;
        for (number, line) in text.lines().map(str::trim).enumerate() {
            let is_declaration = ["message ", "service ", "rpc ", "oneof "].iter().any(|word| line.starts_with(word));
            let is_field = line.ends_with(';') && line.contains(" = ") && !line.starts_with("syntax");
            // The name of a oneof says nothing that its message does not say.
            if (is_declaration && !line.starts_with("oneof ")) || is_field {
                lines_seen += 1;
                if !is_documented {
                    faults.push(format!("{}:{}: `{line}` has no comment", path.display(), number + 1));
                }
            }
            is_documented = line.starts_with("//");
        }
    }
    assert!(lines_seen > 200, "only {lines_seen} declarations were found");
    complain("protocol", &faults);
}

#[test]
fn decisions_are_numbered_and_have_a_status() {
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(root().join("docs/adr")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(number) = name.get(..4).and_then(|digits| digits.parse::<u32>().ok()) else { continue };
        assert!(numbers.insert(number), "two decisions have the number {number}");
        let text = fs::read_to_string(&path).unwrap();
        for part in ["Status:", "## Context", "## Decision", "## Price", "## Revisit"] {
            assert!(text.contains(part), "{name} has no `{part}`");
        }
    }
    assert_eq!(numbers.iter().copied().max(), Some(u32::try_from(numbers.len()).unwrap()), "a number is missing");
}
