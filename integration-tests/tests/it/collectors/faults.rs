//! Collectors that are killed, stopped and continued, and cut off from Postgres.

use rustix::process::Signal;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_killed_with_9_is_replaced() {
    let (mut mesh, target, id) = pair_with_check().await;
    mesh.collector.kill9();
    let killed_at = now_us();
    let replaced = wait_for_metric(&mesh, second(&mesh), "sonde_collector_leads", 1.0).await;
    assert!(replaced < TAKE_OVER_MAX, "{replaced:?}");
    // It plans: what is new runs, what there was goes on where it was.
    let new = create(&mesh, second(&mesh), "after the take-over", &target);
    wait_for_slots(&mesh, second(&mesh), &new, now_us()).await;
    expect_no_hole(&mesh, second(&mesh), &id, killed_at).await;
    // The first comes back, and follows.
    mesh.restart_collector().await;
    wait_for_slots(&mesh, mesh.endpoints, &id, now_us()).await;
    assert_eq!(mesh.metric(mesh.endpoints, "sonde_collector_leads").await.to_bits(), 0.0_f64.to_bits());
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_of_a_collector_killed_with_9_find_the_other_and_lose_no_slot() {
    let (mut mesh, _target, id) = pair_with_check().await;
    for _ in 0..2 {
        mesh.collector.kill9();
        let killed_at = now_us();
        let moved = wait_for_metric(&mesh, second(&mesh), "sonde_collector_streams", 2.0).await;
        assert!(moved < REHOME_MAX, "{moved:?}");
        expect_no_hole(&mesh, second(&mesh), &id, killed_at).await;

        mesh.restart_collector().await;
        mesh.second.as_mut().unwrap().collector.kill9();
        let killed_at = now_us();
        let moved = wait_for_metric(&mesh, mesh.endpoints, "sonde_collector_streams", 2.0).await;
        assert!(moved < REHOME_MAX, "{moved:?}");
        expect_no_hole(&mesh, mesh.endpoints, &id, killed_at).await;
        mesh.restart_second().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_inserts_nothing_that_the_other_has_taken_over() {
    let (mesh, _target, id) = pair_with_check().await;
    let inserts = "sonde_collector_ingest_inserts_total";
    let before = mesh.metric(mesh.endpoints, inserts).await;
    mesh.collector.signal(Signal::STOP);
    let stopped_at = now_us();
    wait::until(PATIENCE, "20 s have passed", async || (now_us() - stopped_at > 20_000_000).then_some(())).await;
    wait_for_metric(&mesh, second(&mesh), "sonde_collector_streams", 2.0).await;
    mesh.collector.signal(Signal::CONT);
    // It learns that it is neither leader nor holder of any session.
    wait_for_metric(&mesh, mesh.endpoints, "sonde_collector_leads", 0.0).await;
    wait_for_metric(&mesh, mesh.endpoints, "sonde_collector_streams", 0.0).await;
    expect_no_hole(&mesh, second(&mesh), &id, now_us() + 3 * INTERVAL_US).await;
    let after = mesh.metric(mesh.endpoints, inserts).await;
    assert!(after - before <= 2.0, "between the look and the stop there was time for one or two: {before} {after}");
    let copies = mesh.engine.ask("SELECT count() - uniqExact(probe_id, boot, seq) FROM sonde.samples").await;
    assert_eq!(copies.trim(), "0", "no sample was inserted twice, visible or not");
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_flow_over_the_other_while_postgres_is_away() {
    let (mut mesh, _target, id) = pair_with_check().await;
    mesh.db_cable.cut();
    mesh.collector.kill9();
    let killed_at = now_us();
    wait_for_metric(&mesh, second(&mesh), "sonde_collector_streams", 2.0).await;
    let newest =
        "SELECT min(at) FROM (SELECT toUnixTimestamp64Micro(max(slot_at)) AS at FROM sonde.samples GROUP BY region)";
    wait::until(PATIENCE, "samples of both regions are stored", async || {
        (mesh.engine.ask(newest).await.trim().parse::<i64>().unwrap_or(0) > killed_at + 3 * INTERVAL_US).then_some(())
    })
    .await;
    assert!(mesh.metric(second(&mesh), "sonde_collector_sessions_provisional_total").await >= 2.0);
    mesh.db_cable.heal();
    wait_for_metric(&mesh, second(&mesh), "sonde_collector_leads", 1.0).await;
    expect_no_hole(&mesh, second(&mesh), &id, now_us()).await;
}
