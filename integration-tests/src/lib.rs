//! What the tests of the product share: a mesh of real processes, stores, targets, a cable to cut, deadlines.
//!
//! Nothing here stands in for a part of the product, except in `sim`, where machines of the product meet simulated stores.

pub mod chaos;
pub mod chaos_proxy;
pub mod cli;
pub mod engine;
pub mod mesh;
pub mod postgres;
pub mod process;
pub mod sim;
pub mod target;
pub mod wait;
