//! Bytes to pixels.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::error::name;
use super::{Alpha, Picture, PictureError, colour, header, jpeg};

/// What decoders may set aside besides the pixels.
const SCRATCH_BYTES: u64 = 16 << 20;

/// What a picture may ask for at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of the file.
    pub bytes: usize,
    /// Pixels, as the header says.
    pub pixels: u64,
    /// The longer side, as the header says.
    pub side: u32,
}

impl Default for Limits {
    /// 20 MiB, 50 million pixels, 30,000 pixels a side: more than a shop's pictures have, less than harms a worker.
    fn default() -> Self {
        Self { bytes: 20 << 20, pixels: 50_000_000, side: 30_000 }
    }
}

/// What to do about the orientation that a camera writes down (EXIF).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Orientation {
    /// Turn and mirror the picture, as every viewer does.
    #[default]
    Apply,
    /// Leave the pixels as they are stored, as the BLIP image processor does.
    Ignore,
}

/// Reads a JPEG, PNG, WebP, GIF or BMP; of an animation the first frame.
///
/// The format follows from the first bytes, never from a name. Sizes are checked before any pixel is decoded. Colours
/// become 8-bit RGB as by Pillow's `convert("RGB")`: grey is repeated, palettes are looked up, CMYK is taken as inverted
/// (Adobe's way), and profiles are not applied. Of 16-bit samples the high byte is taken. Two things differ from Pillow on
/// purpose: it cuts 16-bit grey off at 255, which turns nearly all of it white, and it gives what is around a GIF's smaller
/// first frame the first colour of the palette, while here it is transparent, as in browsers.
///
/// # Errors
/// [`PictureError`]: the bytes are refused, which says nothing about the next picture.
pub fn decode(bytes: &[u8], limits: &Limits, orientation: Orientation, alpha: Alpha) -> Result<Picture, PictureError> {
    if bytes.is_empty() {
        return Err(PictureError::Empty);
    }
    if bytes.len() > limits.bytes {
        return Err(PictureError::TooManyBytes { bytes: bytes.len(), limit: limits.bytes });
    }
    let format = format_of(bytes)?;
    check_header(bytes, format, limits)?;
    let image = pixels(bytes, format, limits, orientation).map_err(|e| match e {
        // A decoder that stumbles over the end of the file may call it anything.
        PictureError::Corrupt { .. } if header::is_cut(bytes, format) => {
            PictureError::Truncated { format: name(format) }
        }
        e => e,
    })?;
    Ok(colour::to_rgb(image, alpha))
}

/// The format by the first bytes.
fn format_of(bytes: &[u8]) -> Result<ImageFormat, PictureError> {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, WebP};
    match image::guess_format(bytes) {
        Ok(format @ (Jpeg | Png | WebP | Gif | Bmp)) => Ok(format),
        Ok(other) => Err(PictureError::Unsupported { what: name(other).to_owned() }),
        Err(_) => Err(PictureError::UnknownFormat),
    }
}

/// Refuses what the header already tells.
fn check_header(bytes: &[u8], format: ImageFormat, limits: &Limits) -> Result<(), PictureError> {
    if let Some(size) = header::size(bytes, format) {
        check_size(size, limits)?;
    }
    if format == ImageFormat::Jpeg {
        if let Some(what) = jpeg::frame(bytes).and_then(|frame| frame.unread) {
            return Err(PictureError::Unsupported { what: what.to_owned() });
        }
        if !jpeg::has_end(bytes) {
            return Err(PictureError::Truncated { format: name(format) });
        }
    }
    Ok(())
}

/// Decodes; the size is checked once more, as the decoder understands it.
fn pixels(
    bytes: &[u8],
    format: ImageFormat,
    limits: &Limits,
    orientation: Orientation,
) -> Result<DynamicImage, PictureError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(memory(limits));
    let refused = |e| PictureError::from_decoder(format, &e);
    let mut decoder = reader.into_decoder().map_err(refused)?;
    check_size(decoder.dimensions(), limits)?;
    // An orientation that cannot be read is none: the pixels are what matters.
    let turn = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(refused)?;
    if orientation == Orientation::Apply {
        image.apply_orientation(turn);
    }
    Ok(image)
}

/// Limits for the decoders' own buffers; sizes are checked here, where the answer can say which limit it was.
fn memory(limits: &Limits) -> image::Limits {
    let mut memory = image::Limits::no_limits();
    memory.max_alloc = Some(limits.pixels.saturating_mul(4).saturating_add(SCRATCH_BYTES));
    memory
}

fn check_size((width, height): (u32, u32), limits: &Limits) -> Result<(), PictureError> {
    if width == 0 || height == 0 {
        return Err(PictureError::ZeroSize { width, height });
    }
    if width.max(height) > limits.side {
        return Err(PictureError::SideTooLong { width, height, limit: limits.side });
    }
    if u64::from(width) * u64::from(height) > limits.pixels {
        return Err(PictureError::TooManyPixels { width, height, limit: limits.pixels });
    }
    Ok(())
}
