//! The probe's configuration file: parsed once, every fault reported in one go. Never holds a secret.

use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sonde_proto::model::InvalidField;
use sonde_proto::model::id::cut;
use toml::Value;

use crate::identity::Address;

/// Sealed samples held by default: 64 MiB, about 10 h at 100 samples per second (18.4 bytes each).
pub const SPOOL_BYTES_DEFAULT: usize = 64 << 20;
/// Least memory for samples: one of the largest batches, of 1,000 samples with 128 bytes each; usually six of them.
pub const SPOOL_BYTES_MIN: usize = 128 << 10;
/// Most memory for samples.
pub const SPOOL_BYTES_MAX: usize = 4 << 30;
/// Runs at once by default.
pub const CONCURRENCY_DEFAULT: NonZeroUsize = NonZeroUsize::new(256).expect("it is not zero");
/// Most runs at once: each holds a socket, and a process has 65,536 of them at best.
pub const CONCURRENCY_MAX: NonZeroUsize = NonZeroUsize::new(16_384).expect("it is not zero");
/// Most entries of `mesh_addresses`, `allow_networks` and `extra_roots`.
pub const LIST_MAX: usize = 256;
/// Largest configuration, join string or certificate file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

const _: () = assert!(SPOOL_BYTES_MIN <= SPOOL_BYTES_DEFAULT && SPOOL_BYTES_DEFAULT <= SPOOL_BYTES_MAX);
const _: () = assert!(CONCURRENCY_DEFAULT.get() <= CONCURRENCY_MAX.get());

const KEYS: &str = "data_dir, join_string_file, mesh_addresses, allow_networks, extra_roots, spool_bytes_max, concurrency_max, resolver";

/// What one probe is told by its operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where key, certificate and state lie; one probe each.
    pub data_dir: PathBuf,
    /// Where a join string lies, for the first start.
    pub join_string_file: Option<PathBuf>,
    /// The collectors' mesh ports, tried in turn; empty for the one that the join string named.
    pub mesh_addresses: Vec<Address>,
    /// Special networks that checks may reach.
    pub allow_networks: Vec<IpNet>,
    /// CA certificates that `http` and `tls` checks trust besides the Mozilla roots.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Most memory for samples without an ack, in bytes.
    pub spool_bytes_max: usize,
    /// Most runs at once.
    pub concurrency_max: NonZeroUsize,
    /// Resolver for checks; `None` means the system's.
    pub resolver: Option<SocketAddr>,
}

/// Every fault of a configuration file, in the order of its keys; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<InvalidField>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(fault, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

impl Config {
    /// Reads the file at `path` and the certificate files that it names.
    ///
    /// # Errors
    /// All faults at once: of the file, of each field, and of each certificate file.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        let text = read_bounded(path)
            .map_err(|reason| Faults(vec![InvalidField::new(format!("config file {}", path.display()), reason)]))?;
        Self::parse(&text, &|path| read_bounded(path))
    }

    /// Parses the text of a configuration file; `read` gives the text of the files that it names, or why not.
    ///
    /// # Errors
    /// All faults at once.
    pub fn parse(text: &str, read: &dyn Fn(&Path) -> Result<String, String>) -> Result<Self, Faults> {
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| Faults(vec![InvalidField::new("config file", not_toml(text, &error))]))?;
        let mut fields = Fields { table, faults: Vec::new() };
        let data_dir = fields.take("data_dir", absolute_path);
        if data_dir.is_none() && fields.faults.is_empty() {
            fields.fault("data_dir", "is missing: name the folder for this probe's key and certificate");
        }
        let join_string_file = fields.take("join_string_file", absolute_path);
        let mesh_addresses = fields.take_list("mesh_addresses", mesh_address);
        let allow_networks = fields.take_list("allow_networks", network);
        let extra_roots = fields.take_list("extra_roots", |value| certificates(&absolute_path(value)?, read));
        let spool_bytes_max =
            fields.take("spool_bytes_max", |value| whole_number(value, SPOOL_BYTES_MIN, SPOOL_BYTES_MAX, "bytes"));
        let concurrency_max =
            fields.take("concurrency_max", |value| whole_number(value, 1, CONCURRENCY_MAX.get(), "runs at once"));
        let resolver = fields.take("resolver", resolver_address);
        fields.refuse_the_rest();
        match data_dir {
            Some(data_dir) if fields.faults.is_empty() => Ok(Self {
                data_dir,
                join_string_file,
                mesh_addresses,
                allow_networks,
                extra_roots: extra_roots.into_iter().flatten().collect(),
                spool_bytes_max: spool_bytes_max.unwrap_or(SPOOL_BYTES_DEFAULT),
                concurrency_max: concurrency_max.and_then(NonZeroUsize::new).unwrap_or(CONCURRENCY_DEFAULT),
                resolver,
            }),
            Some(_) | None => Err(Faults(fields.faults)),
        }
    }
}

/// Reads a text file of at most [`FILE_BYTES_MAX`] bytes.
///
/// # Errors
/// A clause that says why not, without the path.
pub fn read_bounded(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| format!("cannot be read ({error})"))?;
    if !size.is_file() {
        return Err("is not a file".to_owned());
    }
    if size.len() > FILE_BYTES_MAX {
        return Err(format!("is {} bytes long, more than {FILE_BYTES_MAX}", size.len()));
    }
    fs::read_to_string(path).map_err(|error| format!("cannot be read ({error})"))
}

/// The keys of the file that nobody has taken yet, and what was wrong with those taken.
struct Fields {
    table: toml::Table,
    faults: Vec<InvalidField>,
}

impl Fields {
    fn fault(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.faults.push(InvalidField::new(field, reason));
    }

    fn take<T>(&mut self, field: &str, parse: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let value = self.table.remove(field)?;
        parse(&value).map_err(|reason| self.fault(field, reason)).ok()
    }

    fn take_list<T>(&mut self, field: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Vec<T> {
        let Some(value) = self.table.remove(field) else { return Vec::new() };
        let Some(items) = value.as_array() else {
            self.fault(field, format!("must be a list of texts, not {}", value.type_str()));
            return Vec::new();
        };
        if items.len() > LIST_MAX {
            self.fault(field, format!("has {} entries, more than {LIST_MAX}", items.len()));
            return Vec::new();
        }
        let mut parsed = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match parse(item) {
                Ok(value) => parsed.push(value),
                Err(reason) => self.fault(format!("{field}[{index}]"), reason),
            }
        }
        parsed
    }

    fn refuse_the_rest(&mut self) {
        let unknown: Vec<String> = self.table.keys().map(|key| cut(key)).collect();
        for key in unknown {
            self.fault(key, format!("is not a setting of a probe; the settings are {KEYS}"));
        }
    }
}

fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or(text);
    format!("line {} is not TOML: {}", before.matches('\n').count() + 1, error.message())
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("must be a text in quotes, not {}", value.type_str()))
}

fn absolute_path(value: &Value) -> Result<PathBuf, String> {
    let path = PathBuf::from(text(value)?);
    if path.is_absolute() { Ok(path) } else { Err(format!("`{}` must be an absolute path", path.display())) }
}

fn mesh_address(value: &Value) -> Result<Address, String> {
    Address::parse("mesh_addresses", text(value)?).map_err(|fault| fault.reason)
}

fn network(value: &Value) -> Result<IpNet, String> {
    let text = text(value)?;
    let network: Option<IpNet> = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    network.map(|network| network.trunc()).ok_or_else(|| {
        format!("`{}` is not a network: write an address and a prefix length, such as 10.0.0.0/8", cut(text))
    })
}

fn resolver_address(value: &Value) -> Result<SocketAddr, String> {
    const DNS_PORT: u16 = 53;
    let text = text(value)?;
    let address = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, DNS_PORT)));
    match address {
        Some(address) if address.port() != 0 => Ok(address),
        Some(_) | None => {
            Err(format!("`{}` is not a resolver: write `address`, `address:port` or `[v6]:port`", cut(text)))
        }
    }
}

fn whole_number(value: &Value, least: usize, most: usize, unit: &str) -> Result<usize, String> {
    let number = value.as_integer().ok_or_else(|| format!("must be a whole number, not {}", value.type_str()))?;
    usize::try_from(number)
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("{number} is out of range: use {least} to {most} {unit}"))
}

fn certificates(
    path: &Path,
    read: &dyn Fn(&Path) -> Result<String, String>,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path).map_err(|reason| format!("`{}` {reason}", path.display()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|error| format!("`{}` is not a PEM file ({error})", path.display()))?;
    if found.is_empty() {
        return Err(format!("`{}` holds no certificate in PEM", path.display()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_file(_: &Path) -> Result<String, String> {
        Err("cannot be read (no such file)".to_owned())
    }

    fn faults(text: &str) -> Vec<String> {
        let Err(Faults(faults)) = Config::parse(text, &no_file) else { panic!("accepted: {text}") };
        faults.into_iter().map(|fault| fault.to_string()).collect()
    }

    #[test]
    fn the_least_file_names_a_data_folder() {
        let config = Config::parse("data_dir = '/var/lib/sonde-probe'", &no_file).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/var/lib/sonde-probe"));
        assert_eq!((config.spool_bytes_max, config.concurrency_max), (SPOOL_BYTES_DEFAULT, CONCURRENCY_DEFAULT));
        assert!(config.allow_networks.is_empty() && config.extra_roots.is_empty() && config.resolver.is_none());
    }

    #[test]
    fn every_setting_is_read() {
        let root = rcgen::generate_simple_self_signed(["root".to_owned()]).unwrap().cert;
        let pem = root.pem();
        let text = "data_dir = '/d'\njoin_string_file = '/j'\nmesh_addresses = ['a.example:7401', '[::1]:7402']\nallow_networks = ['127.0.0.1/8', '::1']\n\
            extra_roots = ['/ca.pem']\nspool_bytes_max = 1048576\nconcurrency_max = 7\nresolver = '127.0.0.1:5353'";
        let config = Config::parse(text, &|path| {
            assert_eq!(path, Path::new("/ca.pem"));
            Ok(pem.clone())
        })
        .unwrap();
        assert_eq!(config.join_string_file, Some(PathBuf::from("/j")));
        let shown: Vec<String> = config.mesh_addresses.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a.example:7401", "[::1]:7402"]);
        assert_eq!(config.allow_networks, ["127.0.0.0/8".parse().unwrap(), "::1/128".parse::<IpNet>().unwrap()]);
        assert_eq!(config.extra_roots, [root.der().clone()]);
        assert_eq!((config.spool_bytes_max, config.concurrency_max.get()), (1 << 20, 7));
        assert_eq!(config.resolver, Some("127.0.0.1:5353".parse().unwrap()));
        let config = Config::parse("data_dir = '/d'\nresolver = '9.9.9.9'", &no_file).unwrap();
        assert_eq!(config.resolver, Some("9.9.9.9:53".parse().unwrap()));
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let all = faults(
            "data_dir = 'relative'\njoin_string_file = 7\nmesh_addresses = ['a.example:7401', 'b.example']\nallow_networks = ['10.0.0.0/8', 'everything', 3]\n\
             extra_roots = ['/missing.pem']\nspool_bytes_max = 5\nconcurrency_max = 0\nresolver = 'dns'\nspol = 1",
        );
        let fields: Vec<&str> = all.iter().filter_map(|fault| fault.split(": ").next()).collect();
        assert_eq!(
            fields,
            [
                "data_dir",
                "join_string_file",
                "mesh_addresses[1]",
                "allow_networks[1]",
                "allow_networks[2]",
                "extra_roots[0]",
                "spool_bytes_max",
                "concurrency_max",
                "resolver",
                "spol",
            ],
            "{all:?}"
        );
    }

    #[test]
    fn a_fault_says_what_would_be_accepted() {
        assert!(faults("")[0].contains("data_dir: is missing"));
        assert!(faults("data_dir = '/d'\nspool_bytes_max = -1")[0].contains("use 131072 to 4294967296 bytes"));
        assert!(faults("data_dir = '/d'\nallow_networks = '10.0.0.0/8'")[0].contains("must be a list"));
        assert!(faults("data_dir = '/d'\ndata_dri = '/e'")[0].contains("the settings are data_dir"));
        assert!(faults("\ndata_dir = ")[0].starts_with("config file: line 2 is not TOML"));
        assert!(faults("data_dir = '/d'\nextra_roots = ['/missing.pem']")[0].contains("`/missing.pem` cannot be read"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let Err(faults) = Config::load(Path::new("/nonexistent/probe.toml")) else { panic!("loaded") };
        assert!(faults.to_string().starts_with("config file /nonexistent/probe.toml: cannot be read"), "{faults}");
    }
}
