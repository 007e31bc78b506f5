//! Whether the user may do what the collector asks of it, found out before the first sample and not with the first uncertain
//! insert. Never changes anything: each statement finds nothing to do.

use super::{ClickHouseError, Client};

/// Code of a server whose user lacks a grant.
const ACCESS_DENIED_CODE: u32 = 497;
/// Tables that are written with every group of samples.
const WRITTEN: [&str; 3] = ["samples", "rollup_marks", "gaps"];

impl Client {
    /// Tries everything that storing a sample may take, after the schema is there.
    ///
    /// # Errors
    /// [`ClickHouseError::Config`] with the grant that is missing; otherwise when the server cannot be asked.
    pub async fn check_grants(&self) -> Result<(), ClickHouseError> {
        self.try_statement("SELECT ON system.processes", "SELECT query_id FROM system.processes LIMIT 0 FORMAT Null")
            .await?;
        // An own query may always be killed; a server that wants a grant for it says so here.
        let kill = "KILL QUERY WHERE query_id = 'sonde-nothing-has-this-name' SYNC FORMAT Null";
        self.try_statement("KILL QUERY ON *.*", kill).await?;
        let database = &self.inner.endpoint.database;
        for table in WRITTEN {
            let (read, write) = (format!("SELECT ON {database}.{table}"), format!("INSERT ON {database}.{table}"));
            self.try_statement(&read, &format!("SELECT * FROM {database}.{table} LIMIT 0 FORMAT Null")).await?;
            let nothing = format!("INSERT INTO {database}.{table} SELECT * FROM {database}.{table} LIMIT 0");
            self.try_statement(&write, &nothing).await?;
        }
        Ok(())
    }

    async fn try_statement(&self, grant: &str, statement: &str) -> Result<(), ClickHouseError> {
        let error = match self.read(self.inner.bare.query(statement).execute()).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let ClickHouseError::Refused { code: ACCESS_DENIED_CODE, detail } = &error else { return Err(error) };
        let user = &self.inner.endpoint.user;
        Err(ClickHouseError::Config(format!(
            "clickhouse.user: `{user}` lacks the grant `{grant}`, without which samples cannot be stored safely; let an administrator of ClickHouse run `GRANT {grant} TO {user}` ({detail})"
        )))
    }
}

#[cfg(test)]
#[path = "grants_tests.rs"]
mod tests;
