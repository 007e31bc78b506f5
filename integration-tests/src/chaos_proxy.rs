//! A TCP proxy with a stable address whose cable can be cut and whose far end can move. Bytes pass unchanged.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cable {
    target: Option<SocketAddr>,
    cut: u64,
    is_cut: bool,
}

/// The proxy; it closes when dropped.
#[derive(Debug)]
pub struct ChaosProxy {
    address: SocketAddr,
    cable: watch::Sender<Cable>,
    task: AbortHandle,
}

impl ChaosProxy {
    /// Listens on a free port of loopback; connections are refused to nobody, but lead nowhere before `retarget`.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (cable, state) = watch::channel(Cable { target: None, cut: 0, is_cut: false });
        #[expect(clippy::disallowed_methods, reason = "the proxy owns the task and ends it when it is dropped")]
        let task = tokio::spawn(accept(listener, state)).abort_handle();
        Self { address, cable, task }
    }

    /// Where it listens, for its whole life.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections to `target`.
    pub fn retarget(&self, target: SocketAddr) {
        self.cable.send_modify(|cable| cable.target = Some(target));
    }

    /// Ends every connection and lets none through until `heal`.
    pub fn cut(&self) {
        self.cable.send_modify(|cable| {
            cable.is_cut = true;
            cable.cut += 1;
        });
    }

    /// Lets connections through again.
    pub fn heal(&self) {
        self.cable.send_modify(|cable| cable.is_cut = false);
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<Cable>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let cable = *state.borrow();
        let Some(target) = cable.target.filter(|_| !cable.is_cut) else { continue };
        let mut state = state.clone();
        connections.spawn(async move {
            let cut = async {
                // Ends at the next cut, or when the proxy is dropped.
                let _ = state.wait_for(|now| now.cut > cable.cut).await;
            };
            tokio::select! {
                () = relay(near, target) => {}
                () = cut => {}
            }
        });
    }
}

async fn relay(mut near: TcpStream, target: SocketAddr) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    let _ = near.set_nodelay(true);
    let _ = far.set_nodelay(true);
    // Either end may go away at any time: that is what a cable is for.
    let _ = copy_bidirectional(&mut near, &mut far).await;
}
