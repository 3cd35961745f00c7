//! Tests of the store on real files, and with failing ones.

pub(crate) mod faults;
