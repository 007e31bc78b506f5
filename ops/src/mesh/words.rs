//! What `make up` tells people: paths and commands as they can be typed where they are. Starts and stops nothing.

use std::path::Path;

use super::config;
use super::layout::{Layout, Ports};
use crate::error::Result;
use crate::output;

/// A path of the mesh as it is shortest from the current folder.
pub(super) fn shown(path: &Path) -> &Path {
    let dir = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&dir).unwrap_or(path)
}

/// The command that brings this mesh `up` or `down`, and no other.
pub(super) fn command(layout: &Layout, verb: &str) -> String {
    let dir = shown(&layout.dir);
    if dir == Path::new(".sonde") {
        return format!("make {verb}");
    }
    format!("sonde mesh {verb} --dir {}", config::shell_word(&dir.to_string_lossy()))
}

/// Says that the mesh is healthy, and what to do next.
pub(super) fn announce(layout: &Layout, ports: Ports) -> Result<()> {
    let env = layout.path("env");
    let inner = shown(&env);
    // A name without a slash would be looked for on PATH.
    let env = if inner.components().count() == 1 { Path::new(".").join(inner) } else { inner.to_path_buf() };
    let env = config::shell_word(&env.to_string_lossy());
    output::write_line(&format!(
        "The mesh is healthy: 3 probes, admin API https://127.0.0.1:{}, metrics http://127.0.0.1:{}/metrics\n\
         Next: `. {env}`, then `sonde check list`; `{}` stops it.",
        ports.admin,
        ports.web,
        command(layout, "down")
    ))
}
