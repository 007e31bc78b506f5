//! The flags of a check that say how its target is reached. Never judges a value.

use clap::Args;
use sonde_proto::wire;

/// How the target of a new check is reached.
#[derive(Debug, Args, Default)]
pub(crate) struct ReachArgs {
    /// Addresses to dial: 4 for IPv4, 6 for IPv6 [default: IPv4, or IPv6 where there is none]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "4|6")]
    family: String,
    /// Which addresses of the name to measure: the first, or all of them in one run [default: first]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "first|all")]
    addresses: String,
    /// Resolver to ask for the name, address or address:port [default: the probe's own]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "SERVER")]
    resolver: String,
    /// Address to dial instead of what the name resolves to; name, SNI and Host stay [default: none]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ADDRESS")]
    resolve_to: String,
}

impl From<ReachArgs> for wire::Reach {
    fn from(args: ReachArgs) -> Self {
        let ReachArgs { family, addresses, resolver, resolve_to } = args;
        Self { family, addresses, resolver, resolve_to }
    }
}

/// How the target of a check is reached from now on.
#[derive(Debug, Args, Default)]
pub(crate) struct ReachChanges {
    /// New addresses to dial: 4, 6, or empty for either
    #[arg(long, value_name = "4|6")]
    family: Option<String>,
    /// New choice of addresses to measure: first or all
    #[arg(long, value_name = "first|all")]
    addresses: Option<String>,
    /// New resolver to ask for the name, address or address:port; empty for the probe's own
    #[arg(long, value_name = "SERVER")]
    resolver: Option<String>,
    /// New address to dial instead of what the name resolves to; empty for none
    #[arg(long, value_name = "ADDRESS")]
    resolve_to: Option<String>,
}

impl ReachChanges {
    /// Whether no flag was given.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { family, addresses, resolver, resolve_to } = self;
        [family, addresses, resolver, resolve_to].iter().all(|change| change.is_none())
    }

    /// Changes `reach` in place.
    pub(crate) fn apply(self, reach: &mut Option<wire::Reach>) {
        if self.is_empty() {
            return;
        }
        let reach = reach.get_or_insert_default();
        let Self { family, addresses, resolver, resolve_to } = self;
        for (slot, change) in [
            (&mut reach.family, family),
            (&mut reach.addresses, addresses),
            (&mut reach.resolver, resolver),
            (&mut reach.resolve_to, resolve_to),
        ] {
            if let Some(value) = change {
                *slot = value;
            }
        }
    }
}

/// The way to a target as JSON.
pub(crate) fn details(reach: Option<&wire::Reach>) -> serde_json::Value {
    let wire::Reach { family, addresses, resolver, resolve_to } = reach.cloned().unwrap_or_default();
    let addresses = if addresses.is_empty() { "first".to_owned() } else { addresses };
    let family = if family.is_empty() { "any".to_owned() } else { family };
    serde_json::json!({"family": family, "addresses": addresses, "resolver": resolver, "resolve_to": resolve_to})
}

/// The way to a target as rows for people; what is usual is left out.
pub(crate) fn settings(details: &serde_json::Value) -> Vec<(&'static str, String)> {
    let fields = [
        ("family", "family", "any"),
        ("addresses", "addresses", "first"),
        ("resolver", "resolver", ""),
        ("resolve to", "resolve_to", ""),
    ];
    let row = |(label, field, usual): (&'static str, &str, &str)| {
        let value = details[field].as_str().unwrap_or_default();
        (value != usual).then(|| (label, value.to_owned()))
    };
    fields.into_iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_the_rest_and_what_is_usual_is_not_shown() {
        let mut reach = None;
        ReachChanges::default().apply(&mut reach);
        assert_eq!(reach, None);
        let all = ReachChanges { addresses: Some("all".to_owned()), ..ReachChanges::default() };
        all.apply(&mut reach);
        let six = ReachChanges { family: Some("6".to_owned()), ..ReachChanges::default() };
        assert!(!six.is_empty());
        six.apply(&mut reach);
        let rows = settings(&details(reach.as_ref()));
        assert_eq!(rows, [("family", "6".to_owned()), ("addresses", "all".to_owned())]);
        assert_eq!(settings(&details(None)), []);
    }
}
