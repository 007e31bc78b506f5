//! The command line. Never acts on it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// Runs the ClickHouse engine behind its own HTTP interface, for one machine.
#[derive(Debug, Clone, Parser)]
#[command(name = "sonde-clickhouse", version)]
pub struct Options {
    /// Data folder; made if absent, refused if it holds anything else or another process uses it
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Address and port of the HTTP interface; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// File to write the bound address to, as ADDRESS:PORT and a line end
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
    /// Statements that run at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = connections)]
    pub connections: usize,
    /// Memory that all statements together may use, in bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(MEMORY_BYTES_MIN..))]
    pub max_memory: Option<u64>,
    /// Folder for temporary files of large queries; inside the data folder if not given
    #[arg(long, value_name = "DIR")]
    pub tmp: Option<PathBuf>,
    /// File whose first line is the password of the user `default`; without it anybody who reaches the port may query
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// File whose first line is the token that allows SYSTEM and similar statements (header X-Sonde-Admin)
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Allow an address in --listen that other machines can reach
    #[arg(long)]
    pub allow_remote: bool,
}

/// The engine itself needs about 200 MiB before the first row.
const MEMORY_BYTES_MIN: u64 = 256 << 20;

fn connections(text: &str) -> Result<usize, String> {
    let limit = crate::engine::CONNECTIONS_MAX;
    let number: usize = text.parse().map_err(|_| "not a number".to_owned())?;
    if (1..=limit).contains(&number) { Ok(number) } else { Err(format!("must be between 1 and {limit}")) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn connections_are_bounded() {
        let parse = |count: &str| {
            Options::try_parse_from(["x", "--data", "/d", "--listen", "127.0.0.1:0", "--connections", count])
        };
        assert_eq!(parse("2").unwrap().connections, 2);
        for count in ["0", "65", "many"] {
            assert!(parse(count).is_err(), "{count}");
        }
    }
}
