//! See the map in the crate's documentation.

pub mod schema;
pub mod table;
