//! What the local mesh consists of: its parts, its regions, its demo checks. Data only.

use rustix::process::Signal;

/// A process of the mesh.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Its name, also that of its log and pid file.
    pub(super) name: &'static str,
}

impl Part {
    /// The signal that asks it to end in order. For Postgres SIGINT is the fast shutdown; SIGTERM would wait for clients.
    pub(super) fn stop_signal(self) -> Signal {
        if self.name == POSTGRES { Signal::INT } else { Signal::TERM }
    }
}

pub(super) const POSTGRES: &str = "postgres";
pub(super) const CLICKHOUSE: &str = "clickhouse";
pub(super) const COLLECTOR: &str = "collector";
pub(super) const DEMO: &str = "demo";

/// Regions of the local mesh and the processes of their probes.
pub(super) const PROBES: [(&str, &str); 3] =
    [("eu-west", "probe-eu-west"), ("us-east", "probe-us-east"), ("ap-south", "probe-ap-south")];

/// Every part, in the order in which they are stopped.
pub(super) const STOP_ORDER: [Part; 7] = [
    Part { name: PROBES[0].1 },
    Part { name: PROBES[1].1 },
    Part { name: PROBES[2].1 },
    Part { name: DEMO },
    Part { name: COLLECTOR },
    Part { name: CLICKHOUSE },
    Part { name: POSTGRES },
];
