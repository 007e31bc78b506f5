//! Rollups against samples on a real engine: counts to the last run, percentiles within their bound, through late data,
//! hand-overs, copies and holders of the lease that die half-way; marks, comparison and retention.

mod bounds;
mod expired;
mod fixture;
mod reads;
mod upkeep;
mod whole;
