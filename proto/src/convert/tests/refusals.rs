//! What a message may not hold, one rule after the other, and the field that the refusal names.

use super::*;

fn probe_refusal(change: impl FnOnce(&mut wire::ProbeMessage), message: FromProbe) -> String {
    let mut wire = wire::ProbeMessage::from(message);
    change(&mut wire);
    field_of(FromProbe::try_from(wire))
}

fn collector_refusal(change: impl FnOnce(&mut wire::CollectorMessage), message: FromCollector) -> String {
    let mut wire = wire::CollectorMessage::from(message);
    change(&mut wire);
    field_of(FromCollector::try_from(wire))
}

fn field_of<T: Debug>(result: Result<T, InvalidField>) -> String {
    let invalid = result.expect_err("it must be refused");
    assert!(!invalid.reason.is_empty());
    invalid.field
}

fn hello_refusal(change: impl FnOnce(&mut wire::Hello)) -> String {
    let hello = Hello {
        probe: ProbeId(Uuid::from_u128(1)),
        boot: BootId(Uuid::from_u128(2)),
        version: "0.1.0".to_owned(),
        capabilities: BTreeSet::from(Protocol::ALL),
        unacked: vec![SeqRange { first: Seq(1), last: Seq(5) }],
        wall: Wall(1),
        generation: Generation(0),
        bundle_version: 1,
        generated_through: Seq(5),
    };
    let change = |message: &mut wire::ProbeMessage| {
        let Some(probe_message::Body::Hello(hello)) = &mut message.body else { panic!() };
        change(hello);
    };
    probe_refusal(change, FromProbe::Hello(hello))
}

fn seq_range(first: u64, last: u64) -> wire::SeqRange {
    wire::SeqRange { first, last }
}

#[test]
fn a_hello_is_verified() {
    assert_eq!(hello_refusal(|h| h.probe_id = vec![0; 15]), "hello.probe_id");
    assert_eq!(hello_refusal(|h| h.boot.clear()), "hello.boot");
    assert_eq!(hello_refusal(|h| h.version = "v".repeat(65)), "hello.version");
    assert_eq!(hello_refusal(|h| h.capabilities = vec!["tcp".to_owned(); 33]), "hello.capabilities");
    assert_eq!(hello_refusal(|h| h.capabilities = vec!["x".repeat(33)]), "hello.capabilities");
    assert_eq!(hello_refusal(|h| h.capabilities = vec![String::new()]), "hello.capabilities");
    assert_eq!(hello_refusal(|h| h.unacked = vec![seq_range(0, 1)]), "hello.unacked");
    assert_eq!(hello_refusal(|h| h.unacked = vec![seq_range(2, 1)]), "hello.unacked");
    assert_eq!(hello_refusal(|h| h.unacked = vec![seq_range(1, 3), seq_range(3, 4)]), "hello.unacked");
    assert_eq!(hello_refusal(|h| h.unacked = vec![seq_range(5, 6), seq_range(1, 2)]), "hello.unacked");
    let many = (0..4_097).map(|n| seq_range(2 * n + 1, 2 * n + 1)).collect();
    assert_eq!(hello_refusal(|h| h.unacked = many), "hello.unacked");
    assert_eq!(hello_refusal(|h| h.wall_us = -1), "hello.wall_us");
    assert_eq!(hello_refusal(|h| h.wall_us = i64::MAX), "hello.wall_us");
    assert_eq!(hello_refusal(|h| h.bundle_version = 1 << 63), "hello.bundle_version");
    assert_eq!(hello_refusal(|h| h.generated_through = 1 << 63), "hello.generated_through");
}

#[test]
fn a_capability_of_the_future_is_passed_over() {
    let capabilities = vec!["telepathy".to_owned(), "tcp".to_owned()];
    let hello = wire::Hello { probe_id: vec![1; 16], boot: vec![2; 16], capabilities, ..Default::default() };
    let message = wire::ProbeMessage { body: Some(probe_message::Body::Hello(hello)) };
    let Ok(FromProbe::Hello(hello)) = FromProbe::try_from(message) else { panic!() };
    assert_eq!(hello.capabilities, BTreeSet::from([Protocol::Tcp]));
}

#[test]
fn a_batch_is_verified() {
    let refusal = |change: fn(&mut wire::Batch)| {
        let id = BatchId { boot: BootId(Uuid::from_u128(2)), first_seq: Seq(1), count: 1 };
        let change = |message: &mut wire::ProbeMessage| {
            let Some(probe_message::Body::Batch(batch)) = &mut message.body else { panic!() };
            change(batch);
        };
        probe_refusal(change, FromProbe::Batch(SealedBatch { id, columns: vec![1].into() }))
    };
    assert_eq!(refusal(|b| b.boot = vec![0; 17]), "batch.boot");
    assert_eq!(refusal(|b| b.columns = vec![0; 256 * 1024 + 1].into()), "batch.columns");
}

#[test]
fn the_other_words_of_a_probe_are_verified() {
    let probe = |body: probe_message::Body| field_of(FromProbe::try_from(wire::ProbeMessage { body: Some(body) }));
    assert_eq!(field_of(FromProbe::try_from(wire::ProbeMessage { body: None })), "body");
    assert_eq!(probe(probe_message::Body::Renew(wire::RenewRequest { csr_der: vec![0; 8_193] })), "renew.csr_der");
    assert_eq!(probe(probe_message::Body::Renew(wire::RenewRequest::default())), "renew.csr_der");
    assert_eq!(probe(probe_message::Body::Goodbye(wire::Goodbye { reason: "r".repeat(201) })), "goodbye.reason");
    let heartbeat = |change: fn(&mut wire::ProbeHeartbeat)| {
        let mut heartbeat = wire::ProbeHeartbeat { unacked_from: 1, ..Default::default() };
        change(&mut heartbeat);
        probe(probe_message::Body::Heartbeat(heartbeat))
    };
    assert_eq!(heartbeat(|h| h.wall_us = i64::MIN), "heartbeat.wall_us");
    assert_eq!(heartbeat(|h| h.generated_through = u64::MAX), "heartbeat.generated_through");
    assert_eq!(heartbeat(|h| h.oldest_unacked_slot_us = Some(-1)), "heartbeat.oldest_unacked_slot_us");
    for impossible in
        [|h: &mut wire::ProbeHeartbeat| h.unacked_from = 0, |h: &mut wire::ProbeHeartbeat| h.unacked_from = 2]
    {
        assert_eq!(heartbeat(impossible), "heartbeat.unacked_from");
    }
}

#[test]
fn a_gap_is_verified() {
    let refusal = |change: fn(&mut wire::GapReport)| {
        let mut gap = wire::GapReport {
            boot: vec![1; 16],
            range: Some(seq_range(1, 2)),
            cause: "overflow".to_owned(),
            slots_from_us: 5,
            slots_until_us: 6,
            is_at_most: false,
        };
        assert!(FromProbe::try_from(wire::ProbeMessage { body: Some(probe_message::Body::Gap(gap.clone())) }).is_ok());
        change(&mut gap);
        field_of(FromProbe::try_from(wire::ProbeMessage { body: Some(probe_message::Body::Gap(gap)) }))
    };
    assert_eq!(refusal(|g| g.boot.clear()), "gap.boot");
    assert_eq!(refusal(|g| g.range = None), "gap.range");
    assert_eq!(refusal(|g| g.range = Some(seq_range(2, 1))), "gap.range");
    assert_eq!(refusal(|g| g.range = Some(seq_range(1, u64::MAX))), "gap.range");
    for cause in ["", "Overflow", "no_probe", "store_loss"] {
        let gap = wire::GapReport {
            boot: vec![1; 16],
            range: Some(seq_range(1, 2)),
            cause: cause.to_owned(),
            ..Default::default()
        };
        let message = wire::ProbeMessage { body: Some(probe_message::Body::Gap(gap)) };
        assert_eq!(field_of(FromProbe::try_from(message)), "gap.cause", "{cause}");
    }
    assert_eq!(refusal(|g| g.slots_from_us = -1), "gap.slots_from_us");
    assert_eq!(refusal(|g| g.slots_until_us = i64::MAX), "gap.slots_until_us");
    assert_eq!(refusal(|g| g.slots_until_us = 5), "gap.slots_until_us");
}

#[test]
fn a_dictionary_is_verified() {
    let refusal = |change: fn(&mut wire::Dictionary)| {
        let entry = wire::DictionaryEntry { check_id: vec![1; 16], ..Default::default() };
        let mut dictionary = wire::Dictionary { first_index: 3, entries: vec![entry] };
        change(&mut dictionary);
        field_of(FromProbe::try_from(wire::ProbeMessage { body: Some(probe_message::Body::Dictionary(dictionary)) }))
    };
    assert_eq!(refusal(|d| d.entries.clear()), "dictionary.entries");
    assert_eq!(refusal(|d| d.entries = vec![d.entries[0].clone(); 4_097]), "dictionary.entries");
    assert_eq!(refusal(|d| d.first_index = 65_536), "dictionary.first_index");
    assert_eq!(refusal(|d| d.entries[0].check_id = vec![1; 15]), "dictionary.entries.check_id");
    assert_eq!(refusal(|d| d.entries[0].phases_us = vec![1; 5]), "dictionary.entries.phases_us");
    assert_eq!(refusal(|d| d.entries[0].phases_us = vec![1; 7]), "dictionary.entries.phases_us");
}

#[test]
fn an_outgoing_text_is_cut_to_what_the_other_end_accepts() {
    let goodbye = wire::ProbeMessage::from(FromProbe::Goodbye { reason: "ü".repeat(150) });
    assert_eq!(FromProbe::try_from(goodbye), Ok(FromProbe::Goodbye { reason: "ü".repeat(100) }));
    let refusal = FromCollector::Refusal {
        boot: BootId(Uuid::nil()),
        range: SeqRange { first: Seq(1), last: Seq(1) },
        code: "c".repeat(100),
        detail: "d".repeat(5_000),
    };
    assert!(FromCollector::try_from(wire::CollectorMessage::from(refusal)).is_ok());
}

#[test]
fn a_welcome_is_verified() {
    let refusal = |change: fn(&mut wire::Welcome)| {
        let welcome = Welcome {
            epoch: Epoch(1),
            wall: Wall(1),
            stored: Vec::new(),
            in_doubt: Vec::new(),
            limits: Limits::default(),
            collector_id: "local-1".to_owned(),
            endpoints: Vec::new(),
        };
        let change = |message: &mut wire::CollectorMessage| {
            let Some(collector_message::Body::Welcome(welcome)) = &mut message.body else { panic!() };
            change(welcome);
        };
        collector_refusal(change, FromCollector::Welcome(welcome))
    };
    let limits = |batch_samples_max, batch_age_ms_max, batches_in_flight_max| {
        Some(wire::Limits { batch_samples_max, batch_age_ms_max, batches_in_flight_max })
    };
    assert_eq!(refusal(|w| w.limits = None), "welcome.limits");
    for (limits, field) in [
        (limits(0, 10, 1), "welcome.limits.batch_samples_max"),
        (limits(1_001, 10, 1), "welcome.limits.batch_samples_max"),
        (limits(1, 9, 1), "welcome.limits.batch_age_ms_max"),
        (limits(1, 60_001, 1), "welcome.limits.batch_age_ms_max"),
        (limits(1, 10, 0), "welcome.limits.batches_in_flight_max"),
        (limits(1, 10, 1_025), "welcome.limits.batches_in_flight_max"),
    ] {
        let welcome = wire::Welcome { limits, ..Default::default() };
        let message = wire::CollectorMessage { body: Some(collector_message::Body::Welcome(welcome)) };
        assert_eq!(field_of(FromCollector::try_from(message)), field);
    }
    assert_eq!(refusal(|w| w.collector_id = "c".repeat(65)), "welcome.collector_id");
    assert_eq!(refusal(|w| w.endpoints = vec!["collector:7403".to_owned()]), "welcome.endpoints");
    assert_eq!(refusal(|w| w.endpoints = vec!["127.0.0.1:7403".to_owned(); 33]), "welcome.endpoints");
    assert_eq!(refusal(|w| w.stored = vec![wire::SeqRange { first: 0, last: 0 }]), "welcome.stored");
    assert_eq!(refusal(|w| w.in_doubt = vec![wire::SeqRange { first: 2, last: 1 }]), "welcome.in_doubt");
}

#[test]
fn an_assignment_is_verified() {
    let tcp = CheckKind::parse(KindDraft::tcp("a.example", 1)).unwrap();
    let assigned = Assigned {
        check: CheckId(Uuid::from_u128(1)),
        kind: tcp,
        reach: Reach::default(),
        assertions: crate::model::check::Assertions::default(),
        rhythm: Rhythm::new(Duration::from_secs(1), 7),
        timeout: Duration::from_secs(1),
        degraded_after: None,
        from: Wall(0),
    };
    let refusal = |change: fn(&mut wire::AssignmentUpdate)| {
        let update = AssignmentUpdate::Delta {
            base: Generation(1),
            generation: Generation(2),
            upserts: vec![assigned.clone()],
            removals: BTreeSet::from([CheckId(Uuid::from_u128(2))]),
        };
        let change = |message: &mut wire::CollectorMessage| {
            let Some(collector_message::Body::Assignment(update)) = &mut message.body else { panic!() };
            change(update);
        };
        collector_refusal(change, FromCollector::Assignment(update))
    };
    assert_eq!(refusal(|a| a.generation = 0), "assignment.generation");
    assert_eq!(refusal(|a| a.base = 2), "assignment.base");
    assert_eq!(refusal(|a| a.snapshot = true), "assignment.snapshot");
    assert_eq!(refusal(|a| a.upserts.push(a.upserts[0].clone())), "assignment.upserts");
    assert_eq!(refusal(|a| a.removals.push(a.upserts[0].check_id.clone())), "assignment.upserts");
    assert_eq!(refusal(|a| a.removals.push(a.removals[0].clone())), "assignment.removals");
    assert_eq!(refusal(|a| a.removals.push(vec![1])), "assignment.removals");
    assert_eq!(refusal(|a| a.removals = vec![vec![0; 16]; 20_001]), "assignment.removals");
    assert_eq!(refusal(|a| a.upserts = vec![a.upserts[0].clone(); 20_001]), "assignment.upserts");
    assert_eq!(refusal(|a| a.upserts[0].check_id.clear()), "assignment.upserts.check_id");
    assert_eq!(refusal(|a| a.upserts[0].interval_us = 999_999), "assignment.upserts.interval_us");
    assert_eq!(refusal(|a| a.upserts[0].interval_us = 0), "assignment.upserts.interval_us");
    assert_eq!(refusal(|a| a.upserts[0].phase_us = 1_000_000), "assignment.upserts.phase_us");
    assert_eq!(refusal(|a| a.upserts[0].timeout_us = 1_000_001), "assignment.upserts.timeout_us");
    assert_eq!(refusal(|a| a.upserts[0].timeout_us = 0), "assignment.upserts.timeout_us");
    assert_eq!(refusal(|a| a.upserts[0].degraded_after_us = 1_000_000), "assignment.upserts.degraded_after_us");
    assert_eq!(refusal(|a| a.upserts[0].from_us = -1), "assignment.upserts.from_us");
    assert_eq!(refusal(|a| a.upserts[0].kind = None), "assignment.upserts.kind");
    assert_eq!(refusal(|a| a.upserts[0].kind = Some(wire::CheckKind { kind: None })), "kind");
    assert_eq!(
        refusal(|a| {
            let kind = wire::check_kind::Kind::Tcp(wire::TcpCheck { host: "a".to_owned(), ..Default::default() });
            a.upserts[0].kind = Some(wire::CheckKind { kind: Some(kind) });
        }),
        "port"
    );
}

#[test]
fn the_other_words_of_a_collector_are_verified() {
    let collector =
        |body: collector_message::Body| field_of(FromCollector::try_from(wire::CollectorMessage { body: Some(body) }));
    assert_eq!(field_of(FromCollector::try_from(wire::CollectorMessage { body: None })), "body");
    let ack = wire::Ack { boot: vec![0; 16], ranges: (0..1_025).map(|n| seq_range(2 * n + 1, 2 * n + 1)).collect() };
    assert_eq!(collector(collector_message::Body::Ack(ack)), "ack.ranges");
    let drain = wire::Drain { reason: "r".repeat(201) };
    assert_eq!(collector(collector_message::Body::Drain(drain)), "drain.reason");
    let refusal = wire::Refusal { boot: vec![0; 16], range: None, ..Default::default() };
    assert_eq!(collector(collector_message::Body::Refusal(refusal)), "refusal.range");
    let renewed = |chain_der: Vec<Vec<u8>>, ca_der: Vec<Vec<u8>>, refused: &str| {
        let refused = refused.to_owned();
        collector(collector_message::Body::Renewed(wire::RenewAnswer { chain_der, ca_der, bundle_version: 1, refused }))
    };
    assert_eq!(renewed(vec![], vec![], ""), "renewed.chain_der");
    assert_eq!(renewed(vec![vec![1]], vec![], "no"), "renewed.chain_der");
    assert_eq!(renewed(vec![vec![1]; 17], vec![], ""), "renewed.chain_der");
    assert_eq!(renewed(vec![vec![0; 16_385]], vec![], ""), "renewed.chain_der");
    assert_eq!(renewed(vec![vec![1]], vec![vec![]], ""), "renewed.ca_der");
    assert_eq!(renewed(vec![], vec![], &"n".repeat(1_001)), "renewed.refused");
}

#[test]
fn a_definition_without_a_kind_says_so() {
    assert_eq!(field_of(check_spec(wire::CheckDefinition::default(), false)), "kind");
    let kind = Some(wire::CheckKind { kind: None });
    assert_eq!(field_of(check_spec(wire::CheckDefinition { kind, ..Default::default() }, false)), "kind");
}

#[test]
fn json_is_flat_and_strict() {
    let json = serde_json::json!({
        "name": "front page",
        "kind": {"http": {"url": "https://example.com/", "method": "GET", "expect_status": ["200-399"]}},
        "interval_us": 5_000_000, "timeout_us": 2_000_000, "regions": ["eu-west"], "paused": true,
    });
    let spec = check_from_json(&json).unwrap();
    assert!(spec.paused);
    assert_eq!(check_to_json(&spec), json);
    let with = |key: &str, value: serde_json::Value| {
        let mut changed = json.clone();
        changed[key] = value;
        field_of(check_from_json(&changed))
    };
    assert_eq!(with("intervall_us", 1.into()), "definition");
    assert_eq!(with("interval_us", "5s".into()), "definition");
    assert_eq!(with("kind", serde_json::json!({"ftp": {}})), "definition");
    assert_eq!(with("kind", serde_json::json!({"tcp": {"host": "a", "port": 1, "x": 1}})), "definition");
    assert_eq!(with("interval_us", 1_000_000.into()), "interval");
    assert_eq!(with("regions", serde_json::json!([])), "regions");
    let body = serde_json::json!({"http": {"url": "https://a.example/", "method": "PUT", "body_base64": "?", "expect_status": ["200"]}});
    assert_eq!(with("kind", body), "http.body");
    assert_eq!(field_of(check_from_json(&serde_json::Value::Null)), "definition");
}

#[test]
fn a_join_string_that_is_whole_but_senseless_is_refused() {
    let refusal = |change: fn(&mut wire::JoinString)| {
        let mut join = join_string([9; 32]);
        change(&mut join);
        let text = join_string_encode(&join);
        let invalid = join_string_decode(&text).expect_err(&text);
        assert_eq!(invalid.field, "join_string");
        assert!(!invalid.reason.contains(&text), "{invalid}");
    };
    refusal(|join| join.token.truncate(31));
    refusal(|join| join.ca_pin.clear());
    refusal(|join| join.mesh_address = "no-port".to_owned());
    refusal(|join| join.enrol_address = ":7402".to_owned());
    refusal(|join| join.enrol_address = "a:0".to_owned());
    refusal(|join| join.region = "EU".to_owned());
    refusal(|join| join.name.clear());
    for text in ["", "sondejoin_", "sondejoin_AAAA", "sondejoin_====", &format!("sondejoin_{}", "A".repeat(3_000))] {
        assert_eq!(field_of(join_string_decode(text)), "join_string", "{text}");
    }
}
