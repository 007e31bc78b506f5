//! Samples as the admin API shows them: every field arrives.

use super::*;

fn part() -> Part {
    Part {
        kind: PartKind::Redirect,
        number: 2,
        addr: Some([192, 0, 2, 1].into()),
        error: Some(ErrorClass::HttpStatus),
        status_code: Some(503),
        phases: Phases { dns_us: Some(1), ..Phases::default() },
        total_us: 7,
        sent: 8,
        received: 9,
    }
}

#[test]
fn a_sample_is_shown_with_all_its_fields() {
    let (check, probe) = (CheckId(Uuid::from_u128(1)), ProbeId(Uuid::from_u128(2)));
    let part = part();
    let readings = vec![Reading { key: ReadingKey::TlsCertSecondsLeft, value: -5 }];
    let detail = Detail { readings, parts: vec![part] };
    let sample = Sample {
        check,
        generation: Generation(3),
        kind: RunKind::Scheduled,
        slot_at: Wall(1_000_000),
        started_at: Wall(1_000_250),
        outcome: Outcome::Failed,
        error: Some(ErrorClass::HttpStatus),
        phases: Phases {
            dns_us: None,
            connect_us: Some(2),
            tls_us: Some(3),
            send_us: Some(4),
            ttfb_us: Some(5),
            transfer_us: Some(6),
        },
        total_us: 25,
        status_code: Some(503),
        bytes: Some(12),
        detail: Some(Box::new(detail)),
    };
    let stored = StoredSample { probe, boot: BootId(Uuid::from_u128(4)), seq: Seq(9), sample };
    let row = sample_row(&stored, &RegionId::new("eu-west").unwrap());
    let expected = wire::SampleRow {
        check_id: check.to_string(),
        probe_id: probe.to_string(),
        region: "eu-west".to_owned(),
        slot_at_us: 1_000_000,
        started_at_us: 1_000_250,
        outcome: "failed".to_owned(),
        error: "http_status".to_owned(),
        dns_us: None,
        connect_us: Some(2),
        tls_us: Some(3),
        send_us: Some(4),
        ttfb_us: Some(5),
        transfer_us: Some(6),
        total_us: 25,
        status_code: Some(503),
        bytes: Some(12),
        readings: vec![wire::SampleReading { name: "tls_cert_seconds_left".to_owned(), value: -5 }],
        parts: vec![wire::SamplePart {
            kind: "redirect".to_owned(),
            number: 2,
            addr: "192.0.2.1".to_owned(),
            error: "http_status".to_owned(),
            status_code: Some(503),
            dns_us: Some(1),
            total_us: 7,
            sent: 8,
            received: 9,
            ..wire::SamplePart::default()
        }],
    };
    assert_eq!(row, expected);
}
