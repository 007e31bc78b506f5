//! One TCP handshake; then, where the check wants it, an upgrade to TLS, something to say and something to hear. Never
//! reads a byte that the check does not ask for.
//!
//! `tls` begins after `connect`: it holds the talk that leads to TLS as well, since its packets, too, stand between the
//! connection and the first byte that may be said in private. The other phases are those of [`dialogue`].

use sonde_proto::model::check::{Pattern, TcpSpec};
use sonde_proto::model::error_class::ErrorClass;

use super::trace::Trace;
use super::{Context, dialogue, reach, starttls, tls};

pub(crate) async fn run(spec: &TcpSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    let searcher = spec.expect.as_ref().map(Pattern::searcher).transpose()?;
    let matches = searcher.map(|mut searcher| move |heard: &[u8]| searcher.end_of_match(heard));
    let upgrade = match spec.starttls {
        None => None,
        Some(protocol) => Some((protocol, tls::peer_name(&spec.host, None)?)),
    };
    let target = reach::find(&spec.host, spec.port, context, trace).await?;
    let stream = reach::connect(target, context, trace).await?;
    let Some((protocol, name)) = upgrade else {
        return dialogue::hold(stream, &spec.send, matches, trace).await;
    };
    let stream = starttls::upgrade(stream, protocol, &name, trace).await?;
    let stream = tls::handshake(stream, name, &[], context, trace).await?;
    dialogue::hold(stream, &spec.send, matches, trace).await
}
