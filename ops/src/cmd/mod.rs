//! One file per noun: arguments in, one call, rows out. Never knows how the call travels.

pub mod audit;
pub mod check;
pub(crate) mod check_assert;
pub(crate) mod check_kind;
pub(crate) mod check_reach;
pub mod completion;
pub mod coverage;
pub mod key;
pub mod latency;
pub mod mesh;
pub mod probe;
pub mod region;
pub mod sample;
pub mod workspace;

use std::time::Duration;

use sonde_proto::wire;

use crate::client::Client;
use crate::error::{CliError, Kind, Result};

/// The id of the check that `text` names: an id as it is, or the id behind a name.
async fn check_id(client: &Client, text: &str) -> Result<String> {
    if uuid::Uuid::parse_str(text).is_ok() {
        return Ok(text.to_owned());
    }
    let checks = client.list_checks(wire::ListChecksRequest {}).await?.checks;
    checks
        .into_iter()
        .find(|check| check.definition.as_ref().is_some_and(|definition| definition.name == text))
        .map(|check| check.id)
        .ok_or_else(|| {
            CliError::new(Kind::NotFound, format!("check `{text}` does not exist"))
                .hint("`sonde check list` shows ids and names; what a deleted check measured is found by its id")
        })
}

/// The id of the workspace that `text` names: an id as it is, or the id behind a name.
async fn workspace_id(client: &Client, text: &str) -> Result<String> {
    if uuid::Uuid::parse_str(text).is_ok() {
        return Ok(text.to_owned());
    }
    let workspaces = client.list_workspaces(wire::ListWorkspacesRequest {}).await?.workspaces;
    workspaces.into_iter().find(|workspace| workspace.name == text).map(|workspace| workspace.id).ok_or_else(|| {
        CliError::new(Kind::NotFound, format!("workspace `{text}` does not exist"))
            .hint("`sonde workspace list` shows ids and names")
    })
}

/// The region that `--region` names. An empty name would silently mean all of them.
fn region(name: Option<String>) -> Result<String> {
    match name.as_deref().map(str::trim) {
        Some("") => Err(CliError::invalid("--region: is empty; leave it out for all regions")
            .hint("`sonde region list` shows their names")),
        Some(_) | None => Ok(name.unwrap_or_default()),
    }
}

/// A number of rows as a flag takes it; how many are too many is the collector's to say.
fn parse_limit(text: &str) -> std::result::Result<u32, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number of rows"))
}

/// A window in whole seconds, at least one.
fn window_s(flag: &str, window: Duration) -> Result<u64> {
    let seconds = window.as_secs() + u64::from(window.subsec_nanos() > 0);
    if seconds == 0 {
        return Err(CliError::invalid(format!("{flag}: must be longer than zero")));
    }
    Ok(seconds)
}

/// A length of time in microseconds for the wire.
fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}
