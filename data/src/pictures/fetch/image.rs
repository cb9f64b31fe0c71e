//! What a picture looks like in its first bytes.

/// So many bytes are enough to tell.
pub(super) const MAGIC_BYTES: usize = 18;

/// Whether bytes begin as a JPEG, PNG, WebP, GIF or BMP does. What the server says about them is not asked: half of the old
/// catalogues call a JPEG a text, and a page that says "not found" an image.
pub(super) fn looks_like_image(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8, 0xff])
        || bytes.starts_with(b"\x89PNG\r\n\x1a\n")
        || bytes.starts_with(b"GIF87a")
        || bytes.starts_with(b"GIF89a")
        || (bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP"))
        || looks_like_bmp(bytes)
}

/// Two letters alone are a word as well, so the length of the second header has to be one of those in use.
fn looks_like_bmp(bytes: &[u8]) -> bool {
    let header = bytes.get(14..18).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    bytes.starts_with(b"BM") && matches!(header, Some(12 | 16 | 40 | 52 | 56 | 64 | 108 | 124))
}
