//! What a sample costs on the wire over a steady stream: body, message, gRPC prefix, HTTP/2 frame head and dictionary.

use super::*;
use crate::model::time::{DAY_US, Mono};
use crate::session::pair::SplitMix64;
use crate::session::{ProbeConfig, ProbeSession};

/// Compression flag and length before each gRPC message.
const GRPC_PREFIX_BYTES: usize = 5;
/// Head of the DATA frame that carries it.
const FRAME_HEAD_BYTES: usize = 9;
/// Largest payload of a DATA frame unless the peer asks for more.
const FRAME_BYTES_MAX: usize = 16_384;
/// Samples of a stream with large batches, one minute of 1,000 per second. Heartbeats and the greeting are left out, since their share depends on the rate alone.
const STREAM_SAMPLES: usize = 60_000;
/// With small ones, where the share of the dictionary is larger and the room for it, too.
const SMALL_STREAM_SAMPLES: usize = 20_000;

/// The level of a phase of one target: spread like a log-normal around 60 ms, within 20 to 200 ms.
fn level(rng: &mut SplitMix64) -> f64 {
    (60_000.0 * (0.55 * normal(rng)).exp()).clamp(20_000.0, 200_000.0)
}

/// About normal with deviation 1: twelve uniform numbers.
fn normal(rng: &mut SplitMix64) -> f64 {
    let sum: u64 = (0..12).map(|_| rng.below(1_000_000)).sum();
    (f64::from(u32::try_from(sum).unwrap()) - 6_000_000.0) / 1_000_000.0
}

/// A run of a phase: 4 % of jitter around the level, and one in a hundred is up to three times as long.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 20,000 to 200,000")]
fn run(level: f64, rng: &mut SplitMix64) -> u32 {
    let slow = if rng.chance(10) { 1.0 + f64::from(u32::try_from(rng.below(2_000)).unwrap()) / 1_000.0 } else { 1.0 };
    (level * (0.04 * normal(rng)).exp() * slow).clamp(20_000.0, 200_000.0) as u32
}

struct Target {
    check: CheckId,
    offset_us: u64,
    levels: [f64; 6],
    bytes: u64,
}

/// HTTPS samples of `count` checks in rounds of `interval_us`, in the order in which their runs end.
fn stream(samples: usize, count: usize, interval_us: u64, seed: u64) -> Vec<Sample> {
    let mut rng = SplitMix64::new(seed);
    let targets: Vec<Target> = (0..count)
        .map(|_| Target {
            check: CheckId(Uuid::from_u64_pair(rng.next_bits(), rng.next_bits())),
            offset_us: rng.below(interval_us),
            levels: std::array::from_fn(|_| level(&mut rng)),
            bytes: 500 + rng.below(60_000),
        })
        .collect();
    let begin = 20_779 * DAY_US + 3_600_000_000;
    let mut ended = Vec::with_capacity(samples + count);
    for round in 0..samples.div_ceil(count) as u64 {
        for target in &targets {
            let slot_at = Wall(begin + i64::try_from(round * interval_us + target.offset_us).unwrap());
            let [dns, connect, tls, send, ttfb, transfer] = target.levels.map(|level| Some(run(level, &mut rng)));
            let phases = Phases {
                dns_us: dns,
                connect_us: connect,
                tls_us: tls,
                send_us: send,
                ttfb_us: ttfb,
                transfer_us: transfer,
            };
            let started_at = slot_at + Duration::from_micros(50 + rng.below(1_500));
            let total_us = u32::try_from(phases.sum_us() + 10 + rng.below(50)).unwrap();
            let sample = Sample {
                check: target.check,
                generation: Generation(17),
                kind: RunKind::Scheduled,
                slot_at,
                started_at,
                outcome: Outcome::Ok,
                error: None,
                phases,
                total_us,
                status_code: Some(200),
                bytes: Some(target.bytes),
                detail: None,
            };
            ended.push((started_at + Duration::from_micros(total_us.into()), sample));
        }
    }
    ended.sort_by_key(|(at, _)| *at);
    ended.into_iter().map(|(_, sample)| sample).take(samples).collect()
}

fn framed(message: FromProbe) -> usize {
    let bytes = wire::ProbeMessage::from(message).encoded_len() + GRPC_PREFIX_BYTES;
    bytes + bytes.div_ceil(FRAME_BYTES_MAX) * FRAME_HEAD_BYTES
}

/// Sends the samples through a session in batches of `batch` and adds up what would pass the stream.
fn bytes_on_wire(samples: Vec<Sample>, batch: u32) -> usize {
    let (now, wall) = (Mono(0), Wall(0));
    let expected = samples.len() / batch as usize;
    let mut session = ProbeSession::new(ProbeConfig {
        probe: ProbeId(Uuid::from_u128(1)),
        boot: BootId(Uuid::from_u128(2)),
        version: "0.1.0".to_owned(),
        capabilities: BTreeSet::new(),
        bundle_version: 1,
        memory_bytes_max: 64 << 20,
    });
    session.handle_connected(now, wall);
    session.poll_transmit(now, wall);
    let limits = Limits { batch_samples_max: batch, ..Limits::default() };
    let (stored, in_doubt) = (Vec::new(), Vec::new());
    let welcome = Welcome {
        epoch: Epoch(1),
        wall,
        stored,
        in_doubt,
        limits,
        collector_id: "c".to_owned(),
        endpoints: Vec::new(),
    };
    session.handle_message(FromCollector::Welcome(welcome), now, wall).unwrap();
    let (mut bytes, mut batches) = (0, 0);
    for sample in samples {
        session.offer(sample, now);
        while let Some(message) = session.poll_transmit(now, wall) {
            match message {
                FromProbe::Batch(sealed) => {
                    let (boot, ranges) = (sealed.id.boot, vec![sealed.id.range()]);
                    session.handle_message(FromCollector::Ack { boot, ranges }, now, wall).unwrap();
                    bytes += framed(FromProbe::Batch(sealed));
                    batches += 1;
                }
                FromProbe::Dictionary { .. } => bytes += framed(message),
                FromProbe::Heartbeat(_) => {}
                FromProbe::Hello(_)
                | FromProbe::Applied(_)
                | FromProbe::Renew { .. }
                | FromProbe::Goodbye { .. }
                | FromProbe::Gap(_) => panic!("nobody asked for {message:?}"),
            }
        }
    }
    assert!(session.is_settled() && batches == expected, "everything was sent: {batches}");
    bytes
}

#[test]
fn a_sample_takes_few_bytes_on_the_wire_with_everything_around_it() {
    for (samples, batch, bytes_max) in [(STREAM_SAMPLES, 1_000, 16.0), (SMALL_STREAM_SAMPLES, 20, 28.0)] {
        for (checks, interval_us) in [(50, 1_000_000), (1_000, 1_000_000), (1_000, 60_000_000)] {
            for seed in 0..2 {
                let bytes = bytes_on_wire(stream(samples, checks, interval_us, seed), batch);
                let each = f64::from(u32::try_from(bytes).unwrap()) / samples as f64;
                println!("batches of {batch}, {checks} checks every {interval_us} us, seed {seed}: {each:.2} bytes");
                assert!(each <= bytes_max, "batches of {batch}, {checks} checks, seed {seed}: {each} > {bytes_max}");
            }
        }
    }
}
