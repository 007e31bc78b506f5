//! The registration of a domain, asked of a server of RDAP with Python's own HTTP.

use sonde_integration_tests::mesh::Mesh;

use super::{COMMON, Certificate, PHASES, REGIONS, Servers, run};

#[tokio::test(flavor = "multi_thread")]
async fn registrations_of_domains_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(dir.path());
    let servers = Servers::start(&certificate);
    let mesh = Mesh::start_trusting(&REGIONS, &certificate.authority).await;
    let port = servers.port("rdap");
    let server = format!("https://localhost:{port}/rdap/");
    let moved = format!("https://localhost:{port}/old");
    let good = ["domain", "--domain", "good.example", "--server"];
    let other = |domain: &'static str, name: &'static str| {
        vec!["domain", "--domain", domain, "--server", &server, "--name", name]
    };
    let far = ["--assert", "domain_days_left > 30"];
    let too_far = ["--assert", "domain_days_left > 1000000"];
    run(
        &mesh,
        &[
            ([&good[..], &[&server, "--name", "good"], &far].concat(), "ok", None, Some(200), &PHASES),
            ([&good[..], &[&moved, "--name", "moved"]].concat(), "ok", None, Some(200), &PHASES),
            (
                [&good[..], &[&server, "--name", "near"], &too_far].concat(),
                "failed",
                Some("assertion_failed"),
                Some(200),
                &PHASES,
            ),
            (other("ended.example", "ended"), "failed", Some("domain_expired"), Some(200), &PHASES),
            (other("endless.example", "endless"), "failed", Some("domain_no_expiry"), Some(200), &PHASES),
            (other("absent.example", "absent"), "failed", Some("domain_not_found"), Some(404), &PHASES),
        ],
    )
    .await;
    let check = mesh.create_check(&[&good[..], &[&server, "--name", "days"], &COMMON].concat());
    for sample in mesh.wait_for_samples(&check, &REGIONS, 1).await {
        assert!(sample["readings"]["domain_seconds_left"].as_i64() > Some(900 * 365 * 86_400), "{sample}");
    }
    let updated = mesh.cli().json(&["check", "update", "days", "--domain", "ended.example", "--server", &moved]);
    let told = updated.json().to_string();
    assert!(told.contains("ended.example") && told.contains("/old"), "{told}");
}
