//! Pictures of items.

pub mod fetch;
