//! The configuration files of the local mesh and the environment file for shells. Written only when they change.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::engine::Server;
use super::layout::{Layout, Ports, write_private};
use crate::error::Result;

/// Quotes a string for TOML; JSON's basic strings are valid there.
fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Writes `text` when the file differs; says whether it did.
fn write_changed(path: &Path, text: &str) -> Result<bool> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    write_private(path, text.as_bytes())?;
    Ok(true)
}

/// The collector's file. Says whether it changed.
pub(super) fn collector(layout: &Layout, ports: Ports, postgres_url: &str, clickhouse: &Server) -> Result<bool> {
    let folder = layout.folder("collector")?;
    let mut access = String::new();
    if let Some(user) = &clickhouse.user {
        access.push_str(&format!("user = {}\n", quoted(user)));
    }
    let password_file = folder.join("clickhouse-password");
    let mut changed = false;
    if let Some(password) = &clickhouse.password {
        changed = write_changed(&password_file, password)?;
        access.push_str(&format!("password_file = {}\n", quoted_path(&password_file)));
    }
    let text = format!(
        "# Written by `sonde mesh up`; changes are overwritten.\n\
         collector_id = \"local-1\"\n\
         trust_domain = \"sonde.internal\"\n\
         data_dir = {data}\n\n\
         [listen]\n\
         mesh = \"127.0.0.1:{mesh}\"\n\
         enrol = \"127.0.0.1:{enrol}\"\n\
         admin = \"127.0.0.1:{admin}\"\n\
         web = \"127.0.0.1:{web}\"\n\n\
         [postgres]\n\
         url = {postgres}\n\n\
         [clickhouse]\n\
         url = {clickhouse}\n\
         database = \"sonde\"\n{access}",
        data = quoted_path(&folder),
        mesh = ports.mesh,
        enrol = ports.enrol,
        admin = ports.admin,
        web = ports.web,
        postgres = quoted(postgres_url),
        clickhouse = quoted(&clickhouse.url),
    );
    Ok(write_changed(&folder.join("collector.toml"), &text)? || changed)
}

/// The file of one probe; returns its path. Local probes may measure loopback, because their own file says so.
pub(super) fn probe(layout: &Layout, name: &str) -> Result<PathBuf> {
    let folder = layout.folder(name)?;
    let text = format!(
        "# Written by `sonde mesh up`; changes are overwritten.\n\
         data_dir = {data}\n\
         join_string_file = {join}\n\
         allow_networks = [\"127.0.0.0/8\", \"::1/128\"]\n\
         extra_roots = [{ca}]\n",
        data = quoted_path(&folder),
        join = quoted_path(&folder.join("join")),
        ca = quoted_path(&layout.path("demo/ca.pem")),
    );
    let path = folder.join("probe.toml");
    write_changed(&path, &text)?;
    Ok(path)
}

/// The identity of a probe that joined on other ports, as it must be now; `None` when nothing has moved.
pub(super) fn moved_probe(folder: &Path, ports: Ports) -> Result<Option<String>> {
    let Ok(text) = fs::read_to_string(folder.join("state.json")) else { return Ok(None) };
    // A damaged file is for the probe to complain about.
    let Ok(mut state) = serde_json::from_str::<serde_json::Value>(&text) else { return Ok(None) };
    let mut has_moved = false;
    for (field, port) in [("mesh_address", ports.mesh), ("enrol_address", ports.enrol)] {
        let address = serde_json::Value::String(format!("127.0.0.1:{port}"));
        if let Some(slot) = state.get_mut(field).filter(|slot| **slot != address) {
            *slot = address;
            has_moved = true;
        }
    }
    if !has_moved {
        return Ok(None);
    }
    Ok(Some(serde_json::to_string_pretty(&state).map_err(anyhow::Error::from)?))
}

/// The environment file: `. .sonde/env` makes `sonde` work in this shell.
pub(super) fn env_file(layout: &Layout, ports: Ports, clickhouse_url: &str) -> Result<()> {
    let mut text = String::from("# POSIX shell: `. .sonde/env`\n");
    let mut export = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "export {name}={}", shell_quoted(value));
    };
    export("SONDE_ENDPOINT", &format!("https://127.0.0.1:{}", ports.admin));
    export("SONDE_MESH_ENDPOINT", &format!("https://127.0.0.1:{}", ports.mesh));
    export("SONDE_WEB", &format!("http://127.0.0.1:{}", ports.web));
    export("SONDE_CLICKHOUSE", clickhouse_url);
    export("SONDE_DEMO", &format!("http://127.0.0.1:{}", ports.demo));
    export("SONDE_CA", &layout.path("collector/ca.pem").to_string_lossy());
    export("SONDE_KEY_FILE", &layout.path("admin.key").to_string_lossy());
    let bin = shell_quoted(&layout.bin.to_string_lossy());
    let _ = writeln!(text, "case \":$PATH:\" in *:{bin}:*) ;; *) export PATH={bin}:\"$PATH\" ;; esac");
    write_changed(&layout.path("env"), &text)?;
    Ok(())
}

/// The text as a person would type it in a shell: quoted only when it has to be.
pub(super) fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) { text.to_owned() } else { shell_quoted(text) }
}

/// Quotes for a POSIX shell.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_paths_are_quoted() {
        assert_eq!(shell_quoted("a'b $x"), "'a'\\''b $x'");
        assert_eq!(quoted("a\"b\\"), "\"a\\\"b\\\\\"");
        assert_eq!(shell_word("./env"), "./env");
        assert_eq!(shell_word("we ird/env"), "'we ird/env'");
    }

    #[test]
    fn a_probe_follows_the_ports() {
        let dir = tempfile::tempdir().unwrap();
        let ports = Ports { mesh: 1, enrol: 2, admin: 3, web: 4, clickhouse: 5, demo: 6 };
        assert_eq!(moved_probe(dir.path(), ports).unwrap(), None, "it has not joined yet");
        let state = r#"{"name": "n", "mesh_address": "127.0.0.1:9", "enrol_address": "127.0.0.1:2"}"#;
        fs::write(dir.path().join("state.json"), state).unwrap();
        let moved = moved_probe(dir.path(), ports).unwrap().unwrap();
        assert!(moved.contains("127.0.0.1:1\"") && moved.contains("\"n\""), "{moved}");
        fs::write(dir.path().join("state.json"), moved).unwrap();
        assert_eq!(moved_probe(dir.path(), ports).unwrap(), None);
    }

    #[test]
    fn an_unchanged_file_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert!(write_changed(&path, "one").unwrap());
        assert!(!write_changed(&path, "one").unwrap());
        assert!(write_changed(&path, "two").unwrap());
    }
}
