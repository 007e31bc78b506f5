//! What is known about the way, and which packet is next. Never does I/O and reads no clock.

use std::net::IpAddr;
use std::time::Duration;

use sonde_proto::model::detail::{Part, PartKind, ReadingKey};
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::sample::Phases;
use sonde_proto::model::time::{Mono, micros};

use crate::check::trace::Trace;

/// Packets on their way at once.
const IN_FLIGHT_MAX: usize = 32;
/// How long a packet may take when there is time enough.
const PATIENCE_MAX: Duration = Duration::from_secs(1);
/// How long a packet may take at least once the target has answered.
const PATIENCE_AFTER: Duration = Duration::from_millis(200);

/// What a packet met.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) at: Mono,
    /// Who says so; `None` for this machine.
    pub(super) by: Option<IpAddr>,
    pub(super) is_target: bool,
    /// Why the way ends here, when a router says that.
    pub(super) dead_end: Option<ErrorClass>,
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    began: Mono,
    left: Option<Mono>,
    answer: Option<Answer>,
}

impl Packet {
    fn start(&self) -> Mono {
        self.left.unwrap_or(self.began).max(self.began)
    }

    fn round_trip(&self) -> Option<Duration> {
        self.answer.map(|answer| answer.at.since(self.start().min(answer.at)))
    }
}

/// The way to a target.
#[derive(Debug)]
pub(super) struct Route {
    hops_max: u8,
    packets_per_hop: u8,
    packets: Vec<Packet>,
    /// How long a packet may take.
    patience: Duration,
    /// The nearest hop that the way does not pass, and whether it is the target.
    end: Option<(u8, bool)>,
    dead_end: Option<ErrorClass>,
}

impl Route {
    /// A way of which nothing is known yet, to be found within `time`.
    pub(super) fn new(hops_max: u8, packets_per_hop: u8, time: Duration) -> Self {
        let packets = u32::from(hops_max) * u32::from(packets_per_hop);
        // Silence all the way takes one patience for each load of packets in flight, and one to spare.
        let loads = packets.div_ceil(u32::try_from(IN_FLIGHT_MAX).unwrap_or(u32::MAX)) + 1;
        // Instants have whole microseconds, and so has a wait that ends at one.
        let patience = whole(time / loads).min(PATIENCE_MAX);
        Self { hops_max, packets_per_hop, packets: Vec::new(), patience, end: None, dead_end: None }
    }

    /// Most packets of the trace.
    pub(super) fn packets_max(&self) -> u16 {
        u16::from(self.hops_max) * u16::from(self.packets_per_hop)
    }

    fn hops_of(&self, nth: usize) -> u8 {
        u8::try_from(nth / usize::from(self.packets_per_hop)).unwrap_or(u8::MAX).saturating_add(1)
    }

    /// The packets that say something about the way: those beyond its end do not.
    fn on_the_way(&self) -> impl Iterator<Item = (u8, &Packet)> {
        let last = self.end.map_or(self.hops_max, |(hops, _)| hops);
        self.packets.iter().enumerate().map(|(nth, packet)| (self.hops_of(nth), packet)).filter(move |it| it.0 <= last)
    }

    /// The packets that may still be answered, and since when they wait.
    fn pending(&self, now: Mono) -> impl Iterator<Item = Mono> {
        let patience = self.patience;
        let packets = self.on_the_way().filter(|(_, packet)| packet.answer.is_none());
        packets.map(|(_, packet)| packet.began).filter(move |began| now.since(*began) < patience)
    }

    /// The packet to send now, and how many hops it lives.
    pub(super) fn next(&self, now: Mono) -> Option<(u16, u8)> {
        let hops = self.next_hops()?;
        let nth = u16::try_from(self.packets.len()).ok()?;
        (self.pending(now).count() < IN_FLIGHT_MAX).then_some((nth, hops))
    }

    fn next_hops(&self) -> Option<u8> {
        let hops = self.hops_of(self.packets.len());
        let last = self.end.map_or(self.hops_max, |(hops, _)| hops);
        (hops <= last).then_some(hops)
    }

    /// Whether nothing is left to send or to wait for.
    pub(super) fn is_over(&self, now: Mono) -> bool {
        self.next_hops().is_none() && self.pending(now).next().is_none()
    }

    /// How long it makes sense to wait for the packet that waits longest.
    pub(super) fn patience(&self, now: Mono) -> Duration {
        self.pending(now).min().map_or(Duration::ZERO, |began| (began + self.patience).since(now))
    }

    /// The next packet is about to be sent.
    pub(super) fn begins(&mut self, at: Mono) {
        self.packets.push(Packet { began: at, left: None, answer: None });
    }

    /// This machine does not send any further.
    pub(super) fn not_sent(&mut self, class: ErrorClass) {
        self.dead_end.get_or_insert(class);
    }

    pub(super) fn left(&mut self, nth: u32, at: Mono) {
        if let Some(packet) = usize::try_from(nth).ok().and_then(|nth| self.packets.get_mut(nth)) {
            packet.left.get_or_insert(at);
        }
    }

    /// The first answer to a packet counts.
    pub(super) fn answered(&mut self, nth: u16, answer: Answer) {
        let hops = self.hops_of(usize::from(nth));
        let Some(packet) = self.packets.get_mut(usize::from(nth)).filter(|packet| packet.answer.is_none()) else {
            return;
        };
        packet.answer = Some(Answer { at: answer.at.max(packet.began), ..answer });
        if (answer.is_target || answer.dead_end.is_some()) && self.end.is_none_or(|(end, _)| hops < end) {
            self.end = Some((hops, answer.is_target));
            self.dead_end = answer.dead_end;
            let slowest = self.on_the_way().filter_map(|(_, packet)| packet.round_trip()).max().unwrap_or_default();
            self.patience = self.patience.min((slowest * 3).max(PATIENCE_AFTER));
        }
    }

    /// When the first packet was handed to the kernel, and when it left.
    pub(super) fn first(&self) -> Option<(Mono, Mono)> {
        self.packets.first().map(|packet| (packet.began, packet.start()))
    }

    fn distance(&self) -> Option<u8> {
        self.end.filter(|(_, is_target)| *is_target).map(|(hops, _)| hops)
    }

    /// Of the packets that reached the target at its distance.
    pub(super) fn mean_to_target(&self) -> Option<Duration> {
        let distance = self.distance()?;
        mean(self.on_the_way().filter(|(hops, _)| *hops == distance).filter_map(|(_, packet)| packet.round_trip()))
    }

    /// The hops as parts, and the numbers of the trace.
    pub(super) fn tell(&self, trace: &mut Trace) {
        for part in self.parts() {
            trace.part(part);
        }
        let received = self.on_the_way().filter(|(_, packet)| packet.answer.is_some()).count();
        trace.read(ReadingKey::PacketsSent, i64::try_from(self.packets.len()).unwrap_or(i64::MAX));
        trace.read(ReadingKey::PacketsReceived, i64::try_from(received).unwrap_or(i64::MAX));
        if let Some(distance) = self.distance() {
            trace.read(ReadingKey::Hops, distance.into());
        }
    }

    /// The hops up to the end; when there is none, up to the first that is silent behind the last that answered.
    fn parts(&self) -> Vec<Part> {
        let answered = self.on_the_way().filter(|(_, packet)| packet.answer.is_some()).map(|(hops, _)| hops).max();
        let last = self.end.map_or(answered.unwrap_or(0).saturating_add(1).min(self.hops_max), |(hops, _)| hops);
        (1..=last).map(|hops| self.part(hops)).collect()
    }

    fn part(&self, hops: u8) -> Part {
        let of_hop: Vec<&Packet> = self.on_the_way().filter(|it| it.0 == hops).map(|(_, packet)| packet).collect();
        let answers = || of_hop.iter().filter_map(|packet| packet.answer);
        let trips = || of_hop.iter().filter_map(|packet| packet.round_trip());
        let count = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        Part {
            kind: PartKind::Router,
            number: hops.into(),
            addr: answers().find_map(|answer| answer.by),
            error: answers().find_map(|answer| answer.dead_end),
            status_code: None,
            phases: Phases { ttfb_us: mean(trips()).map(micros_u32), ..Phases::default() },
            total_us: trips().min().map_or(0, micros_u32),
            sent: count(of_hop.len()),
            received: count(answers().count()),
        }
    }

    /// Good when the target answered.
    ///
    /// # Errors
    /// What the router at the dead end said, else [`ErrorClass::TraceUnreached`].
    pub(super) fn judge(&self) -> Result<(), ErrorClass> {
        if self.distance().is_some() {
            return Ok(());
        }
        Err(self.dead_end.unwrap_or(ErrorClass::TraceUnreached))
    }
}

fn mean(trips: impl Iterator<Item = Duration>) -> Option<Duration> {
    let trips: Vec<Duration> = trips.collect();
    let count = u32::try_from(trips.len()).ok().filter(|count| *count > 0)?;
    Some(trips.iter().sum::<Duration>() / count)
}

fn whole(duration: Duration) -> Duration {
    Duration::from_micros(micros(duration))
}

fn micros_u32(duration: Duration) -> u32 {
    u32::try_from(micros(duration)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn router(at: u64, hops: u8) -> Answer {
        Answer { at: Mono(at), by: Some([10, 0, 0, hops].into()), is_target: false, dead_end: None }
    }

    /// Sends everything that may be sent at `at`.
    fn send(route: &mut Route, at: u64) -> usize {
        let before = route.packets.len();
        while route.next(Mono(at)).is_some() {
            route.begins(Mono(at));
        }
        route.packets.len() - before
    }

    #[test]
    fn packets_in_flight_are_bounded_and_silence_ends_in_time() {
        let mut route = Route::new(64, 5, 2 * SECOND);
        let (mut at, mut loads) = (0, 0);
        while !route.is_over(Mono(at)) {
            assert!(send(&mut route, at) <= IN_FLIGHT_MAX);
            at += micros(route.patience(Mono(at)));
            loads += 1;
        }
        assert_eq!((route.packets.len(), loads), (320, 10));
        assert!(at <= 2_000_000, "{at}");
        assert_eq!(route.judge(), Err(ErrorClass::TraceUnreached));
        let parts = route.parts();
        assert_eq!((parts.len(), parts[0].addr, parts[0].sent, parts[0].received), (1, None, 5, 0));
    }

    #[test]
    fn the_target_ends_the_way_and_what_lies_behind_is_forgotten() {
        let mut route = Route::new(30, 2, 5 * SECOND);
        assert_eq!(send(&mut route, 0), IN_FLIGHT_MAX);
        for (nth, hops) in [(0, 1), (1, 1), (2, 2)] {
            route.answered(nth, router(1_000 * u64::from(hops), hops));
        }
        for nth in [7, 6, 4, 5] {
            let answer = Answer { at: Mono(3_000), by: Some([10, 0, 0, 9].into()), is_target: true, dead_end: None };
            route.answered(nth, answer);
        }
        assert_eq!((route.distance(), route.judge()), (Some(3), Ok(())));
        assert_eq!(route.next(Mono(3_000)), None);
        assert!(!route.is_over(Mono(3_000)), "a packet for the second hop is still out");
        assert!(route.is_over(Mono(200_000)), "and is not waited for long");
        let parts = route.parts();
        let seen: Vec<_> = parts.iter().map(|part| (part.number, part.sent, part.received, part.total_us)).collect();
        assert_eq!(seen, [(1, 2, 2, 1_000), (2, 2, 1, 2_000), (3, 2, 2, 3_000)]);
        assert_eq!(route.mean_to_target(), Some(Duration::from_millis(3)));
    }

    #[test]
    fn a_router_that_knows_no_way_ends_it_with_its_complaint() {
        let mut route = Route::new(30, 1, 5 * SECOND);
        send(&mut route, 0);
        route.answered(0, router(1_000, 1));
        route.answered(3, Answer { dead_end: Some(ErrorClass::IcmpNetUnreachable), ..router(2_000, 4) });
        route.answered(1, Answer { dead_end: Some(ErrorClass::IcmpProhibited), ..router(2_000, 2) });
        assert_eq!(route.judge(), Err(ErrorClass::IcmpProhibited));
        let parts = route.parts();
        assert_eq!((parts.len(), parts[1].error), (2, Some(ErrorClass::IcmpProhibited)));
        assert_eq!(route.mean_to_target(), None);
    }
}
