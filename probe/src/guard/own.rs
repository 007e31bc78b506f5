//! The mesh's own endpoints, as far as they are known at this moment. Shared by the guard, which refuses them, and the link,
//! which learns them. What is learnt is never forgotten, and never widens what a check may reach.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use sonde_proto::model::address::{Forbidden, vet_own};

/// Most endpoints that are kept: those of 64 collectors with four ports and some addresses each. A mesh that names more
/// is not ours.
const ENDPOINTS_MAX: usize = 1_024;

/// Endpoints that no check reaches, whatever the operator allows.
#[derive(Debug, Clone, Default)]
pub struct OwnEndpoints(Arc<RwLock<Vec<SocketAddr>>>);

impl OwnEndpoints {
    /// Adds endpoints. An unspecified address stands for every address of this machine.
    pub fn learn(&self, endpoints: impl IntoIterator<Item = SocketAddr>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut all: BTreeSet<SocketAddr> = known.iter().copied().collect();
        for endpoint in endpoints {
            if all.len() >= ENDPOINTS_MAX {
                tracing::warn!(%endpoint, "the mesh has too many endpoints; checks are not kept from this one");
                break;
            }
            all.insert(endpoint);
        }
        *known = all.into_iter().collect();
    }

    /// Adds what a collector says of itself: where it listens, as its own machine names it, and each of its ports at every
    /// address where it was reached, since a port that is bound to all addresses or forwarded is there as well.
    pub fn learn_collector(&self, endpoints: &[SocketAddr], reached: &[IpAddr]) {
        let at =
            |ip: &IpAddr| endpoints.iter().map(|endpoint| SocketAddr::new(*ip, endpoint.port())).collect::<Vec<_>>();
        self.learn(endpoints.iter().copied().chain(reached.iter().flat_map(at)));
    }

    /// Refuses a target that would arrive at one of them.
    ///
    /// # Errors
    /// [`Forbidden`].
    pub(super) fn vet(&self, target: SocketAddr) -> Result<(), Forbidden> {
        vet_own(target, &self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_learnt_is_refused_by_every_holder_and_stays() {
        let (own, other) = (OwnEndpoints::default(), OwnEndpoints::default());
        let guard = own.clone();
        assert_eq!(guard.vet(endpoint("127.0.0.1:7403")), Ok(()));
        own.learn([endpoint("127.0.0.1:7403"), endpoint("0.0.0.0:7404")]);
        own.learn([endpoint("[2a00:1::1]:7403")]);
        for text in ["127.0.0.1:7403", "[::ffff:127.0.0.1]:7403", "127.0.0.9:7404", "[::1]:7404", "[2a00:1::1]:7403"] {
            assert!(guard.vet(endpoint(text)).is_err(), "{text}");
            assert_eq!(other.vet(endpoint(text)), Ok(()), "{text}");
        }
        assert_eq!(guard.vet(endpoint("127.0.0.1:7405")), Ok(()));
    }

    #[test]
    fn every_port_of_a_collector_is_refused_wherever_it_was_reached() {
        let own = OwnEndpoints::default();
        let endpoints = ["0.0.0.0:7401", "10.0.0.5:7403", "127.0.0.1:7404"].map(endpoint);
        own.learn_collector(&endpoints, &["5.6.7.8".parse().unwrap(), "2a00:1::1".parse().unwrap()]);
        for text in [
            "127.0.0.1:7401",
            "10.0.0.5:7403",
            "127.0.0.1:7404",
            "5.6.7.8:7401",
            "5.6.7.8:7403",
            "[::ffff:5.6.7.8]:7404",
            "[64:ff9b::506:708]:7403",
            "[2a00:1::1]:7404",
        ] {
            assert!(own.vet(endpoint(text)).is_err(), "{text}");
        }
        for text in ["5.6.7.8:443", "10.0.0.5:7401", "10.0.0.6:7403"] {
            assert_eq!(own.vet(endpoint(text)), Ok(()), "{text}");
        }
    }

    #[test]
    fn more_than_a_mesh_has_is_not_kept() {
        let own = OwnEndpoints::default();
        own.learn((0..ENDPOINTS_MAX + 5).map(|n| SocketAddr::from(([127, 0, 0, 1], u16::try_from(n + 1).unwrap()))));
        assert!(own.vet(endpoint("127.0.0.1:1024")).is_err());
        assert_eq!(own.vet(endpoint("127.0.0.1:1025")), Ok(()));
    }
}
