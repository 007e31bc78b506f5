//! Instants and events that the stream under an exchange leaves for the one who measures. Never reads a clock.
//!
//! The stream belongs to the HTTP implementation while the exchange runs, so the two share these. One task uses both:
//! the order of the atomics does not matter.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sonde_proto::model::time::Mono;

/// An instant that may not have come.
#[derive(Debug)]
pub(crate) struct Stamp(AtomicU64);

impl Default for Stamp {
    fn default() -> Self {
        Self(AtomicU64::new(Self::NEVER))
    }
}

impl Stamp {
    /// No process lives for 580,000 years.
    const NEVER: u64 = u64::MAX;

    pub(crate) fn get(&self) -> Option<Mono> {
        let value = self.0.load(Ordering::Relaxed);
        (value != Self::NEVER).then_some(Mono(value))
    }

    pub(crate) fn set(&self, at: Mono) {
        self.0.store(at.0, Ordering::Relaxed);
    }

    /// Keeps the first instant that it was given.
    pub(crate) fn set_once(&self, at: Mono) {
        if self.get().is_none() {
            self.set(at);
        }
    }
}

/// An event that may have happened.
#[derive(Debug, Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Everything that the stream tells.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// The kernel took bytes, last time.
    pub(crate) wire_written: Stamp,
    /// The kernel gave bytes, last time.
    pub(crate) wire_read: Stamp,
    /// Arrival of the first byte of the TLS record that was completed last.
    pub(crate) record_began: Stamp,
    /// The last byte of the request was handed to the kernel.
    pub(crate) sent: Stamp,
    /// The first byte of the answer arrived.
    pub(crate) first_byte: Stamp,
    /// The last byte of the answer so far arrived.
    pub(crate) last_byte: Stamp,
    /// The peer closed or reset the connection, or the stream of the request.
    pub(crate) lost: Flag,
    /// TLS failed after the handshake; under TLS 1.3 a server may refuse that late.
    pub(crate) tls_broke: Flag,
    /// The peer answered in HTTP/1 where HTTP/2 was spoken.
    pub(crate) other_version: Flag,
    /// The head of the answer was understood, and it is not an interim one.
    pub(crate) answered: Flag,
    /// The peer sent more than the exchange may read, frames and settings included.
    pub(crate) flooded: Flag,
}
