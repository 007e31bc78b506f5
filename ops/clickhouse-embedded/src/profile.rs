//! The engine's configuration: the settings of every statement, and the grants of the one user. What is not granted
//! here (files, URLs, other servers, dictionaries, named collections, backups) no statement can reach.
//! Never changes after start.

use std::fmt::Write;

/// Settings that hold unless a request says otherwise.
const SETTINGS: [(&str, &str); 6] = [
    // An insert is confirmed only when its part exists; the engine's own default collects inserts first.
    ("async_insert", "0"),
    // A bare expression such as `exit` is no statement.
    ("implicit_select", "0"),
    // Ten times the slowest report of one machine. A real server has no limit; here it would hold a connection for ever.
    ("max_execution_time", "300"),
    ("input_format_values_interpret_expressions", "0"),
    ("input_format_values_deduce_templates_of_expressions", "0"),
    ("session_timezone", "UTC"),
];

const GRANTS: &str = "SHOW, SELECT, INSERT, ALTER, CREATE DATABASE, CREATE TABLE, CREATE VIEW, CREATE FUNCTION, DROP, \
                      UNDROP TABLE, TRUNCATE, OPTIMIZE, KILL QUERY, SYSTEM, dictGet";

/// Where the engine keeps things; all inside the data folder unless the operator named another place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// The users file that `users_xml` makes.
    pub users_file: String,
    /// Temporary files of large sorts and aggregations.
    pub temporary: String,
    /// A folder that does not exist: disks, user files and schemas that a statement names must lie in it.
    pub nowhere: String,
}

/// The engine's main configuration.
#[must_use]
pub(crate) fn config_xml(places: &Places, display_name: &str, memory_bytes_max: Option<u64>) -> String {
    let Places { users_file, temporary, nowhere } = places;
    let (users_file, temporary, nowhere) = (escaped(users_file), escaped(temporary), escaped(nowhere));
    let memory = memory_bytes_max
        .map(|bytes| format!("    <max_server_memory_usage>{bytes}</max_server_memory_usage>\n"))
        .unwrap_or_default();
    format!(
        "<clickhouse>
    <logger><level>none</level></logger>
    <timezone>UTC</timezone>
    <display_name>{}</display_name>
    <users_config>{users_file}</users_config>
    <user_directories><users_xml><path>{users_file}</path></users_xml></user_directories>
    <tmp_path>{temporary}/</tmp_path>
    <user_files_path>{nowhere}/</user_files_path>
    <user_scripts_path>{nowhere}/</user_scripts_path>
    <format_schema_path>{nowhere}/</format_schema_path>
    <custom_local_disks_base_directory>{nowhere}/</custom_local_disks_base_directory>
{memory}</clickhouse>
",
        escaped(display_name)
    )
}

/// The engine's users file.
#[must_use]
pub(crate) fn users_xml() -> String {
    let mut settings = String::new();
    for (name, value) in SETTINGS {
        writeln!(settings, "            <{name}>{value}</{name}>").expect("writing to memory does not fail");
    }
    format!(
        "<clickhouse>
    <profiles>
        <default>
{settings}        </default>
    </profiles>
    <users>
        <default>
            <password></password>
            <networks><ip>::/0</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
            <grants><query>GRANT {GRANTS} ON *.*</query></grants>
        </default>
    </users>
    <quotas><default/></quotas>
</clickhouse>
"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_grant_reaches_outside() {
        for outside in
            ["FILE", "URL", "REMOTE", "S3", "SOURCES", "BACKUP", "DICTIONARY", "NAMED COLLECTION", "TEMPORARY"]
        {
            assert!(!GRANTS.contains(outside), "{outside}");
        }
    }

    #[test]
    fn paths_are_written_as_xml() {
        let places =
            Places { users_file: "/a&b/u.xml".to_owned(), temporary: "/t".to_owned(), nowhere: "/n".to_owned() };
        let xml = config_xml(&places, "me", Some(5));
        assert!(xml.contains("<users_config>/a&amp;b/u.xml</users_config>"));
        assert!(xml.contains("<max_server_memory_usage>5</max_server_memory_usage>"));
    }
}
