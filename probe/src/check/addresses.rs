//! Every address of a name in one run. Never measures two at the same time, and never resolves the name a second time.
//!
//! The name is resolved once; then each address is measured as a run measures a single one, one after another: nothing of one
//! stands in the phases of another, and a run holds no more sockets and memory than any other. Each may take an equal
//! share of the time that is left, so that a silent one takes nothing from those after it.
//!
//! Each address is a part with phases, status and end of its own. The run as a whole reads as its worst address: the first
//! that failed, else the slowest; its phases follow the lookup, and the total is that of both. So a percentile of such a
//! check is comparable with that of a check of one address, and does not grow with the number of addresses.

use std::net::IpAddr;

use sonde_proto::model::check::Host;
use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;

use super::trace::Trace;
use super::{Context, Order, measure, reach};

/// Most addresses that are measured. How many there are is a reading, so what is left out can be seen.
const ADDRESSES_MAX: usize = 16;

pub(super) async fn run(order: Order<'_>, context: &Context, trace: &mut Trace) -> Result<(), ErrorClass> {
    let kind = order.kind;
    let Some(Host::Name(name)) = kind.host() else {
        // An address has no others.
        return measure(kind, context, trace).await;
    };
    let mut addresses = reach::find_all(&name, context, trace).await?;
    trace.read(ReadingKey::Addresses, i64::try_from(addresses.len()).unwrap_or(i64::MAX));
    addresses.truncate(ADDRESSES_MAX);

    let (host, count) = (Host::Name(name), addresses.len());
    let mut worst: Option<Ended> = None;
    for (done, addr) in addresses.into_iter().enumerate() {
        let ended = one(order, &host, addr, context, trace.share(count - done)).await;
        trace.part(ended.trace.as_part(done + 1, addr, ended.result));
        if worst.as_ref().is_none_or(|worst| ended.is_worse_than(worst)) {
            worst = Some(ended);
        }
    }
    let Some(Ended { trace: deciding, result }) = worst else { return Err(ErrorClass::DnsNoData) };
    trace.adopt(deciding);
    result
}

/// The measurement of one address.
struct Ended {
    trace: Trace,
    result: Result<(), ErrorClass>,
}

impl Ended {
    fn is_worse_than(&self, other: &Self) -> bool {
        match (self.result, other.result) {
            (Err(_), Ok(())) => true,
            (_, Err(_)) => false,
            (Ok(()), Ok(())) => self.trace.total() > other.trace.total(),
        }
    }
}

async fn one(order: Order<'_>, host: &Host, addr: IpAddr, context: &Context, mut trace: Trace) -> Ended {
    trace.way.settle(host.clone(), addr);
    let result = measure(order.kind, context, &mut trace).await;
    // An answer that is good enough at one address says nothing about that of another.
    let result = result.and_then(|()| trace.demand(order.assertions));
    Ended { trace, result }
}
