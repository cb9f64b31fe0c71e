//! The segments of a JPEG: what it says of itself, and whether it is all there.
//!
//! JPEG decoders fill what is missing with grey and call it a picture. Pillow refuses it, and so do we: half a picture would
//! get a caption that nobody can tell from a good one.

const START_OF_SCAN: u8 = 0xDA;
const END_OF_IMAGE: u8 = 0xD9;

/// What a frame header says.
pub(crate) struct Frame {
    /// Pixels in a row.
    pub(crate) width: u16,
    /// Rows.
    pub(crate) height: u16,
    /// What the decoder does not know about, if it is of that kind.
    pub(crate) unread: Option<&'static str>,
}

/// The first frame header; previews inside of segments do not count.
pub(crate) fn frame(bytes: &[u8]) -> Option<Frame> {
    let (marker, body) = segments(bytes).find(|(marker, _)| is_frame(*marker))?;
    let &[_, _, precision, h1, h0, w1, w0] = body.first_chunk()?;
    let unread = match marker {
        0xC0..=0xC2 if precision != 8 => Some("JPEG with more than 8 bits a sample"),
        0xC0..=0xC2 => None,
        0xC9..=0xCB | 0xCD..=0xCF => Some("JPEG with arithmetic coding"),
        _ => Some("lossless or hierarchical JPEG"),
    };
    Some(Frame { width: u16::from_be_bytes([w1, w0]), height: u16::from_be_bytes([h1, h0]), unread })
}

/// True if the end marker follows at least one scan; previews inside of segments do not count.
pub(crate) fn has_end(bytes: &[u8]) -> bool {
    let mut behind_a_scan = segments(bytes).skip_while(|(marker, _)| *marker != START_OF_SCAN);
    behind_a_scan.any(|(marker, _)| marker == END_OF_IMAGE)
}

/// Every marker up to the end or to where the file is cut, with all that follows it.
fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    // Behind the two bytes that begin every JPEG.
    let mut rest = bytes.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (marker, body) = next_marker(rest)?;
        // Markers without a segment: temporary, restart, a second start, the end.
        rest = if matches!(marker, 0x01 | 0xD0..=0xD9) { body } else { skip_segment(body)? };
        Some((marker, body))
    })
}

/// Among these numbers are three that mean something else: tables, extensions and conditioning.
fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC)
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
