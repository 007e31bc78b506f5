//! Instants and events that the stream under an exchange leaves for the one who measures. Never reads a clock.
//!
//! The stream belongs to the HTTP implementation while the exchange runs, so the two share these. One task uses both:
//! the order of the atomics does not matter.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sonde_proto::model::time::Mono;

/// An instant that may not have come.
#[derive(Debug)]
pub(super) struct Stamp(AtomicU64);

impl Default for Stamp {
    fn default() -> Self {
        Self(AtomicU64::new(Self::NEVER))
    }
}

impl Stamp {
    /// No process lives for 580,000 years.
    const NEVER: u64 = u64::MAX;

    pub(super) fn get(&self) -> Option<Mono> {
        let value = self.0.load(Ordering::Relaxed);
        (value != Self::NEVER).then_some(Mono(value))
    }

    pub(super) fn set(&self, at: Mono) {
        self.0.store(at.0, Ordering::Relaxed);
    }

    /// Keeps the first instant that it was given.
    pub(super) fn set_once(&self, at: Mono) {
        if self.get().is_none() {
            self.set(at);
        }
    }
}

/// An event that may have happened.
#[derive(Debug, Default)]
pub(super) struct Flag(AtomicBool);

impl Flag {
    pub(super) fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Everything that the stream tells.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The kernel took bytes, last time.
    pub(super) wire_written: Stamp,
    /// The kernel gave bytes, last time.
    pub(super) wire_read: Stamp,
    /// Arrival of the first byte of the TLS record that was completed last.
    pub(super) record_began: Stamp,
    /// The last byte of the request was handed to the kernel.
    pub(super) sent: Stamp,
    /// The first byte of the answer arrived.
    pub(super) first_byte: Stamp,
    /// The last byte of the answer so far arrived.
    pub(super) last_byte: Stamp,
    /// The peer closed or reset the connection, or the stream of the request.
    pub(super) lost: Flag,
    /// TLS failed after the handshake; under TLS 1.3 a server may refuse that late.
    pub(super) tls_broke: Flag,
    /// The peer answered in HTTP/1 where HTTP/2 was spoken.
    pub(super) other_version: Flag,
}
