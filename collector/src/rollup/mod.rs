//! Rollups: which buckets there are, which to compute again and when, which to read. Machines without I/O, so that a
//! simulator can drive them. Never reads a clock, never knows a statement.
//!
//! The promise: a bucket without a mark is exactly what its samples say. Everything that may add a sample marks the minute
//! first; a recomputed minute marks its hour before its own mark goes, and a recomputed hour its day.

pub mod cover;
pub mod machine;
pub mod pieces;

use std::time::Duration;

use sonde_proto::model::time::{Wall, micros};

/// The width of a bucket. Buckets begin at whole minutes, hours and days of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
}

impl Level {
    /// Every level, finest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Width of a bucket.
    pub fn width(self) -> Duration {
        match self {
            Self::Minute => Duration::from_secs(60),
            Self::Hour => Duration::from_secs(3_600),
            Self::Day => Duration::from_secs(86_400),
        }
    }

    /// The word in the store and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// The next wider level.
    pub fn coarser(self) -> Option<Self> {
        match self {
            Self::Minute => Some(Self::Hour),
            Self::Hour => Some(Self::Day),
            Self::Day => None,
        }
    }

    /// The bucket that holds an instant.
    pub fn bucket(self, at: Wall) -> Bucket {
        let width = self.width_us();
        Bucket { start: Wall(at.0.div_euclid(width).saturating_mul(width)), level: self }
    }

    fn width_us(self) -> i64 {
        i64::try_from(micros(self.width())).expect("a day has fewer microseconds than an i64 holds")
    }
}

/// A minute, an hour or a day, of all checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket {
    /// Its first instant.
    pub start: Wall,
    /// Its width.
    pub level: Level,
}

impl Bucket {
    /// First instant after it.
    pub fn end(self) -> Wall {
        self.start + self.level.width()
    }

    /// The bucket of the next wider level that holds it.
    pub fn parent(self) -> Option<Self> {
        self.level.coarser().map(|level| level.bucket(self.start))
    }
}
