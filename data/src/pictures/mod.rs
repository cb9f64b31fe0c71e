//! The pictures of items: where they lie, which of them say nothing, and what was said about them before.

pub mod fetch;
mod inventory;
mod known;
mod shares;
mod source;
#[cfg(test)]
mod tests;

pub use inventory::take_inventory;
pub use known::{Described, KnownCaptions};
pub use shares::share_out;
pub use source::{PictureSource, is_url};
