//! What is known about the echoes of one run, and what it amounts to. Never does I/O and reads no clock.

use std::time::Duration;

use sonde_proto::model::detail::ReadingKey;
use sonde_proto::model::error_class::ErrorClass;
use sonde_proto::model::time::{Mono, micros};

use crate::check::trace::Trace;

/// One echo.
#[derive(Debug, Clone, Copy)]
struct Car {
    /// Right before the system call.
    began: Mono,
    /// At the network device, where it says so.
    left: Option<Mono>,
    fate: Option<Fate>,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Answered(Mono),
    Failed(ErrorClass, Mono),
}

impl Car {
    /// When the round trip began: never after its end, whatever the clock of the stamps did.
    fn start(&self) -> Mono {
        let left = self.left.unwrap_or(self.began).max(self.began);
        match self.fate {
            Some(Fate::Answered(at) | Fate::Failed(_, at)) => left.min(at.max(self.began)),
            None => left,
        }
    }

    fn round_trip(&self) -> Option<Duration> {
        match self.fate {
            Some(Fate::Answered(at)) => Some(at.since(self.start())),
            Some(Fate::Failed(..)) | None => None,
        }
    }
}

/// The echoes of one run.
#[derive(Debug)]
pub(super) struct Train {
    count: u16,
    cars: Vec<Car>,
    /// Of the last answer.
    hop_limit: Option<u8>,
    /// What would have passed, of the last complaint about size.
    size_that_fits: Option<u32>,
    /// Whether the kernel's numbers are ours: it counts what it has taken.
    has_stamps: bool,
}

impl Train {
    pub(super) fn of(count: u8) -> Self {
        Self { count: count.into(), cars: Vec::new(), hop_limit: None, size_that_fits: None, has_stamps: true }
    }

    fn sent(&self) -> u16 {
        u16::try_from(self.cars.len()).unwrap_or(u16::MAX)
    }

    /// The number of the echo to send next, if one is left.
    pub(super) fn next(&self) -> Option<u16> {
        (self.sent() < self.count).then(|| self.sent())
    }

    /// Whether every echo was sent and has met its fate.
    pub(super) fn is_settled(&self) -> bool {
        self.next().is_none() && self.cars.iter().all(|car| car.fate.is_some())
    }

    /// The next echo is about to be sent.
    pub(super) fn begins(&mut self, at: Mono) {
        self.cars.push(Car { began: at, left: None, fate: None });
    }

    /// The kernel did not take an echo.
    pub(super) fn not_sent(&mut self, nth: u16, class: ErrorClass, at: Mono) {
        self.has_stamps = false;
        self.failed(nth, class, at, None);
    }

    pub(super) fn left(&mut self, nth: u32, at: Mono) {
        let car = usize::try_from(nth).ok().and_then(|nth| self.cars.get_mut(nth));
        if let Some(car) = car.filter(|_| self.has_stamps) {
            car.left.get_or_insert(at);
        }
    }

    /// The first answer to an echo counts, and so does one that comes after a complaint.
    pub(super) fn answered(&mut self, nth: u16, at: Mono, hop_limit: Option<u8>) {
        let Some(car) = self.cars.get_mut(usize::from(nth)) else { return };
        if !matches!(car.fate, Some(Fate::Answered(_))) {
            car.fate = Some(Fate::Answered(at.max(car.began)));
            self.hop_limit = hop_limit.or(self.hop_limit);
        }
    }

    pub(super) fn failed(&mut self, nth: u16, class: ErrorClass, at: Mono, size_that_fits: Option<u32>) {
        self.size_that_fits = size_that_fits.or(self.size_that_fits);
        if let Some(car) = self.cars.get_mut(usize::from(nth)) {
            car.fate.get_or_insert(Fate::Failed(class, at.max(car.began)));
        }
    }

    /// When the first echo was handed to the kernel, and when it left.
    pub(super) fn first(&self) -> Option<(Mono, Mono)> {
        self.cars.first().map(|car| (car.began, car.start()))
    }

    /// When the last complaint came, if every echo met one.
    pub(super) fn ended(&self) -> Option<Mono> {
        let ends = self.cars.iter().map(|car| match car.fate {
            Some(Fate::Answered(at) | Fate::Failed(_, at)) => Some(at),
            None => None,
        });
        ends.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    pub(super) fn received(&self) -> u16 {
        u16::try_from(self.round_trips().count()).unwrap_or(u16::MAX)
    }

    fn round_trips(&self) -> impl Iterator<Item = Duration> {
        self.cars.iter().filter_map(Car::round_trip)
    }

    /// Of the echoes that were answered.
    pub(super) fn mean(&self) -> Option<Duration> {
        let count = u32::from(self.received());
        (count > 0).then(|| self.round_trips().sum::<Duration>() / count)
    }

    /// The mean of the absolute differences between round trips that follow each other, as RFC 3550 means jitter,
    /// without its smoothing over many minutes. Lost echoes are left out.
    fn jitter(&self) -> Option<Duration> {
        let trips: Vec<_> = self.round_trips().collect();
        let count = u32::try_from(trips.len().checked_sub(1).filter(|count| *count > 0)?).ok()?;
        Some(trips.windows(2).map(|pair| pair[1].abs_diff(pair[0])).sum::<Duration>() / count)
    }

    /// The numbers of the train.
    pub(super) fn tell(&self, trace: &mut Trace) {
        let us = |length: Duration| i64::try_from(micros(length)).unwrap_or(i64::MAX);
        let numbers = [
            (ReadingKey::PacketsSent, Some(self.sent().into())),
            (ReadingKey::PacketsReceived, Some(self.received().into())),
            (ReadingKey::RttMin, self.round_trips().min().map(us)),
            (ReadingKey::RttMax, self.round_trips().max().map(us)),
            (ReadingKey::RttJitter, self.jitter().map(us)),
            (ReadingKey::ReplyHopLimit, self.hop_limit.map(i64::from)),
            (ReadingKey::PathMtu, self.size_that_fits.map(i64::from)),
        ];
        for (key, number) in numbers {
            if let Some(number) = number {
                trace.read(key, number);
            }
        }
    }

    /// Good when one echo was answered and no more were lost than may be.
    ///
    /// # Errors
    /// Without any answer, the first complaint, else [`ErrorClass::IcmpTimeout`]; [`ErrorClass::IcmpLoss`] for too many
    /// that were lost.
    pub(super) fn judge(&self, loss_max_percent: Option<u8>) -> Result<(), ErrorClass> {
        let (sent, received) = (u32::from(self.sent()), u32::from(self.received()));
        if received == 0 {
            let complaint = self.cars.iter().find_map(|car| match car.fate {
                Some(Fate::Failed(class, _)) => Some(class),
                Some(Fate::Answered(_)) | None => None,
            });
            return Err(complaint.unwrap_or(ErrorClass::IcmpTimeout));
        }
        let is_too_much = |limit: u8| (sent - received) * 100 > u32::from(limit) * sent;
        if loss_max_percent.is_some_and(is_too_much) { Err(ErrorClass::IcmpLoss) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO_US: u64 = 10_000;

    /// A train whose echoes leave 100 us after their call and are answered after the round trips given; `None` is lost.
    fn train(trips_us: &[Option<u64>]) -> Train {
        let mut train = Train::of(u8::try_from(trips_us.len()).unwrap());
        for (nth, trip) in (0_u16..).zip(trips_us) {
            assert_eq!(train.next(), Some(nth));
            let at = Mono(1_000_000 + u64::from(nth) * ECHO_US);
            train.begins(at);
            train.left(nth.into(), Mono(at.0 + 100));
            if let Some(trip) = trip {
                train.answered(nth, Mono(at.0 + 100 + trip), Some(63));
            }
        }
        train
    }

    #[test]
    fn latency_and_jitter_are_those_of_the_answers() {
        let train = train(&[Some(1_000), Some(3_000), None, Some(2_000)]);
        let us = Duration::from_micros;
        assert_eq!((train.sent(), train.received()), (4, 3));
        assert_eq!((train.mean(), train.jitter()), (Some(us(2_000)), Some(us(1_500))));
        assert_eq!(train.first(), Some((Mono(1_000_000), Mono(1_000_100))));
        assert_eq!(train.judge(None), Ok(()));
        assert_eq!(train.judge(Some(25)), Ok(()));
        assert_eq!(train.judge(Some(24)), Err(ErrorClass::IcmpLoss));
        assert!(!train.is_settled() && train.ended().is_none());
    }

    #[test]
    fn one_answer_has_no_jitter_and_none_has_no_latency() {
        let one = train(&[Some(1_000)]);
        assert_eq!((one.jitter(), one.is_settled()), (None, true));
        let none = train(&[None, None]);
        assert_eq!((none.mean(), none.judge(Some(99))), (None, Err(ErrorClass::IcmpTimeout)));
    }

    #[test]
    fn the_first_answer_counts_and_the_first_complaint_names_the_failure() {
        let mut twice = train(&[Some(1_000)]);
        twice.answered(0, Mono(9_000_000), Some(1));
        twice.answered(7, Mono(9_000_000), Some(1));
        assert_eq!((twice.mean(), twice.hop_limit), (Some(Duration::from_micros(1_000)), Some(63)));
        let mut refused = train(&[None, None, None]);
        refused.failed(1, ErrorClass::IcmpHostUnreachable, Mono(2_000_000), None);
        refused.failed(1, ErrorClass::IcmpHopLimit, Mono(2_000_001), None);
        refused.failed(2, ErrorClass::IcmpTooBig, Mono(2_000_002), Some(1_300));
        assert_eq!(refused.judge(None), Err(ErrorClass::IcmpHostUnreachable));
        assert_eq!((refused.size_that_fits, refused.is_settled()), (Some(1_300), false));
    }

    #[test]
    fn stamps_of_a_clock_that_was_set_make_no_negative_latency() {
        let mut train = Train::of(1);
        train.begins(Mono(5_000));
        train.left(0, Mono(9_000));
        train.answered(0, Mono(4_000), None);
        assert_eq!(train.mean(), Some(Duration::ZERO));
        assert_eq!(train.first(), Some((Mono(5_000), Mono(5_000))));
    }

    #[test]
    fn what_the_kernel_did_not_take_spoils_its_numbers_and_nothing_else() {
        let mut train = Train::of(2);
        train.begins(Mono(1_000));
        train.not_sent(0, ErrorClass::IcmpTooBig, Mono(1_010));
        train.begins(Mono(2_000));
        train.left(0, Mono(2_020));
        train.answered(1, Mono(2_500), None);
        assert_eq!(train.mean(), Some(Duration::from_micros(500)));
        assert_eq!(train.judge(Some(50)), Ok(()));
    }
}
