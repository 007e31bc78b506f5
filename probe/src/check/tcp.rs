//! One TCP handshake. Never sends a byte.

use sonde_proto::model::check::TcpSpec;
use sonde_proto::model::error_class::ErrorClass;

use super::Context;
use super::reach;
use super::trace::Trace;

pub(crate) async fn run(spec: &TcpSpec, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    let target = reach::find(&spec.host, spec.port, context, trace).await?;
    reach::connect(target, context, trace).await?;
    Ok(())
}
