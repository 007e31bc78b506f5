//! One connection, lent to one statement after the other. Settings and database of a statement never outlive it.
//! (A connection per statement would do that too, but every connection leaves some kilobytes behind in the engine.)
//! Never runs a client's statement.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;

use tracing::warn;

use crate::error::{DbError, code};
use crate::ffi::{Connection, Engine};
use crate::sql::lex::quoted;

/// A connection and what it looks like when no statement uses it.
pub(super) struct Session {
    engine: &'static Engine,
    arguments: Arc<[CString]>,
    /// Settings whose value at rest is not the engine's own default, so that `DEFAULT` would be wrong.
    at_rest: BTreeMap<String, String>,
    touched: Vec<String>,
    /// The connection. `None` is only possible inside `reset`.
    pub connection: Connection,
}

impl Session {
    /// Connects. `None` when the engine refuses.
    #[must_use]
    pub(super) fn open(engine: &'static Engine, arguments: Arc<[CString]>) -> Option<Self> {
        let mut connection = Connection::open(engine, &arguments)?;
        let at_rest = settings_at_rest(&mut connection)?;
        Some(Self { engine, arguments, at_rest, touched: Vec::new(), connection })
    }

    /// Reads one text value.
    ///
    /// # Errors
    /// What the engine said.
    pub(super) fn value(&mut self, sql: &str) -> Result<String, DbError> {
        let answer = self.connection.query(sql.as_bytes(), "TabSeparatedRaw", &[]);
        let answer = answer.map_err(|text| DbError::from_engine(&text))?;
        Ok(String::from_utf8_lossy(answer.bytes()).trim_end_matches('\n').to_owned())
    }

    /// Makes database and settings those of a statement, until `reset`.
    ///
    /// # Errors
    /// Code 81 for an unknown database, 115 for an unknown setting, or what the engine says about a value.
    pub(super) fn apply(&mut self, database: &str, settings: &[(String, String)]) -> Result<(), DbError> {
        if database != "default" {
            self.execute(&format!("USE {}", backquoted(database)))?;
            self.touched.push(String::new());
        }
        if settings.is_empty() {
            return Ok(());
        }
        self.touched.extend(settings.iter().map(|(name, _)| name.clone()));
        let list: Vec<String> = settings.iter().map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
        self.execute(&format!("SET {}", list.join(", ")))
    }

    /// Puts everything back. A connection that does not come back (after `readonly=1`, say) is replaced.
    pub(super) fn reset(&mut self) {
        let touched = std::mem::take(&mut self.touched);
        let values: Vec<String> = touched
            .iter()
            .filter(|name| !name.is_empty())
            .map(|name| match self.at_rest.get(name) {
                Some(value) => format!("{name} = {}", quoted(value)),
                None => format!("{name} = DEFAULT"),
            })
            .collect();
        // Also without settings: the next statement is what makes the engine forget the last one in `system.processes`.
        let list = if values.is_empty() { "log_comment = DEFAULT".to_owned() } else { values.join(", ") };
        let mut is_clean = self.execute(&format!("SET {list}")).is_ok();
        if touched.iter().any(String::is_empty) {
            is_clean &= self.execute("USE default").is_ok();
        }
        if !is_clean {
            self.replace();
        }
    }

    fn replace(&mut self) {
        // The new one first: the engine shuts down with its last connection.
        match Connection::open(self.engine, &self.arguments) {
            Some(connection) => self.connection = connection,
            None => warn!("the engine gave no new connection; going on with the old one"),
        }
    }

    fn execute(&mut self, sql: &str) -> Result<(), DbError> {
        self.connection.query(sql.as_bytes(), "Null", &[]).map(drop).map_err(|text| DbError::from_engine(&text))
    }
}

/// Names and values that the profile or the engine set for every connection.
fn settings_at_rest(connection: &mut Connection) -> Option<BTreeMap<String, String>> {
    let sql = b"SELECT name, value FROM system.settings WHERE changed";
    let answer = connection.query(sql, "TabSeparatedRaw", &[]).ok()?;
    let text = std::str::from_utf8(answer.bytes()).ok()?;
    Some(
        text.lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    )
}

fn backquoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// The error for a text without a statement.
#[must_use]
pub(super) fn empty_query() -> DbError {
    DbError::new(code::SYNTAX_ERROR, "SYNTAX_ERROR", "Syntax error: Empty query")
}
