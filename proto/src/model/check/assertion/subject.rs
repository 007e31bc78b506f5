//! What an assertion looks at. Never compares.

use super::super::Protocol;
use super::*;

/// What an assertion looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A number.
    Number(Number),
    /// Any value of a header, by name in lower case.
    Header(String),
    /// The beginning of the body, as bytes.
    Body,
    /// The value at a path into the body, which is JSON.
    Json(String),
    /// Any record of a DNS answer, in presentation format.
    Record,
}

/// A number of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// Status code.
    Status,
    /// Payload bytes.
    BodyBytes,
    /// One of the phases, by its place in time; microseconds.
    Phase(usize),
    /// The whole of the run, microseconds.
    Total,
    /// Packets without an answer, in hundredths of all.
    LossPercent,
    /// Seconds until the certificate ends that ends first.
    CertLeft,
    /// Seconds until the registration of the domain ends.
    DomainLeft,
    /// Any reading, in its own unit.
    Reading(ReadingKey),
}

/// Phases in the order of time.
const PHASES: [&str; 6] = ["dns", "connect", "tls", "send", "ttfb", "transfer"];
const DAY: Duration = Duration::from_secs(86_400);

impl Number {
    fn from_word(word: &str) -> Option<Self> {
        if let Some(phase) = PHASES.iter().position(|phase| *phase == word) {
            return Some(Self::Phase(phase));
        }
        Some(match word {
            "status" => Self::Status,
            "body_bytes" => Self::BodyBytes,
            "total" => Self::Total,
            "loss_percent" => Self::LossPercent,
            "tls_cert_days_left" => Self::CertLeft,
            "domain_days_left" => Self::DomainLeft,
            _ => Self::Reading(ReadingKey::ALL.iter().copied().find(|key| key.name() == word && is_seen(*key))?),
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::BodyBytes => "body_bytes",
            Self::Phase(phase) => PHASES[phase],
            Self::Total => "total",
            Self::LossPercent => "loss_percent",
            Self::CertLeft => "tls_cert_days_left",
            Self::DomainLeft => "domain_days_left",
            Self::Reading(key) => key.name(),
        }
    }

    /// Whether a check of this kind may read it.
    fn suits(self, kind: &CheckKind) -> bool {
        let is_any_of = |kinds: &[Protocol]| kinds.contains(&kind.protocol());
        let packets = &[Protocol::Icmp, Protocol::Traceroute];
        match self {
            Self::LossPercent => is_any_of(packets),
            Self::CertLeft => speaks_tls(kind.protocol()),
            Self::DomainLeft => is_any_of(&[Protocol::Domain]),
            Self::Reading(key) => match key.name().split('_').next() {
                Some("dns") => is_any_of(&[Protocol::Dns]),
                Some("http") => is_any_of(&[Protocol::Http, Protocol::Domain]),
                Some("quic") => is_any_of(&[Protocol::Quic, Protocol::Http, Protocol::Dns]),
                Some("packets" | "rtt" | "hops" | "reply" | "path") => is_any_of(packets),
                Some("tls") => key != ReadingKey::TlsOcspStapled && speaks_tls(kind.protocol()),
                Some("domain") => is_any_of(&[Protocol::Domain]),
                _ => true,
            },
            Self::Status | Self::BodyBytes | Self::Phase(_) | Self::Total => true,
        }
    }

    /// Reads a value in the unit of this number.
    pub(super) fn value(self, text: &str) -> Result<i64, String> {
        let whole =
            || text.parse::<i64>().map_err(|_| format!("compares with `{}`, which is no whole number", cut(text)));
        match self {
            Self::Phase(_) | Self::Total => duration_us(text)
                .ok_or_else(|| format!("compares with `{}`, which is no time such as 250ms or 1.5s", cut(text))),
            Self::LossPercent => match whole()? {
                percent @ 0..=100 => Ok(percent),
                _ => Err(format!("compares with `{}`: percent are 0 to 100", cut(text))),
            },
            Self::CertLeft | Self::DomainLeft => {
                let day_s = i64::try_from(DAY.as_secs()).unwrap_or(i64::MAX);
                whole()?
                    .checked_mul(day_s)
                    .ok_or_else(|| format!("compares with `{}` days, which are too many", cut(text)))
            }
            Self::Status | Self::BodyBytes | Self::Reading(_) => whole(),
        }
    }
}

fn speaks_tls(protocol: Protocol) -> bool {
    use Protocol::{Dns, Domain, Grpc, Http, Quic, Tcp, Tls, Websocket};
    matches!(protocol, Http | Tcp | Tls | Dns | Grpc | Websocket | Quic | Domain)
}

/// Whether a reading comes from the target, and not from the judgement of what it said.
fn is_seen(key: ReadingKey) -> bool {
    !matches!(key, ReadingKey::AssertionFailed | ReadingKey::AssertionDegraded)
}

/// Reads a time with its unit: us, ms or s, with at most six decimals that are whole microseconds.
fn duration_us(text: &str) -> Option<i64> {
    let unit_begin = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_begin);
    let unit_us: i64 = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 6 {
        return None;
    }
    let whole = whole.parse::<i64>().ok()?.checked_mul(unit_us)?;
    let decimals = 10_i64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<i64>().ok()?.checked_mul(unit_us)? };
    (fraction % decimals == 0).then(|| whole.checked_add(fraction / decimals)).flatten()
}

impl Subject {
    /// Takes the subject from the begin of an assertion.
    pub(super) fn read(rest: &mut &str) -> Result<Self, String> {
        let name = word(rest).ok_or("is empty: write such as `status == 200` or `total < 800ms`")?;
        match name {
            "header" => header(word(rest)),
            "body" => Ok(Self::Body),
            "json" => json(word(rest)),
            "record" => Ok(Self::Record),
            other => Number::from_word(other).map(Self::Number).ok_or_else(|| {
                "begins with nothing that can be asserted: use status, header NAME, body, body_bytes, json PATH, record, \
                 total, a phase (dns, connect, tls, send, ttfb, transfer), loss_percent, tls_cert_days_left, domain_days_left or a reading"
                    .to_owned()
            }),
        }
    }

    /// Refuses what a check of this kind never sees.
    pub(super) fn suits(&self, kind: &CheckKind) -> Result<(), String> {
        let (is_seen, seen_by) = match self {
            Self::Header(_) | Self::Json(_) | Self::Body => {
                (matches!(kind, CheckKind::Http(_) | CheckKind::Domain(_)), "http and domain")
            }
            Self::Record => (matches!(kind, CheckKind::Dns(_)), "dns"),
            Self::Number(number) => {
                let never = || format!("is about what {} checks never see", kind.protocol());
                return if number.suits(kind) { Ok(()) } else { Err(never()) };
            }
        };
        if is_seen {
            return Ok(());
        }
        Err(format!("is about what only {seen_by} checks see, and this one is of kind {}", kind.protocol()))
    }

    /// The word that it begins with.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Number(number) => number.word(),
            Self::Header(_) => "header",
            Self::Body => "body",
            Self::Json(_) => "json",
            Self::Record => "record",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Self::Header(name) | Self::Json(name) => write!(f, " {name}"),
            Self::Number(_) | Self::Body | Self::Record => Ok(()),
        }
    }
}

fn header(name: Option<&str>) -> Result<Subject, String> {
    let name = name.ok_or("lacks the name of a header, such as `header content-type contains json`")?;
    let is_token = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    if !is_token || name.len() > super::super::HEADER_NAME_BYTES_MAX {
        return Err(format!("names the header `{}`, which cannot be", cut(name)));
    }
    Ok(Subject::Header(name.to_ascii_lowercase()))
}

/// A path of RFC 9535 whose cost is linear: nothing in it looks at a value more than once.
fn json(path: Option<&str>) -> Result<Subject, String> {
    let path = path.ok_or("lacks a path such as `json $.status == ok`")?;
    if path.len() > PATH_BYTES_MAX {
        return Err(format!("has a path of {} bytes: at most {PATH_BYTES_MAX} are possible", path.len()));
    }
    if path.contains("..") || path.contains(['?', ',']) {
        return Err("has a path with `..`, a comma or a filter, whose cost has no bound: name the members".to_owned());
    }
    JsonPath::parse(path).map_err(|error| format!("has a path that cannot be: {error}"))?;
    Ok(Subject::Json(path.to_owned()))
}
