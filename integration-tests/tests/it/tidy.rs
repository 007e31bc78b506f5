//! Taste as a test: crate edges, places of SQL, gRPC and clocks, sizes, and the file names in ARCHITECTURE.md.

mod documents;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use syn::spanned::Spanned as _;
use syn::visit::Visit;

/// Longest file.
const FILE_LINES_MAX: usize = 400;
/// Longest file that may stand on the list of exceptions.
const LISTED_FILE_LINES_MAX: usize = 600;
/// Longest function.
const FUNCTION_LINES_MAX: usize = 70;

/// Files above 400 lines, with the reason why splitting them would make them worse.
const LONG_FILES: &[(&str, &str)] = &[];

/// Functions above 70 lines, with the reason.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

/// Which crate may use which; the graph of ARCHITECTURE.md.
const CRATE_EDGES: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("scheduler", &["sonde-proto"]),
    ("probe", &["sonde-proto", "sonde-scheduler"]),
    ("collector", &["sonde-proto", "sonde-scheduler"]),
    ("ops", &["sonde-proto"]),
    ("ops/clickhouse-embedded", &[]),
];

/// A text, and the only places where it may stand.
struct Ban {
    text: &'static str,
    only_in: &'static [&'static str],
    reason: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        text: "sqlx::",
        only_in: &["collector/src/store/", "integration-tests/"],
        reason: "Postgres is spoken to in collector/src/store only",
    },
    Ban {
        text: "tonic::",
        only_in: &[
            "proto/src/wire",
            "proto/src/convert",
            "probe/src/link",
            "probe/src/identity",
            "collector/src/link",
            "collector/src/admin",
            "collector/src/app",
            "ops/src/client.rs",
            "integration-tests/",
            "benches/",
        ],
        reason: "gRPC stays at the rims",
    },
    Ban {
        text: "Instant::now()",
        only_in: &["clock.rs", "benches/", "integration-tests/"],
        reason: "only clock.rs reads a clock",
    },
    Ban {
        text: "SystemTime::now()",
        only_in: &["clock.rs", "benches/", "integration-tests/"],
        reason: "only clock.rs reads a clock",
    },
    Ban {
        text: "Workspace::from_verified(",
        only_in: &["collector/src/authz", "collector/src/admin/auth"],
        reason: "a workspace comes from a verified key",
    },
    Ban {
        text: "Workspace::system(",
        only_in: &[
            "collector/src/authz",
            "collector/src/admin/auth",
            "collector/src/tasks/",
            "collector/src/bootstrap",
            "collector/src/link/",
            "integration-tests/",
        ],
        reason: "the system acts as a workspace in tasks, at bootstrap and for enrolled probes only",
    },
    Ban { text: concat!("todo", "!("), only_in: &[], reason: "nothing unfinished is committed" },
    Ban { text: concat!("#[igno", "re"), only_in: &[], reason: "a test runs or does not exist" },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every Rust file that belongs to the project, relative to its root, with its text.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let relative = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.push((relative, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 50, "the walk lost its way: {} files", found.len());
    found.sort();
    found
}

fn complain(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}:\n  {}", faults.join("\n  "));
}

#[test]
fn crates_use_only_what_the_graph_allows() {
    let mut faults = Vec::new();
    for (folder, allowed) in CRATE_EDGES {
        let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        for section in ["dependencies", "build-dependencies"] {
            let Some(section) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            for name in section.keys().filter(|name| name.starts_with("sonde-")) {
                if !allowed.contains(&name.as_str()) {
                    faults.push(format!("{folder} uses {name}"));
                }
            }
        }
        if manifest.get("lints").is_none() {
            faults.push(format!("{folder} does not take the workspace's lints"));
        }
    }
    complain("crate edges", &faults);
}

/// rustls is no I/O: it says whether a key is that of a certificate.
#[test]
fn the_pure_crates_bring_no_io() {
    for package in ["sonde-scheduler", "sonde-proto"] {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--locked", "-p", package, "-e", "normal", "--prefix", "none"])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(tree.contains(package), "{tree}");
        for banned in ["tokio ", "tonic ", "hyper ", "sqlx ", "rand ", "prost "] {
            assert!(!tree.lines().any(|line| line.starts_with(banned)), "{package} brings {banned}:\n{tree}");
        }
    }
}

/// Machines that a simulator drives: facts in, commands out, time as an argument.
const MACHINES: &[&str] = &[
    "collector/src/ledger/",
    "collector/src/rollup/",
    "collector/src/ingest/admit.rs",
    "collector/src/ingest/batch.rs",
    "collector/src/ingest/known.rs",
    "collector/src/ingest/resolve.rs",
];

#[test]
fn machines_do_no_io() {
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, text) in sources() {
        let Some(machine) = MACHINES.iter().find(|machine| path.starts_with(**machine)) else { continue };
        seen.insert(*machine);
        for means in ["crate::store", "crate::clickhouse", "crate::clock", "tokio", "std::fs", "std::net"] {
            if text.contains(means) {
                faults.push(format!("{path} contains {means}: a machine does no I/O and reads no clock"));
            }
        }
    }
    assert_eq!(seen.len(), MACHINES.len(), "a machine has moved: {seen:?}");
    complain("machines", &faults);
}

#[test]
fn each_thing_stays_in_its_place() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        if path.contains("tests/it/tidy") {
            continue;
        }
        for ban in BANS {
            if ban.only_in.iter().any(|place| path.starts_with(place) || path.ends_with(place)) {
                continue;
            }
            for (number, line) in text.lines().enumerate() {
                if line.contains(ban.text) && !line.trim_start().starts_with("//") {
                    faults.push(format!("{path}:{}: `{}`: {}", number + 1, ban.text, ban.reason));
                }
            }
        }
    }
    complain("things out of place", &faults);
}

/// What opens a socket or resolves a name. In the code of checks, only the guard does either.
const DIALS: [&str; 8] = [
    "TcpStream::connect",
    "net::connect(",
    "UdpSocket::bind",
    "TcpSocket",
    "Socket::new",
    "::from_std(",
    "lookup_host",
    "to_socket_addrs",
];

#[test]
fn no_check_dials_past_the_guard() {
    let is_of_checks = |path: &str| path.starts_with("probe/src/check/") && !path.contains("tests");
    let sources: Vec<_> = sources().into_iter().filter(|(path, _)| is_of_checks(path)).collect();
    assert!(sources.len() > 20, "the code of checks has moved");
    let mut faults = Vec::new();
    for (path, text) in sources {
        // Tests beside the code stand at the end of a file.
        let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        faults.extend(DIALS.iter().filter(|dial| own.contains(**dial)).map(|dial| format!("{path}: `{dial}`")));
    }
    complain("dials past probe/src/guard", &faults);
}

/// Layers of the collector: a module uses only modules of a later layer, or its own.
const COLLECTOR_LAYERS: &[&[&str]] = &[
    &["main"],
    &["app"],
    &["bootstrap", "tasks", "link", "web"],
    &["admin"],
    &["ingest", "ledger"],
    &["clickhouse"],
    &["live"],
    &["fleet"],
    &["store"],
    &["pki"],
    &["authz"],
    &["seal"],
    &["config"],
    &["rollup"],
    &["clock"],
    &["stop"],
];

#[test]
fn the_collector_is_built_in_layers() {
    let layer_of: BTreeMap<&str, usize> = COLLECTOR_LAYERS
        .iter()
        .enumerate()
        .flat_map(|(layer, names)| names.iter().map(move |name| (*name, layer)))
        .collect();
    let mut faults = BTreeSet::new();
    for (path, text) in sources() {
        let Some(inner) = path.strip_prefix("collector/src/") else { continue };
        let module = inner.split(['/', '.']).next().unwrap();
        if module == "lib" {
            continue;
        }
        let Some(own) = layer_of.get(module) else {
            faults.insert(format!("module {module} has no layer: add it to COLLECTOR_LAYERS"));
            continue;
        };
        for used in text.split("crate::").skip(1) {
            let name: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let Some(layer) = layer_of.get(name.as_str()) else { continue };
            let is_sideways = layer == own && name != module;
            if layer < own || is_sideways {
                faults.insert(format!("{path} uses {name}, which lies above or beside it"));
            }
        }
    }
    complain("layers", &faults.into_iter().collect::<Vec<_>>());
}

#[test]
fn files_are_short_and_say_what_they_own() {
    let mut faults = Vec::new();
    let mut listed: BTreeSet<String> = LONG_FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if !text.starts_with("//!") {
            faults.push(format!("{path} does not begin with what it owns (`//! ...`)"));
        }
        if lines <= FILE_LINES_MAX {
            continue;
        }
        if !listed.remove(&path) {
            faults.push(format!("{path} has {lines} lines, {FILE_LINES_MAX} are allowed: split it by decision"));
        } else if lines > LISTED_FILE_LINES_MAX {
            faults.push(format!("{path} has {lines} lines; even a listed file stops at {LISTED_FILE_LINES_MAX}"));
        }
    }
    faults.extend(listed.into_iter().map(|path| format!("{path} is on the list of long files, but is not long")));
    complain("files", &faults);
}

/// Collects the functions of one file with their lengths.
#[derive(Default)]
struct Functions {
    found: Vec<(String, usize)>,
}

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line - signature.span().start().line + 1;
        self.found.push((signature.ident.to_string(), lines));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }
}

#[test]
fn functions_fit_on_a_screen() {
    let mut faults = Vec::new();
    let mut listed: BTreeSet<(String, String)> =
        LONG_FUNCTIONS.iter().map(|(path, name, _)| ((*path).to_owned(), (*name).to_owned())).collect();
    for (path, text) in sources() {
        let file = syn::parse_file(&text).unwrap_or_else(|fault| panic!("{path}: {fault}"));
        let mut functions = Functions::default();
        functions.visit_file(&file);
        for (name, lines) in functions.found {
            if lines > FUNCTION_LINES_MAX && !listed.remove(&(path.clone(), name.clone())) {
                faults.push(format!("{path}: {name} has {lines} lines, {FUNCTION_LINES_MAX} are allowed"));
            }
        }
    }
    faults
        .extend(listed.into_iter().map(|entry| format!("{entry:?} is on the list of long functions, but is not long")));
    complain("functions", &faults);
}

#[test]
fn every_file_is_part_of_the_program() {
    let mut faults = Vec::new();
    for (path, _) in sources() {
        let file = Path::new(&path);
        let stem = file.file_stem().unwrap().to_str().unwrap();
        let folder = file.parent().unwrap();
        let is_root = ["main", "lib", "build"].contains(&stem) || folder.ends_with("bin");
        if is_root {
            continue;
        }
        let (name, parents) = if stem == "mod" {
            let name = folder.file_name().unwrap().to_str().unwrap();
            (name, parents_of(folder.parent().unwrap()))
        } else {
            (stem, parents_of(folder))
        };
        let declared = parents.iter().any(|parent| {
            fs::read_to_string(root().join(parent)).is_ok_and(|text| {
                text.lines().any(|line| {
                    let line = line.trim();
                    line.ends_with(&format!("mod {name};")) || line.contains(&format!("path = \"{name}.rs\""))
                })
            })
        });
        if !declared {
            faults.push(format!("{path} is not declared by any of {parents:?}"));
        }
    }
    complain("dead files", &faults);
}

/// Files that may declare a module lying in `folder`.
fn parents_of(folder: &Path) -> Vec<PathBuf> {
    let mut parents: Vec<PathBuf> = ["mod.rs", "lib.rs", "main.rs"].iter().map(|name| folder.join(name)).collect();
    parents.push(folder.with_extension("rs"));
    // `#[path]` modules of tests are declared by a neighbour.
    let neighbours = fs::read_dir(root().join(folder)).unwrap().flatten().map(|entry| folder.join(entry.file_name()));
    parents.extend(neighbours.filter(|path| path.extension().is_some_and(|ending| ending == "rs")));
    parents
}
