//! The tests of `posix.rs` once more, with every byte through the daemon instead of kernel passthrough.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "posix.rs"]
mod posix;
