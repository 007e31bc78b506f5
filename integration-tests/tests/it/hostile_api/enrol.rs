//! Those who would join without being asked: each is refused in one sentence, and no probe appears.

use std::process::Command;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use sonde_integration_tests::mesh::Mesh;
use sonde_integration_tests::process::program;
use sonde_proto::convert::join_string_decode;
use sonde_proto::wire;
use sonde_proto::wire::enrolment_client::EnrolmentClient;
use sqlx::Connection as _;
use tonic::Code;

use super::raw::{call, methods};
use super::{bearer, key};
use crate::ports::channel;

fn csr() -> Vec<u8> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
}

fn join_string(mesh: &Mesh, name: &str) -> String {
    let token = mesh.cli().json(&["probe", "join-token", "--region", "eu-west", "--name", name]).json();
    token["join_string"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_enrols_with_what_is_no_join_string() {
    let mesh = Mesh::start(&[]).await;
    assert_eq!(mesh.cli().run(&["region", "create", "--name", "eu-west"]).code, 0);
    let token = join_string_decode(&join_string(&mesh, "wanted")).unwrap().token;
    let good = wire::JoinRequest { token, csr_der: csr(), version: "0.1.0".into() };
    let with = |change: fn(&mut wire::JoinRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let cases = [
        ("join string", Code::PermissionDenied, with(|it| it.token = Vec::new())),
        ("join string", Code::PermissionDenied, with(|it| it.token = vec![0; 32])),
        ("join string", Code::PermissionDenied, with(|it| it.token.truncate(31))),
        ("join string", Code::PermissionDenied, with(|it| it.token.push(0))),
        ("csr_der", Code::InvalidArgument, with(|it| it.csr_der = Vec::new())),
        ("csr_der", Code::InvalidArgument, with(|it| it.csr_der = vec![0x30; 8_192])),
        ("csr_der", Code::InvalidArgument, with(|it| it.csr_der.truncate(100))),
        ("csr_der", Code::InvalidArgument, with(|it| *it.csr_der.last_mut().unwrap() ^= 1)),
        ("version", Code::InvalidArgument, with(|it| it.version = "9".repeat(65))),
    ];
    let mut enrol = EnrolmentClient::new(channel(&mesh, mesh.endpoints.enrol).await);
    for (word, code, request) in cases {
        let said = enrol.join(request).await.unwrap_err();
        assert_eq!(said.code(), code, "{said:?}");
        assert!(said.message().contains(word), "{word}: {said:?}");
    }
    assert_eq!(mesh.cli().json(&["probe", "list"]).rows().len(), 0);
    // None of them has used the string up.
    enrol.join(good).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_string_that_is_used_or_has_expired_says_what_to_do() {
    let mesh = Mesh::start(&[]).await;
    assert_eq!(mesh.cli().run(&["region", "create", "--name", "eu-west"]).code, 0);
    let join = |text: &str, folder: &str| {
        let output = Command::new(program("sonde-probe"))
            .args(["join", "--join-string", text, "--data-dir"])
            .arg(mesh.dir.path().join(folder))
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (used, late) = (join_string(&mesh, "one"), join_string(&mesh, "two"));
    assert_eq!(join(&used, "one").0, Some(0));
    let mut db = sqlx::PgConnection::connect(&mesh.db.url).await.unwrap();
    let moved = sqlx::query("update join_tokens set expires_at = now() - interval '1 second' where used_at is null");
    assert_eq!(moved.execute(&mut db).await.unwrap().rows_affected(), 1);
    for (text, folder) in [(&used, "again"), (&late, "two")] {
        let (code, said) = join(text, folder);
        assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("used or expired") && said.contains("sonde probe join-token"), "{said}");
        assert!(!mesh.dir.path().join(folder).join("state.json").exists(), "nobody has joined");
    }
    assert_eq!(mesh.cli().json(&["probe", "list"]).rows().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_port_serves_the_calls_of_another() {
    let mesh = Mesh::start(&[]).await;
    let (_, secret) = key(&mesh, "all", "*", "");
    let (admin, enrol) = (channel(&mesh, mesh.endpoints.admin).await, channel(&mesh, mesh.endpoints.enrol).await);
    for (port, files) in [(&admin, ["enrol.proto", "session.proto"]), (&enrol, ["admin.proto", "session.proto"])] {
        for file in files {
            for method in methods(file) {
                let said = call(port, &method.path, Some(&bearer(&secret)), Vec::new()).await.unwrap_err();
                assert_eq!(said.code(), Code::Unimplemented, "{}: {said:?}", method.path);
            }
        }
    }
    let wrong = mesh.cli();
    for port in [mesh.endpoints.mesh, mesh.endpoints.enrol, mesh.endpoints.web] {
        let said = wrong.run(&["check", "list", "--endpoint", &format!("https://{port}")]);
        assert_eq!(said.code, 6, "{said:?}");
        assert!(said.stderr.contains("admin port"), "says which port it must be: {said:?}");
    }
}
