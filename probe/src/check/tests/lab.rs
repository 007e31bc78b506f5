//! A network of this test's own: three routers in a row and a target behind them, each in a network namespace. Never
//! touches the machine's network, and nothing of it outlives the test.
//!
//! ```text
//! probe 10.9.0.1 -- 10.9.0.2 first 10.9.1.1 -- 10.9.1.2 second 10.9.2.1 -- 10.9.2.2 third 10.9.3.1 -- 10.9.3.2 target
//! ```
//! IPv6 is the same with `fd09:N::H` for `10.9.N.H`. Packets of more than 1,300 bytes do not fit between the second and
//! the third. The second knows no way to 10.77.0.0/16, may not pass on to 10.78.0.0/16 and cannot find 10.79.0.0/16; the
//! target drops every second echo that comes for 10.9.3.3, and every packet for 10.9.3.4.

use std::fs;
use std::process::Command;

use sonde_proto::model::address::Policy;
use sonde_proto::model::check::{CheckKind, KindDraft};

use super::{GENEROUS, assert_ok, observe};
use crate::check::Context;
use crate::clock::Clock;
use crate::guard::Guard;

/// Set in the process that runs inside the network, to a folder for the namespaces.
const INSIDE: &str = "SONDE_TEST_LAB";

const BUILD: &str = r#"
set -eu
dir=$1
ip link set lo up
for part in first second third target; do
    : >"$dir/$part"
    unshare --net="$dir/$part" true
done
at() { part=$1; shift; nsenter --net="$dir/$part" "$@"; }
# cable NUMBER RIGHT COMMAND...: a cable from where COMMAND runs to RIGHT.
cable() {
    number=$1 right=$2; shift 2
    "$@" ip link add right type veth peer name left netns "$dir/$right"
    "$@" ip addr add "10.9.$number.1/24" dev right
    "$@" ip addr add "fd09:$number::1/64" dev right nodad
    "$@" ip link set right up
    at "$right" ip link set lo up
    at "$right" ip addr add "10.9.$number.2/24" dev left
    at "$right" ip addr add "fd09:$number::2/64" dev left nodad
    at "$right" ip link set left up
    at "$right" sh -c 'cd /proc/sys/net; echo 1 >ipv4/ip_forward; echo 1 >ipv6/conf/all/forwarding
        echo 0 >ipv4/icmp_ratemask; echo 0 >ipv6/icmp/ratelimit'
}
cable 0 first env
cable 1 second at first
cable 2 third at second
cable 3 target at third
ip route add default via 10.9.0.2
ip -6 route add default via fd09:0::2
at first ip route add 10.0.0.0/8 via 10.9.1.2
at second ip route add 10.9.3.0/24 via 10.9.2.2
at second ip route add 10.78.0.0/16 via 10.9.2.2
at second ip route add unreachable 10.79.0.0/16
at first ip -6 route add default via fd09:1::2
at second ip -6 route add fd09:3::/64 via fd09:2::2
at target ip route add default via 10.9.3.1
at target ip -6 route add default via fd09:3::1
at third ip route add 10.9.0.0/23 via 10.9.2.1
at third ip -6 route add default via fd09:2::1
at second ip route add 10.9.0.0/24 via 10.9.1.1
at second ip -6 route add fd09:0::/64 via fd09:1::1
at second ip link set right mtu 1300
at third ip link set left mtu 1300
at target ip addr add 10.9.3.3/24 dev left
at target ip addr add 10.9.3.4/24 dev left
at second nft -f - <<'RULES'
table inet lab { chain forward { type filter hook forward priority 0; policy accept;
    ip daddr 10.78.0.0/16 reject with icmp type admin-prohibited
}
}
RULES
at target nft -f - <<'RULES'
table inet lab { chain input { type filter hook input priority 0; policy accept;
    ip daddr 10.9.3.3 icmp type echo-request numgen inc mod 2 1 drop
    ip daddr 10.9.3.4 drop
}
}
RULES
"#;

/// Runs `body` in the network, in another process; `test` is the whole name of the test that calls.
pub(super) fn in_lab<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    if let Some(dir) = std::env::var_os(INSIDE) {
        let build = Command::new("sh").env("PATH", path).args(["-c", BUILD, "sh"]).arg(dir).output().unwrap();
        assert!(build.status.success(), "the network cannot be built: {}", String::from_utf8_lossy(&build.stderr));
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body());
        return;
    }
    // What holds the namespaces is mounted for that process only, so that the folder can be removed after it.
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    if !is_real_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .env("PATH", path)
        .env(INSIDE, dir.path())
        .args(["--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap());
    let output = command.args([test, "--exact", "--nocapture", "--test-threads=1"]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "the test is not called {test}: {said}");
}

/// Whether this user is root, with all the users of the system below it.
fn is_real_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let users: u64 = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum();
    rustix::process::geteuid().is_root() && users > u64::from(u16::MAX)
}

/// Lets this process open ICMP datagram sockets, instead of raw ones.
pub(super) fn prefer_datagram_sockets() {
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
}

/// Lets neighbours find each other, which may take a second for each cable.
pub(super) async fn acquaint(context: &Context) {
    for host in ["10.9.3.2", "fd09:3::2"] {
        assert_ok(&observe(&CheckKind::parse(KindDraft::icmp(host)).unwrap(), context, GENEROUS).await);
    }
}

/// A context that may reach the network and nothing else.
pub(super) fn lab_context() -> Context {
    let allow = ["10.0.0.0/8", "fd09::/16"].map(|network| network.parse().unwrap()).to_vec();
    let guard = Guard::new(Policy { allow, ..Policy::default() }, None);
    Context::new(Clock::system(), guard, Vec::new()).unwrap()
}
