//! The HTTP server that probe and peer measure: the demo target, alone in its process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use sonde_ops::demo::{Behaviour, Target};

use super::write_whole;

/// Serves until killed.
pub(super) fn run(out: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let target = Target::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Behaviour::Healthy, None).await?;
        write_whole(out, &format!("http://{}/", target.address()))?;
        std::future::pending().await
    })
}
