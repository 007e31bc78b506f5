//! Trust, files and joining, with certificates made by `test_pki`.

mod files;
mod join;
mod trust;
