//! The configuration files of the local mesh and the environment file for shells. Written only when they change.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

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
pub(super) fn collector(layout: &Layout, ports: Ports, postgres_url: &str, clickhouse_url: &str) -> Result<bool> {
    let folder = layout.folder("collector")?;
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
         database = \"sonde\"\n",
        data = quoted_path(&folder),
        mesh = ports.mesh,
        enrol = ports.enrol,
        admin = ports.admin,
        web = ports.web,
        postgres = quoted(postgres_url),
        clickhouse = quoted(clickhouse_url),
    );
    write_changed(&folder.join("collector.toml"), &text)
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
