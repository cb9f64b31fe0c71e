//! Item pictures: untrusted bytes to pixels of the size that a vision network takes.
//!
//! [`decode`] reads a file, [`resize`] brings it to the size of the network; [`Preprocess`] says which that is, and what
//! numbers the network makes of bytes.
//! Each step gives what the public stack gives (Pillow, and the BLIP image processor of transformers), so that a checkpoint
//! sees the pictures that it was trained on. Decoders are large and their input comes from anywhere: whoever cannot afford a
//! panic or an exhausted memory calls [`decode`] in a process of its own.

mod colour;
mod decode;
mod error;
mod header;
mod jpeg;
mod preprocess;
mod resize;
#[cfg(test)]
mod tests;

pub use colour::Alpha;
pub use decode::{Limits, Orientation, decode};
pub use error::{Class, PictureError};
pub use preprocess::Preprocess;
pub use resize::resize;

/// Decoded pixels: 8-bit red, green and blue, row by row from the top left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    /// `[height, width, 3]`
    rgb: Vec<u8>,
}

impl Picture {
    /// Takes pixels; `None` if a side is zero or if there are not `width * height * 3` bytes.
    #[must_use]
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Option<Self> {
        let fits = width > 0 && height > 0 && width.checked_mul(height)?.checked_mul(3)? == rgb.len();
        fits.then_some(Self { width, height, rgb })
    }

    /// Pixels in a row; never zero.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows; never zero.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// The pixels, `[height, width, 3]`.
    #[must_use]
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Gives the pixels away, `[height, width, 3]`.
    #[must_use]
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }
}
