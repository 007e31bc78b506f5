//! `sonde audit`.

use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;
use sonde_proto::wire;

use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output::{self, Format, Row};

/// Read the audit log.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List entries, newest first
    List {
        /// Most entries, 1 to 10,000
        #[arg(long, default_value_t = 100, value_parser = super::parse_limit, allow_negative_numbers = true)]
        limit: u32,
    },
}

#[derive(Debug, Serialize)]
struct View {
    id: u64,
    at: Option<String>,
    actor: String,
    action: String,
    subject: String,
    before: Value,
    after: Value,
    address: String,
    request_id: String,
}

impl From<wire::AuditEntry> for View {
    fn from(entry: wire::AuditEntry) -> Self {
        let value = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
        Self {
            id: entry.id,
            at: output::instant(entry.at_us),
            actor: entry.actor,
            action: entry.action,
            subject: entry.subject,
            before: value(&entry.before_json),
            after: value(&entry.after_json),
            address: entry.address,
            request_id: entry.request_id,
        }
    }
}

impl Row for View {
    const COLUMNS: &'static [&'static str] = &["id", "at", "actor", "action", "subject", "address"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            output::or_dash(self.at.as_ref()),
            self.actor.clone(),
            self.action.clone(),
            self.subject.clone(),
            self.address.clone(),
        ]
    }
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// What the collector answered.
    pub async fn run(self, client: &Client, format: Format) -> Result<()> {
        let Self::List { limit } = self;
        if limit == 0 {
            return Err(CliError::invalid("--limit: must be between 1 and 10000"));
        }
        let entries = client.list_audit(wire::ListAuditRequest { limit }).await?.entries;
        output::list(format, &entries.into_iter().map(View::from).collect::<Vec<_>>())
    }
}
