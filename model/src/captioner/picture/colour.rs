//! Any colours to 8-bit RGB.

use image::DynamicImage;

use super::Picture;

/// What becomes of transparency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alpha {
    /// The picture is laid over white, as transformers does since version 5.
    #[default]
    OverWhite,
    /// Colours are taken as they are stored, as transformers 4.33 does: what is transparent shows whatever is behind it.
    Drop,
}

/// Makes a picture of what a decoder gives.
pub(crate) fn to_rgb(image: DynamicImage, alpha: Alpha) -> Picture {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let channels = usize::from(image.color().channel_count());
    let samples = to_bytes(image);
    let rgb = match channels {
        1 => samples.iter().flat_map(|&grey| [grey; 3]).collect(),
        2 => pixels(&samples, alpha, |&[grey, opacity]| ([grey; 3], opacity)),
        4 => pixels(&samples, alpha, |&[r, g, b, opacity]| ([r, g, b], opacity)),
        _ => samples,
    };
    Picture { width, height, rgb }
}

/// Samples of 8 bits; of 16-bit ones the high byte, as Pillow takes it.
fn to_bytes(image: DynamicImage) -> Vec<u8> {
    let high = |samples: Vec<u16>| samples.into_iter().map(|v| (v >> 8) as u8).collect();
    match image {
        DynamicImage::ImageLuma8(i) => i.into_raw(),
        DynamicImage::ImageLumaA8(i) => i.into_raw(),
        DynamicImage::ImageRgb8(i) => i.into_raw(),
        DynamicImage::ImageRgba8(i) => i.into_raw(),
        DynamicImage::ImageLuma16(i) => high(i.into_raw()),
        DynamicImage::ImageLumaA16(i) => high(i.into_raw()),
        DynamicImage::ImageRgb16(i) => high(i.into_raw()),
        DynamicImage::ImageRgba16(i) => high(i.into_raw()),
        // No decoder of ours gives floats, and a conversion is always right.
        other => other.into_rgb8().into_raw(),
    }
}

/// Applies `alpha` to pixels of `N` samples, the last of them opacity.
fn pixels<const N: usize>(samples: &[u8], alpha: Alpha, split: impl Fn(&[u8; N]) -> ([u8; 3], u8)) -> Vec<u8> {
    let pixels = samples.as_chunks::<N>().0.iter().map(split);
    match alpha {
        Alpha::Drop => pixels.flat_map(|(colour, _)| colour).collect(),
        Alpha::OverWhite => {
            pixels.flat_map(|(colour, opacity)| colour.map(|sample| over_white(sample, opacity))).collect()
        }
    }
}

/// `(sample * opacity + 255 * (255 - opacity)) / 255`, rounded by Pillow's arithmetic with seven more bits.
fn over_white(sample: u8, opacity: u8) -> u8 {
    const BITS: u32 = 7;
    let (sample, opacity) = (u32::from(sample), u32::from(opacity));
    let sum = (sample * opacity + 255 * (255 - opacity) + 128) << BITS;
    ((((sum >> 8) + sum) >> 8) >> BITS) as u8
}
