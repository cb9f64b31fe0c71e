//! Captions for pictures (BLIP-2).

pub mod picture;
