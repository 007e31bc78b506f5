//! Takes fields out of a TOML table and collects what is wrong with them. Never stops at the first fault.

use toml::{Table, Value};

/// One table of the file; what is left at [`Reader::finish`] is unknown.
pub(super) struct Reader {
    path: String,
    table: Table,
}

impl Reader {
    /// Reads `table`, which lies at `path` (empty for the root).
    pub(super) fn new(path: &str, table: Table) -> Self {
        Self { path: path.to_owned(), table }
    }

    /// A required text, parsed; `None` together with a fault.
    pub(super) fn parsed<T>(
        &mut self,
        field: &str,
        faults: &mut Vec<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if !self.table.contains_key(field) {
            faults.push(format!("{}: is missing", self.name(field)));
            return None;
        }
        self.parsed_optional(field, faults, parse)
    }

    /// An optional text, parsed; `None` when absent, or together with a fault.
    pub(super) fn parsed_optional<T>(
        &mut self,
        field: &str,
        faults: &mut Vec<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.table.remove(field)?;
        let Some(text) = value.as_str() else {
            faults.push(format!("{}: must be a text in quotes, not {}", self.name(field), kind_of(&value)));
            return None;
        };
        parse(text).map_err(|reason| faults.push(format!("{}: {reason}", self.name(field)))).ok()
    }

    /// An optional list of texts, each parsed.
    pub(super) fn texts<T>(
        &mut self,
        field: &str,
        faults: &mut Vec<String>,
        count_max: usize,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let name = self.name(field);
        let Some(value) = self.table.remove(field) else { return Vec::new() };
        let Some(items) = value.as_array() else {
            faults.push(format!("{name}: must be a list of texts, not {}", kind_of(&value)));
            return Vec::new();
        };
        if items.len() > count_max {
            faults.push(format!("{name}: has {} entries; at most {count_max} are allowed", items.len()));
            return Vec::new();
        }
        let mut out = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let parsed = item.as_str().ok_or_else(|| "must be a text in quotes".to_owned()).and_then(&parse);
            match parsed {
                Ok(value) => out.push(value),
                Err(reason) => faults.push(format!("{name}[{index}]: {reason}")),
            }
        }
        out
    }

    /// A required table.
    pub(super) fn table(&mut self, field: &str, faults: &mut Vec<String>) -> Option<Self> {
        if !self.table.contains_key(field) {
            faults.push(format!("{}: is missing; add the section `[{}]`", self.name(field), self.name(field)));
            return None;
        }
        self.table_optional(field, faults)
    }

    /// An optional table.
    pub(super) fn table_optional(&mut self, field: &str, faults: &mut Vec<String>) -> Option<Self> {
        match self.table.remove(field)? {
            Value::Table(table) => Some(Self::new(&self.name(field), table)),
            other @ (Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_)) => {
                let name = self.name(field);
                faults.push(format!("{name}: must be the section `[{name}]`, not {}", kind_of(&other)));
                None
            }
        }
    }

    /// Reports everything that nobody asked for.
    pub(super) fn finish(self, faults: &mut Vec<String>) {
        for field in self.table.keys() {
            faults.push(format!("{}: is unknown; correct its name or remove it", self.name(field)));
        }
    }

    fn name(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a number",
        Value::Float(_) => "a decimal number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}
