//! What the first bytes of a file say about the picture, before any decoder sees it.

use image::ImageFormat;

use super::jpeg;

/// Width and height, where the header is as usual; `None` leaves the answer to the decoder.
pub(crate) fn size(bytes: &[u8], format: ImageFormat) -> Option<(u32, u32)> {
    match format {
        ImageFormat::Jpeg => jpeg::frame(bytes).map(|frame| (frame.width.into(), frame.height.into())),
        ImageFormat::Png => Some((u32::from_be_bytes(at(bytes, 16)?), u32::from_be_bytes(at(bytes, 20)?))),
        ImageFormat::Gif => Some((u16::from_le_bytes(at(bytes, 6)?).into(), u16::from_le_bytes(at(bytes, 8)?).into())),
        ImageFormat::Bmp => bmp(bytes),
        ImageFormat::WebP if at(bytes, 12) == Some(*b"VP8X") => Some((three(bytes, 24)? + 1, three(bytes, 27)? + 1)),
        _ => None,
    }
}

/// Whether the file ends early, as far as that can be told without decoding. Asked where a decoder has failed.
pub(crate) fn is_cut(bytes: &[u8], format: ImageFormat) -> bool {
    match format {
        ImageFormat::Jpeg => !jpeg::has_end(bytes),
        ImageFormat::WebP => at(bytes, 4).is_none_or(|length| u32::from_le_bytes(length) as usize > bytes.len() - 8),
        ImageFormat::Gif => bytes.last() != Some(&b';'),
        _ => false,
    }
}

/// The header of 1990, with 32 bits a side; a negative height only means that the top row comes first.
fn bmp(bytes: &[u8]) -> Option<(u32, u32)> {
    if u32::from_le_bytes(at(bytes, 14)?) < 40 {
        return None;
    }
    let side = |offset| Some(i32::from_le_bytes(at(bytes, offset)?).unsigned_abs());
    Some((side(18)?, side(22)?))
}

fn three(bytes: &[u8], offset: usize) -> Option<u32> {
    let [a, b, c] = at(bytes, offset)?;
    Some(u32::from_le_bytes([a, b, c, 0]))
}

fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}
