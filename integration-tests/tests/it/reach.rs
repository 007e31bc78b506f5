//! How a check reaches its target, from `sonde check create` to `sonde sample list`: addresses, families, resolvers, and
//! what no check reaches.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread;

use serde_json::Value;
use sonde_integration_tests::mesh::Mesh;

const REGIONS: [&str; 1] = ["eu-west"];
const COMMON: [&str; 6] = ["--interval", "2s", "--timeout", "2s", "--regions", "eu-west"];

/// Where the name leads that the resolver of these tests knows: a server, nobody, and a network that is not allowed.
const ADDRESSES: [Ipv4Addr; 3] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1)];

/// Answers each question for IPv4 with [`ADDRESSES`], each other one with nothing, until the process ends.
fn resolver() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            socket.send_to(&answer(&query[..length]), from).unwrap();
        }
    });
    addr
}

/// The answer to a query with one question (RFC 1035).
fn answer(query: &[u8]) -> Vec<u8> {
    const TYPE_A: [u8; 2] = [0, 1];
    let name = query[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let question = &query[12..12 + name + 4];
    let addresses: &[Ipv4Addr] = if question[name..name + 2] == TYPE_A { &ADDRESSES } else { &[] };
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::try_from(addresses.len()).unwrap(), 0, 0, 0, 0]);
    answer.extend(question);
    for address in addresses {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}

async fn samples(mesh: &Mesh, args: &[&str]) -> Vec<Value> {
    let id = mesh.create_check(&[args, &COMMON].concat());
    mesh.wait_for_samples(&id, &REGIONS, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_chooses_resolver_address_and_all_addresses() {
    // Connections wait in the queue of the kernel; nobody has to accept them.
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = target.local_addr().unwrap().port().to_string();
    let dns = resolver().to_string();
    let mesh = Mesh::start(&REGIONS).await;
    let named = ["--host", "shop.example", "--port", &port];

    for sample in samples(&mesh, &[&["tcp", "--name", "resolver"], &named[..], &["--resolver", &dns]].concat()).await {
        assert_eq!((&sample["outcome"], sample["dns_us"].is_u64()), (&"ok".into(), true), "{sample}");
    }
    let told = ["--resolve-to", "127.0.0.1"];
    for sample in samples(&mesh, &[&["tcp", "--name", "told"], &named[..], &told].concat()).await {
        assert_eq!((&sample["outcome"], sample["dns_us"].is_null()), (&"ok".into(), true), "{sample}");
    }
    let none = ["--resolver", &dns, "--family", "6"];
    for sample in samples(&mesh, &[&["tcp", "--name", "family"], &named[..], &none].concat()).await {
        assert_eq!(sample["error"], "dns_no_data", "{sample}");
    }
    let all = ["--resolver", &dns, "--addresses", "all"];
    for sample in samples(&mesh, &[&["tcp", "--name", "all"], &named[..], &all].concat()).await {
        assert_eq!((&sample["error"], &sample["readings"]["addresses"]), (&"connect_refused".into(), &3.into()));
        let parts = sample["parts"].as_array().unwrap();
        let ends: Vec<_> = parts.iter().map(|part| (part["addr"].as_str().unwrap(), part["error"].as_str())).collect();
        let expected =
            [("127.0.0.1", None), ("127.0.0.2", Some("connect_refused")), ("10.0.0.1", Some("address_forbidden"))];
        assert_eq!(ends, expected, "{sample}");
        assert!(parts[0]["connect_us"].is_u64() && parts[2]["connect_us"].is_null(), "{sample}");
    }

    let check = mesh.cli().json(&["check", "get", "all"]).json();
    assert_eq!(check["reach"]["addresses"], "all", "{check}");
    let check = mesh.cli().json(&["check", "update", "all", "--addresses", "first", "--resolver", ""]).json();
    assert_eq!((&check["reach"]["addresses"], &check["reach"]["resolver"]), (&"first".into(), &"".into()), "{check}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_check_reaches_the_mesh_or_what_the_probe_has_not_allowed() {
    let mesh = Mesh::start(&REGIONS).await;
    let [grpc, admin, enrol, web] =
        [mesh.endpoints.mesh, mesh.endpoints.admin, mesh.endpoints.enrol, mesh.endpoints.web]
            .map(|endpoint| endpoint.port().to_string());
    let of_web = format!("http://[::ffff:127.0.0.1]:{web}/metrics");
    // Probes of tests may reach 127.0.0.0/8 and ::1, and none of the collector's ports in it.
    let cases: [&[&str]; 8] = [
        &["tcp", "--name", "mesh", "--host", "127.0.0.1", "--port", &grpc],
        &["tls", "--name", "admin", "--host", "localhost", "--port", &admin],
        &["tls", "--name", "enrol", "--host", "127.0.0.1", "--port", &enrol],
        &["http", "--name", "web", "--url", &of_web],
        &["tcp", "--name", "web by name", "--host", "a.example", "--port", &web, "--resolve-to", "127.0.0.1"],
        &["tcp", "--name", "private", "--host", "a.example", "--port", "80", "--resolve-to", "192.168.0.1"],
        &["tcp", "--name", "metadata", "--host", "169.254.169.254", "--port", "80"],
        &["tcp", "--name", "resolver", "--host", "a.example", "--port", "80", "--resolver", "10.0.0.53"],
    ];
    let ids = cases.map(|args| mesh.create_check(&[args, &COMMON].concat()));
    for (id, args) in ids.iter().zip(cases) {
        for sample in mesh.wait_for_samples(id, &REGIONS, 1).await {
            assert_eq!(sample["error"], "address_forbidden", "{args:?}: {sample}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_nobody_can_mean_is_refused_by_its_flag() {
    let mesh = Mesh::start(&[]).await;
    assert_eq!(mesh.cli().run(&["region", "create", "--name", "eu-west"]).code, 0);
    let target = ["check", "create", "tcp", "--name", "a", "--port", "80"];
    let cases: [(&[&str], &str); 5] = [
        (&["--host", "192.0.2.1", "--family", "6"], "--family: does not fit: 192.0.2.1 is no address of IPv6"),
        (&["--host", "192.0.2.1", "--addresses", "all"], "--addresses: has no meaning for 192.0.2.1"),
        (&["--host", "a.example", "--resolver", "dns.example"], "--resolver: `dns.example` is not a server"),
        (&["--host", "a.example", "--resolve-to", "b.example"], "--resolve-to: `b.example` is not an address"),
        (
            &["--host", "a.example", "--resolve-to", "192.0.2.1", "--resolver", "9.9.9.9"],
            "--resolver: is never asked when `resolve_to` says",
        ),
    ];
    for (flags, refusal) in cases {
        let said = mesh.cli().run(&[&target[..], flags, &COMMON].concat());
        assert!(said.code != 0 && said.stderr.contains(refusal), "{flags:?}: {said:?}");
    }
}
