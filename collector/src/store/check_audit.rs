//! What the audit log keeps of a check: everything but what may be a secret. Header values and bodies are hidden,
//! and a change of them is still told.

use serde_json::Value;
use sonde_proto::convert::check_to_json;
use sonde_proto::model::check::{CheckKind, CheckSpec};

const HIDDEN: &str = "(hidden)";

/// A check without its secrets.
pub(super) fn state(spec: &CheckSpec) -> Value {
    let mut shown = spec.clone();
    let mut has_body = false;
    match &mut shown.kind {
        CheckKind::Http(http) => {
            for (_, value) in &mut http.headers {
                HIDDEN.clone_into(value);
            }
            has_body = !http.body.is_empty();
            http.body.clear();
        }
        CheckKind::Tcp(_) | CheckKind::Tls(_) | CheckKind::Dns(_) | CheckKind::Icmp(_) => {}
    }
    let mut json = check_to_json(&shown);
    if has_body && let Some(http) = json.pointer_mut("/kind/http").and_then(Value::as_object_mut) {
        http.insert("body".to_owned(), HIDDEN.into());
    }
    json
}

/// A check before and after a change. When what is hidden changed, the state after says so.
pub(super) fn change(before: &CheckSpec, after: &CheckSpec) -> (Value, Value) {
    let (old, mut new) = (state(before), state(after));
    if secrets(before) != secrets(after)
        && let Some(fields) = new.as_object_mut()
    {
        fields.insert("hidden_changed".to_owned(), Value::Bool(true));
    }
    (old, new)
}

/// The parts that [`state`] hides.
fn secrets(spec: &CheckSpec) -> (Vec<&str>, &[u8]) {
    match &spec.kind {
        CheckKind::Http(http) => (http.headers.iter().map(|(_, value)| value.as_str()).collect(), &http.body),
        CheckKind::Tcp(_) | CheckKind::Tls(_) | CheckKind::Dns(_) | CheckKind::Icmp(_) => (Vec::new(), &[]),
    }
}
