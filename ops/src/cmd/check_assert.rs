//! The flags of a check that say what a good answer must also be. Never judges an assertion.

use clap::Args;
use sonde_proto::wire;

/// What a new check demands.
#[derive(Debug, Args, Default)]
pub(crate) struct AssertArgs {
    /// What must hold, or the run has failed, such as 'status == 200', 'header content-type contains json',
    /// 'json $.status == ok' or 'tls_cert_days_left > 14'; repeatable
    #[arg(long = "assert", value_name = "LINE")]
    assertions: Vec<String>,
    /// What must hold, or the answer counts as degraded, such as 'ttfb < 300ms'; repeatable
    #[arg(long, value_name = "LINE")]
    assert_or_degraded: Vec<String>,
    /// Expect the target to fail: a good answer is the failure
    #[arg(long)]
    inverted: bool,
}

impl From<AssertArgs> for wire::Assertions {
    fn from(args: AssertArgs) -> Self {
        Self { all: all(args.assertions, args.assert_or_degraded), inverted: args.inverted }
    }
}

/// What a check demands from now on.
#[derive(Debug, Args, Default)]
pub(crate) struct AssertChanges {
    /// New assertions; replaces all of them, also those that degrade
    #[arg(long = "assert", value_name = "LINE")]
    assertions: Vec<String>,
    /// New assertions that only degrade; replaces all of them, also those of --assert
    #[arg(long, value_name = "LINE")]
    assert_or_degraded: Vec<String>,
    /// Forget all assertions
    #[arg(long, conflicts_with_all = ["assertions", "assert_or_degraded"])]
    no_assertions: bool,
    /// Whether the target is expected to fail
    #[arg(long, value_name = "true|false")]
    inverted: Option<bool>,
}

impl AssertChanges {
    /// Whether no flag was given.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { assertions, assert_or_degraded, no_assertions, inverted } = self;
        assertions.is_empty() && assert_or_degraded.is_empty() && !no_assertions && inverted.is_none()
    }

    /// Changes `demanded` in place.
    pub(crate) fn apply(self, demanded: &mut Option<wire::Assertions>) {
        if self.is_empty() {
            return;
        }
        let demanded = demanded.get_or_insert_default();
        let lines = all(self.assertions, self.assert_or_degraded);
        if self.no_assertions || !lines.is_empty() {
            demanded.all = lines;
        }
        if let Some(inverted) = self.inverted {
            demanded.inverted = inverted;
        }
    }
}

fn all(failing: Vec<String>, degrading: Vec<String>) -> Vec<wire::Assertion> {
    let one = |severity: &'static str| move |text| wire::Assertion { text, severity: severity.to_owned() };
    failing.into_iter().map(one("failed")).chain(degrading.into_iter().map(one("degraded"))).collect()
}

/// What a check demands as JSON.
pub(crate) fn details(demanded: Option<&wire::Assertions>) -> serde_json::Value {
    let demanded = demanded.cloned().unwrap_or_default();
    let one = |one: &wire::Assertion| serde_json::json!({"text": one.text, "severity": one.severity});
    serde_json::json!({"all": demanded.all.iter().map(one).collect::<Vec<_>>(), "inverted": demanded.inverted})
}

/// What a check demands as rows for people.
pub(crate) fn settings(details: &serde_json::Value) -> Vec<(&'static str, String)> {
    let all = details["all"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |(place, one): (usize, &serde_json::Value)| {
        let text = one["text"].as_str().unwrap_or_default();
        let label = if one["severity"] == "degraded" { "assert or degraded" } else { "assert" };
        (label, format!("{place}: {text}"))
    };
    let mut rows: Vec<_> = (1..).zip(all).map(row).collect();
    if details["inverted"] == true {
        rows.push(("inverted", "yes: the target is to fail".to_owned()));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_replaces_all_lines_or_none() {
        let mut demanded = None;
        AssertChanges::default().apply(&mut demanded);
        assert_eq!(demanded, None);
        let lines = AssertChanges {
            assertions: vec!["status == 200".to_owned()],
            assert_or_degraded: vec!["total < 1s".to_owned()],
            ..AssertChanges::default()
        };
        lines.apply(&mut demanded);
        AssertChanges { inverted: Some(true), ..AssertChanges::default() }.apply(&mut demanded);
        let expected = [
            ("assert", "1: status == 200".to_owned()),
            ("assert or degraded", "2: total < 1s".to_owned()),
            ("inverted", "yes: the target is to fail".to_owned()),
        ];
        assert_eq!(settings(&details(demanded.as_ref())), expected);
        AssertChanges { no_assertions: true, ..AssertChanges::default() }.apply(&mut demanded);
        assert_eq!(settings(&details(demanded.as_ref())).len(), 1);
        assert_eq!(settings(&details(None)), []);
    }
}
