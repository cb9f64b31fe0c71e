//! Whether a JPEG is all there.
//!
//! JPEG decoders fill what is missing with grey and call it a picture. Pillow refuses it, and so do we: half a picture would
//! get a caption that nobody can tell from a good one.

const START_OF_SCAN: u8 = 0xDA;
const END_OF_IMAGE: u8 = 0xD9;

/// True if the end marker follows at least one scan; previews inside of segments do not count.
pub(crate) fn has_end(bytes: &[u8]) -> bool {
    // Behind the two bytes that begin every JPEG.
    let mut rest = bytes.get(2..).unwrap_or_default();
    let mut scans = 0;
    while let Some((marker, behind)) = next_marker(rest) {
        rest = match marker {
            END_OF_IMAGE => return scans > 0,
            // Markers without a segment: restart, temporary, and a second start.
            0x01 | 0xD0..=0xD8 => behind,
            _ => match skip_segment(behind) {
                Some(behind) => behind,
                None => return false,
            },
        };
        scans += usize::from(marker == START_OF_SCAN);
    }
    false
}

/// The next marker and what is behind it. Coded pixels are no markers: in them 0xFF is followed by zero.
fn next_marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let mut rest = bytes;
    loop {
        let at = rest.iter().position(|&b| b == 0xFF)?;
        rest = &rest[at + 1..];
        match rest.first()? {
            0x00 => rest = &rest[1..],
            // A fill byte: it may be the first half of the marker.
            0xFF => {}
            &marker => return Some((marker, &rest[1..])),
        }
    }
}

/// What is behind a segment that begins with its own length.
fn skip_segment(bytes: &[u8]) -> Option<&[u8]> {
    let length = bytes.first_chunk::<2>().map(|l| usize::from(u16::from_be_bytes(*l)))?;
    bytes.get(length.max(2)..)
}
