//! The configuration file of a collector: reads it, checks it, reports every fault at once.
//! Never opens what it names, except the password file that it points to when asked.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

mod reader;
#[cfg(test)]
mod tests;
mod values;

use reader::Reader;
use values::{
    parse_absolute, parse_clickhouse_url, parse_cluster, parse_collector_id, parse_host_port, parse_identifier,
    parse_lifetime, parse_loopback, parse_name, parse_socket, parse_trust_domain, parse_word,
};

/// Largest configuration file in bytes; a real one has less than 2 KiB.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Largest password file in bytes.
const PASSWORD_BYTES_MAX: u64 = 4 * 1024;
/// Life of a certificate unless the file says otherwise, in seconds: 24 h.
pub const CERTIFICATE_LIFETIME_S_DEFAULT: u64 = 86_400;
/// Shortest and longest life of a certificate, in seconds. Revocation ends a stolen one at once, its end does so when
/// nobody noticed; below half a minute, handshakes and renewals are most of what happens.
const CERTIFICATE_LIFETIME_S: RangeInclusive<u64> = 30..=CERTIFICATE_LIFETIME_S_DEFAULT;
/// Most extra names of the server certificate.
const NAMES_MAX: usize = 32;

/// Everything that a collector is told by its file.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of this collector, 1 to 64 of `a-z`, `0-9`, `-`.
    pub collector_id: String,
    /// SPIFFE trust domain, such as `sonde.internal`.
    pub trust_domain: String,
    /// Absolute path of the folder that holds what must survive a restart; no other collector uses it.
    pub data_dir: PathBuf,
    /// Absolute path of the folder that holds the CA, the same for every collector of the mesh; `data_dir` unless the file
    /// says otherwise.
    pub ca_dir: PathBuf,
    /// Addresses to listen on.
    pub listen: Listen,
    /// Addresses that others use.
    pub advertise: Advertise,
    /// Where the configuration lives.
    pub postgres: Postgres,
    /// Where the samples live.
    pub clickhouse: ClickHouse,
    /// How long the certificates of probes and of this collector are good for; 24 h unless the file says otherwise.
    pub certificate_lifetime: Duration,
}

/// Addresses to listen on; port 0 lets the system choose.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Probe streams.
    pub mesh: SocketAddr,
    /// Enrolment.
    pub enrol: SocketAddr,
    /// Admin API.
    pub admin: SocketAddr,
    /// Metrics and health; plain HTTP, hence a loopback address.
    pub web: SocketAddr,
}

/// What join strings and certificates carry.
#[derive(Debug, Clone, Default)]
pub struct Advertise {
    /// `host:port` of the mesh port; `None` for the bound address.
    pub mesh: Option<String>,
    /// `host:port` of the enrolment port; `None` for the bound address.
    pub enrol: Option<String>,
    /// Extra DNS names or addresses of the server certificate.
    pub names: Vec<String>,
}

/// Where the configuration lives.
#[derive(Clone)]
pub struct Postgres {
    /// Connection URL; may carry a password, therefore never shown.
    pub url: String,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Postgres { url: (hidden) }")
    }
}

/// Where the samples live.
#[derive(Debug, Clone)]
pub struct ClickHouse {
    /// HTTP interface, such as `http://127.0.0.1:8123`; carries no credentials.
    pub url: url::Url,
    /// Database, a plain identifier.
    pub database: String,
    /// User.
    pub user: String,
    /// File with the user's password, if it has one.
    pub password_file: Option<PathBuf>,
    /// The cluster whose servers hold the tables; `None` for one server.
    pub cluster: Option<String>,
}

impl ClickHouse {
    /// Reads the password, without a final line break.
    ///
    /// # Errors
    /// When the file cannot be read or is larger than 4 KiB.
    pub fn password(&self) -> Result<Option<String>, ConfigError> {
        let Some(path) = &self.password_file else { return Ok(None) };
        let text = read_bounded(path, PASSWORD_BYTES_MAX)?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read `{path}`: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is far too large to be what it should be.
    #[error("`{path}` is larger than {bytes_max} bytes; it is not the file that was meant")]
    TooLarge {
        /// The file.
        path: String,
        /// The bound.
        bytes_max: u64,
    },
    /// The file is no TOML.
    #[error("`{path}` is not TOML: {detail}")]
    Syntax {
        /// The file.
        path: String,
        /// Line, column and reason.
        detail: String,
    },
    /// Every fault of the file, one line each.
    #[error("`{path}` has {} fault(s):\n  {}", faults.len(), faults.join("\n  "))]
    Faults {
        /// The file.
        path: String,
        /// `field: reason` each.
        faults: Vec<String>,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, or has faults: then all of them.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_bounded(path, FILE_BYTES_MAX)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Checks the text of a file; `path` is for messages only.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|source: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            detail: source.to_string().trim().replace('\n', " "),
        })?;
        let mut faults = Vec::new();
        let config = read_root(table, &mut faults);
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            Some(_) | None => Err(ConfigError::Faults { path: path.to_owned(), faults }),
        }
    }
}

fn read_bounded(path: &Path, bytes_max: u64) -> Result<String, ConfigError> {
    use std::io::Read as _;
    let unreadable = |source| ConfigError::Unreadable { path: path.display().to_string(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    let count = file.take(bytes_max + 1).read_to_string(&mut text).map_err(unreadable)?;
    if count as u64 > bytes_max {
        return Err(ConfigError::TooLarge { path: path.display().to_string(), bytes_max });
    }
    Ok(text)
}

/// `None` only together with at least one fault.
fn read_root(table: toml::Table, faults: &mut Vec<String>) -> Option<Config> {
    let mut root = Reader::new("", table);
    let collector_id = root.parsed("collector_id", faults, parse_collector_id);
    let trust_domain = root.parsed("trust_domain", faults, parse_trust_domain);
    let data_dir = root.parsed("data_dir", faults, parse_absolute);
    let ca_dir = root.parsed_optional("ca_dir", faults, parse_absolute);
    let listen = root.table("listen", faults).map(|table| read_listen(table, faults));
    let advertise = root.table_optional("advertise", faults).map(|table| read_advertise(table, faults));
    if let Some(Some(listen)) = &listen {
        require_dialable(listen, advertise.as_ref(), faults);
    }
    let postgres = root.table("postgres", faults).map(|table| read_postgres(table, faults));
    let clickhouse = root.table("clickhouse", faults).map(|table| read_clickhouse(table, faults));
    let certificates = root.table_optional("certificates", faults).map(|table| read_certificates(table, faults));
    root.finish(faults);
    Some(Config {
        collector_id: collector_id?,
        trust_domain: trust_domain?,
        ca_dir: ca_dir.or_else(|| data_dir.clone())?,
        data_dir: data_dir?,
        listen: listen??,
        advertise: advertise.unwrap_or_default(),
        postgres: postgres??,
        clickhouse: clickhouse??,
        certificate_lifetime: certificates.flatten().unwrap_or(Duration::from_secs(CERTIFICATE_LIFETIME_S_DEFAULT)),
    })
}

fn read_listen(mut table: Reader, faults: &mut Vec<String>) -> Option<Listen> {
    let mesh = table.parsed("mesh", faults, parse_socket);
    let enrol = table.parsed("enrol", faults, parse_socket);
    let admin = table.parsed("admin", faults, parse_socket);
    let web = table.parsed("web", faults, parse_loopback);
    table.finish(faults);
    let listen = Listen { mesh: mesh?, enrol: enrol?, admin: admin?, web: web? };
    let named = [
        ("listen.mesh", listen.mesh),
        ("listen.enrol", listen.enrol),
        ("listen.admin", listen.admin),
        ("listen.web", listen.web),
    ];
    for (index, (field, address)) in named.iter().enumerate() {
        if let Some((other, _)) = named[..index].iter().find(|(_, a)| a == address && a.port() != 0) {
            faults.push(format!("{field}: {address} is already taken by {other}; give each its own port"));
        }
    }
    Some(listen)
}

/// Join strings and certificates need an address that somebody can dial.
fn require_dialable(listen: &Listen, advertise: Option<&Advertise>, faults: &mut Vec<String>) {
    let given = [
        ("mesh", listen.mesh, advertise.is_some_and(|a| a.mesh.is_some())),
        ("enrol", listen.enrol, advertise.is_some_and(|a| a.enrol.is_some())),
    ];
    for (field, address, is_given) in given {
        if address.ip().is_unspecified() && !is_given {
            faults.push(format!(
                "advertise.{field}: is missing; listen.{field} is {address}, which nobody can dial, so say what probes dial"
            ));
        }
    }
}

fn read_advertise(mut table: Reader, faults: &mut Vec<String>) -> Advertise {
    let mesh = table.parsed_optional("mesh", faults, parse_host_port);
    let enrol = table.parsed_optional("enrol", faults, parse_host_port);
    let names = table.texts("names", faults, NAMES_MAX, parse_name);
    table.finish(faults);
    Advertise { mesh, enrol, names }
}

fn read_postgres(mut table: Reader, faults: &mut Vec<String>) -> Option<Postgres> {
    let url = table.parsed("url", faults, |text| {
        let schemed = text.starts_with("postgres://") || text.starts_with("postgresql://");
        schemed.then(|| text.to_owned()).ok_or_else(|| "must begin with `postgres://`".to_owned())
    });
    table.finish(faults);
    Some(Postgres { url: url? })
}

fn read_clickhouse(mut table: Reader, faults: &mut Vec<String>) -> Option<ClickHouse> {
    let url = table.parsed("url", faults, parse_clickhouse_url);
    let database = table.parsed("database", faults, parse_identifier);
    let user = table.parsed_optional("user", faults, parse_word);
    let password_file = table.parsed_optional("password_file", faults, parse_absolute);
    let cluster = table.parsed_optional("cluster", faults, parse_cluster);
    table.finish(faults);
    Some(ClickHouse {
        url: url?,
        database: database?,
        user: user.unwrap_or_else(|| "default".to_owned()),
        password_file,
        cluster,
    })
}

fn read_certificates(mut table: Reader, faults: &mut Vec<String>) -> Option<Duration> {
    let lifetime = table.parsed_optional("lifetime", faults, parse_lifetime);
    table.finish(faults);
    lifetime
}
