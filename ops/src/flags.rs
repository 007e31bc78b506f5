//! What people typed for what the API names: refusals of the collector name fields of a request, people know options.
//! The one place of this crate that translates; never judges a value.

/// Fields whose option is not simply `--` and the field, or that stand in no option at all.
const TYPED: &[(&str, &str)] = &[
    ("id", "<ID>"),
    ("check_id", "--check"),
    ("workspace_id", "--workspace"),
    ("last_s", "--last"),
    ("from_us", "--from"),
    ("until_us", "--until"),
    ("ttl_s", "--ttl"),
    ("raw_days", "--raw"),
    ("minutes_days", "--minutes"),
    ("hours_days", "--hours"),
    ("days_days", "--days"),
    ("http.version", "--http-version"),
    ("dns.name", "--query"),
    ("domain.name", "--domain"),
    ("http.ca", "--target-ca"),
    ("assertions", "--assert"),
    // Nobody types them: the command and its subcommand are what they mean.
    ("definition", "definition"),
    ("kind", "kind"),
];

/// The option, or other part of the command line, that filled `field`: `--last` for `last_s`, `--url` for `http.url`.
pub fn typed(field: &str) -> String {
    if let Some((_, typed)) = TYPED.iter().find(|(name, _)| *name == field) {
        return (*typed).to_owned();
    }
    let own = field.rsplit('.').next().unwrap_or(field);
    format!("--{}", own.replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory as _};

    use super::*;

    /// Fields that a refusal may name.
    const REFUSED: &[&str] = &[
        "id",
        "check_id",
        "workspace_id",
        "region",
        "last_s",
        "from_us",
        "until_us",
        "limit",
        "ttl_s",
        "name",
        "scopes",
        "request_id",
        "raw_days",
        "minutes_days",
        "hours_days",
        "days_days",
        "interval",
        "timeout",
        "degraded_after",
        "regions",
        "host",
        "port",
        "http.url",
        "http.method",
        "http.version",
        "http.header",
        "http.body",
        "http.expect_status",
        "http.follow_redirects",
        "http.basic_auth",
        "http.bearer_token",
        "http.oauth2_token_url",
        "http.oauth2_client_id",
        "http.oauth2_client_secret",
        "http.oauth2_scope",
        "http.client_cert",
        "http.client_key",
        "http.proxy",
        "http.proxy_auth",
        "http.body_bytes_max",
        "http.ca",
        "tls.server_name",
        "dns.name",
        "dns.record",
        "dns.server",
        "dns.transport",
        "dns.server_name",
        "dns.dnssec",
        "dns.trust_anchor",
        "dns.expect_rcode",
        "icmp.payload_bytes",
        "icmp.count",
        "icmp.spacing",
        "icmp.hop_limit",
        "icmp.loss_max_percent",
        "traceroute.method",
        "traceroute.hops_max",
        "traceroute.packets_per_hop",
        "tcp.starttls",
        "tcp.send",
        "tcp.expect",
        "tls.starttls",
        "udp.send",
        "udp.expect",
        "grpc.tls",
        "grpc.server_name",
        "grpc.service",
        "websocket.url",
        "websocket.header",
        "websocket.send",
        "websocket.expect",
        "quic.alpn",
        "quic.server_name",
        "domain.name",
        "domain.server",
        "reach.family",
        "reach.addresses",
        "reach.resolver",
        "reach.resolve_to",
        "assertions",
    ];

    /// Every option of every command.
    fn options(command: &Command, found: &mut Vec<String>) {
        found.extend(command.get_arguments().filter_map(|argument| Some(format!("--{}", argument.get_long()?))));
        found
            .extend(command.get_arguments().filter(|one| one.is_positional()).map(|one| format!("<{}>", one.get_id())));
        command.get_subcommands().for_each(|inner| options(inner, found));
    }

    /// An option of a command with the name of one of all commands would take its place, and end the program.
    #[test]
    fn no_command_has_an_option_of_all_commands_for_its_own() {
        fn own(command: &Command, of_all: &[String], faults: &mut Vec<String>) {
            for inner in command.get_subcommands() {
                let clashes = inner.get_arguments().filter(|one| of_all.contains(&one.get_id().to_string()));
                faults.extend(clashes.map(|one| format!("{}: {}", inner.get_name(), one.get_id())));
                own(inner, of_all, faults);
            }
        }
        let cli = crate::cli::Cli::command();
        let of_all: Vec<_> = cli.get_arguments().map(|one| one.get_id().to_string()).collect();
        assert!(of_all.contains(&"ca".to_owned()), "{of_all:?}");
        let mut faults = Vec::new();
        own(&cli, &of_all, &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
    }

    #[test]
    fn every_field_that_the_collector_may_refuse_is_something_that_can_be_typed() {
        let mut known = Vec::new();
        options(&crate::cli::Cli::command(), &mut known);
        for field in REFUSED {
            let typed = typed(field);
            assert!(known.iter().any(|option| option.eq_ignore_ascii_case(&typed)), "{field}: {typed} is no option");
        }
        assert_eq!(typed("http.url"), "--url");
        assert_eq!(typed("icmp.payload_bytes"), "--payload-bytes");
    }
}
