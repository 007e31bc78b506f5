//! Verifies the rules that every check shares: name, rhythm and regions. Never looks anything up.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::dialogue::ReadPattern;
use super::{
    Assertions, CheckDraft, CheckKind, CheckSpec, INTERVAL_MAX, INTERVAL_MIN, KindDraft, NAME_CHARS_MAX, Pattern,
    REGIONS_MAX, Reach, TIMEOUT_MAX, TIMEOUT_MIN,
};
use crate::model::InvalidField;
use crate::model::id::{RegionId, cut};

impl CheckSpec {
    /// Verifies a draft.
    ///
    /// # Errors
    /// Names the first field that makes no sense, and what would.
    pub fn new(draft: CheckDraft) -> Result<Self, InvalidField> {
        Self::read(draft, CheckKind::parse, Pattern::new)
    }

    /// Reads what [`CheckSpec::draft`] wrote, and takes its word for what is costly to verify.
    ///
    /// # Errors
    /// As [`CheckSpec::new`].
    pub fn restore(draft: CheckDraft) -> Result<Self, InvalidField> {
        Self::read(draft, CheckKind::restore, Pattern::known)
    }

    fn read(
        draft: CheckDraft,
        kind: fn(KindDraft) -> Result<CheckKind, InvalidField>,
        pattern: ReadPattern,
    ) -> Result<Self, InvalidField> {
        let name = name(draft.name)?;
        let kind = kind(draft.kind)?;
        let reach = Reach::parse(&draft.reach, &kind)?;
        let interval = interval(draft.interval)?;
        let timeout = timeout(draft.timeout)?;
        kind.fits(timeout)?;
        if interval < timeout {
            return Err(InvalidField::new(
                "interval",
                format!(
                    "{} is shorter than the timeout of {}: use a longer interval or a shorter timeout",
                    Shown(interval),
                    Shown(timeout)
                ),
            ));
        }
        let degraded_after = draft.degraded_after.map(|after| degraded_after(after, timeout)).transpose()?;
        let regions = regions(&draft.regions)?;
        let assertions = Assertions::read(&draft.assertions, &kind, pattern)?;
        if assertions.is_inverted && degraded_after.is_some() {
            let reason = "cannot degrade an inverted check, for which a good answer is the failure: leave it out";
            return Err(InvalidField::new("degraded_after", reason));
        }
        Ok(Self { name, kind, reach, interval, timeout, regions, degraded_after, assertions, paused: draft.paused })
    }
}

fn name(name: String) -> Result<String, InvalidField> {
    let refuse = |reason: String| Err(InvalidField::new("name", reason));
    if name.is_empty() {
        return refuse(format!("is empty: give the check a name of 1 to {NAME_CHARS_MAX} characters"));
    }
    // A character has at most four bytes, so a hostile text is not walked to its end.
    if name.len() > 4 * NAME_CHARS_MAX || name.chars().count() > NAME_CHARS_MAX {
        return refuse(format!("`{}` is too long: use at most {NAME_CHARS_MAX} characters", cut(&name)));
    }
    if name.chars().any(char::is_control) {
        return refuse(format!("`{}` contains a control character such as a line break: remove it", cut(&name)));
    }
    if name.trim() != name {
        return refuse(format!("`{}` begins or ends with a space: remove it", cut(&name)));
    }
    Ok(name)
}

fn interval(interval: Duration) -> Result<Duration, InvalidField> {
    within("interval", interval, INTERVAL_MIN, INTERVAL_MAX)?;
    if !interval.subsec_nanos().is_multiple_of(1_000_000) {
        return Err(InvalidField::new("interval", format!("{interval:?} is not a whole number of milliseconds")));
    }
    Ok(interval)
}

fn timeout(timeout: Duration) -> Result<Duration, InvalidField> {
    within("timeout", timeout, TIMEOUT_MIN, TIMEOUT_MAX)?;
    whole_micros("timeout", timeout)
}

fn degraded_after(after: Duration, timeout: Duration) -> Result<Duration, InvalidField> {
    if after.is_zero() {
        return Err(InvalidField::new("degraded_after", "is zero: leave it out, or use a time above zero"));
    }
    if after >= timeout {
        return Err(InvalidField::new(
            "degraded_after",
            format!(
                "{} is not shorter than the timeout of {}: no answer could ever be degraded",
                Shown(after),
                Shown(timeout)
            ),
        ));
    }
    whole_micros("degraded_after", after)
}

fn within(field: &str, value: Duration, min: Duration, max: Duration) -> Result<(), InvalidField> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(InvalidField::new(field, format!("{} is not within {} to {}", Shown(value), Shown(min), Shown(max))))
}

/// The wire carries microseconds: what it cannot carry is refused here rather than rounded there.
fn whole_micros(field: &str, value: Duration) -> Result<Duration, InvalidField> {
    if value.subsec_nanos().is_multiple_of(1_000) {
        return Ok(value);
    }
    Err(InvalidField::new(field, format!("{value:?} is not a whole number of microseconds")))
}

fn regions(names: &[String]) -> Result<BTreeSet<RegionId>, InvalidField> {
    let refuse = |reason: String| Err(InvalidField::new("regions", reason));
    if names.is_empty() {
        return refuse(format!("is empty: name 1 to {REGIONS_MAX} regions to run from"));
    }
    if names.len() > REGIONS_MAX {
        return refuse(format!("names {} regions: at most {REGIONS_MAX} are possible", names.len()));
    }
    let region =
        |name: &String| RegionId::new(name.as_str()).map_err(|invalid| InvalidField::new("regions", invalid.reason));
    names.iter().map(region).collect()
}

/// A duration as the command line spells it: `5s`, `10ms`; days are seconds.
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        if nanos == 0 {
            write!(f, "{seconds}s")
        } else if nanos.is_multiple_of(1_000_000) {
            write!(f, "{}ms", self.0.as_millis())
        } else {
            write!(f, "{}us", self.0.as_micros())
        }
    }
}
