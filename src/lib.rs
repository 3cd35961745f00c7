//! A FUSE filesystem for experiment results.
//!
//! A *cache* is a real directory that holds *entries*; an entry is a set of JSON attributes and a
//! directory of contents. The daemon mounts a cache and adds views, so that `ls` is the query
//! language. This crate is the library behind the binary `cachedirfs`.
//!
//! # Map
//!
//! Arrows point down; nothing points up. `scripts/layers` checks it.
//!
//! ```text
//! main → cli ──────────────┐   the command line; the only user of `clap`
//! fuse                     │   the only user of `fuser`: decode, call vfs, map the error, reply
//!   └─ vfs                 │   every operation on paths and handles: inode table, handles, streams
//!        ├─ view           │   view path + index → nodes; a change in a view → a change (pure)
//!        ├─ backing        │   an entry's real directory: dirfd-relative, never through a link
//!        ├─ trash          │   entries taken out and put back, mendable at every step
//!        └─ cache ─────────┘   store and index published together; group commit; following
//!             ├─ index         inverted index: apply(record), select(expr); bitmaps (pure)
//!             └─ store         log, lock, recovery, compaction, following; knows no index
//! query   lexer, parser, expression tree          value   JSON values, text forms
//! name    checked names, escaping                 record  one line of the log, edits (all four pure)
//! processors  which thread runs where
//! sync    where store, cache and vfs have their locks and threads from, so that tests can explore schedules
//! ```
//!
//! Pure modules do no I/O, take no locks, read no clock and draw no random numbers.

// The models use some of what tests share.
#![cfg_attr(all(test, feature = "models"), allow(dead_code))]

pub mod backing;
pub mod cache;
pub mod cli;
pub mod fuse;
pub mod index;
pub mod name;
mod processors;
pub mod query;
pub mod record;
pub mod store;
mod sync;
pub mod trash;
pub mod value;
pub mod vfs;
pub mod view;
