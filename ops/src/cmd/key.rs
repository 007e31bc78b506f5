//! `sonde key`.

use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use sonde_proto::wire;

use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output::{self, Format, Row};

/// Create, list and revoke API keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a key; its secret is shown now and never again
    Create {
        /// Name for people, 1 to 120 characters
        #[arg(long)]
        name: String,
        /// What it may do, separated by commas: checks:read, checks:write, probes:read, probes:write,
        /// samples:read, regions:read, regions:write, workspaces:read, workspaces:write, keys:read, keys:write,
        /// audit:read, or * for everything
        #[arg(long, value_delimiter = ',', required = true, value_parser = output::parse_word)]
        scopes: Vec<String>,
        /// How long it is good, such as 720h, 1s to ten years; without it the key has no end
        #[arg(long, value_parser = output::parse_duration, allow_hyphen_values = true, value_name = "TIME")]
        ttl: Option<Duration>,
        /// Workspace id, when it is not the caller's
        #[arg(long, default_value = "", hide_default_value = true, value_name = "ID")]
        workspace: String,
    },
    /// List keys, without secrets
    List,
    /// End a key
    Revoke {
        /// Id of the key
        id: String,
    },
}

#[derive(Debug, Serialize)]
struct View {
    id: String,
    name: String,
    prefix: String,
    scopes: Vec<String>,
    workspace_id: String,
    created_at: Option<String>,
    expires_at: Option<String>,
    revoked_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl View {
    fn new(key: wire::Key, secret: Option<String>) -> Self {
        Self {
            id: key.id,
            name: key.name,
            prefix: key.prefix,
            scopes: key.scopes,
            workspace_id: key.workspace_id,
            created_at: output::instant(key.created_at_us),
            expires_at: output::instant(key.expires_at_us),
            revoked_at: output::instant(key.revoked_at_us),
            secret,
        }
    }
}

impl Row for View {
    const COLUMNS: &'static [&'static str] =
        &["id", "name", "prefix", "scopes", "created", "expires", "revoked", "secret"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.name.clone(),
            self.prefix.clone(),
            self.scopes.join(","),
            output::or_dash(self.created_at.as_ref()),
            output::or_dash(self.expires_at.as_ref()),
            output::or_dash(self.revoked_at.as_ref()),
            self.secret.clone().unwrap_or_default(),
        ]
    }
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// What the collector answered.
    pub async fn run(self, client: &Client, format: Format) -> Result<()> {
        match self {
            Self::Create { name, scopes, ttl, workspace } => {
                let ttl_s = ttl.map_or(0, |ttl| ttl.as_secs());
                if ttl.is_some() && ttl_s == 0 {
                    return Err(CliError::invalid("--ttl: must be at least 1s"));
                }
                let request = wire::CreateKeyRequest { name, scopes, ttl_s, workspace_id: workspace };
                let made = client.create_key(request).await?;
                output::one(format, &View::new(made.key.unwrap_or_default(), Some(made.secret)))
            }
            Self::List => {
                let keys = client.list_keys(wire::ListKeysRequest {}).await?.keys;
                output::list(format, &keys.into_iter().map(|key| View::new(key, None)).collect::<Vec<_>>())
            }
            Self::Revoke { id } => {
                let key = client.revoke_key(wire::RevokeKeyRequest { id }).await?;
                output::one(format, &View::new(key, None))
            }
        }
    }
}
