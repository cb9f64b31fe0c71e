//! Pixels to a PNG file.

use std::io::Write as _;

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
/// Eight bits for each of red, green and blue; nothing interlaced.
const DEPTH_AND_COLOUR: [u8; 5] = [8, 2, 0, 0, 0];
/// A row's pixels are written as differences to their left neighbours, which pack best here.
const LEFT: u8 = 1;

/// A square picture of `side` pixels, red, green and blue of each, row by row.
pub(super) fn encode(side: usize, rgb: &[u8]) -> Vec<u8> {
    let length = u32::try_from(side).expect("pictures of the demo are small").to_be_bytes();
    let mut header = [length, length].concat();
    header.extend(DEPTH_AND_COLOUR);
    let mut file = SIGNATURE.to_vec();
    chunk(&mut file, *b"IHDR", &header);
    chunk(&mut file, *b"IDAT", &packed(side, rgb));
    chunk(&mut file, *b"IEND", &[]);
    file
}

fn packed(side: usize, rgb: &[u8]) -> Vec<u8> {
    let mut rows = Vec::with_capacity(rgb.len() + side);
    for row in rgb.chunks_exact(3 * side) {
        rows.push(LEFT);
        rows.extend(row.iter().enumerate().map(|(i, value)| value.wrapping_sub(if i < 3 { 0 } else { row[i - 3] })));
    }
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::new(6));
    zlib.write_all(&rows).and_then(|()| zlib.finish()).expect("writing to memory does not fail")
}

/// Length, kind, content and checksum.
fn chunk(file: &mut Vec<u8>, kind: [u8; 4], content: &[u8]) {
    let mut crc = Crc::new();
    crc.update(&kind);
    crc.update(content);
    file.extend(u32::try_from(content.len()).expect("pictures of the demo are small").to_be_bytes());
    file.extend(kind);
    file.extend(content);
    file.extend(crc.sum().to_be_bytes());
}
