//! Files that are no pictures, cut, damaged or made to harm: each gives the answer that is listed, and none a panic.

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use model::captioner::picture::{Alpha, Class, Limits, Orientation, decode};

/// What each file gives: a reason, or the size of a picture. `make_bad.py` beside the files says how they were made.
const EXPECTED: &[(&str, &str)] = &[
    ("arithmetic.jpg", "unsupported"),
    ("avif.jpg", "unsupported"),
    ("bad_exif.jpg", "ok 24x15"),
    ("bad_run_length.bmp", "truncated"),
    ("beyond_palette.png", "ok 5x5"),
    ("bigger_frame.gif", "too_much_memory"),
    ("bomb_400_million.png", "too_many_pixels"),
    ("bomb_49_million.png", "ok 7000x7000"),
    ("cut_40_j420.jpg", "truncated"),
    ("cut_40_lossless.webp", "truncated"),
    ("cut_40_lossy.webp", "truncated"),
    ("cut_40_plain.gif", "truncated"),
    ("cut_40_progressive.jpg", "truncated"),
    ("cut_40_rgb.bmp", "truncated"),
    ("cut_40_rgb8.png", "truncated"),
    ("cut_5_j420.jpg", "truncated"),
    ("cut_5_lossless.webp", "truncated"),
    ("cut_5_lossy.webp", "truncated"),
    ("cut_5_plain.gif", "truncated"),
    ("cut_5_progressive.jpg", "truncated"),
    ("cut_5_rgb.bmp", "truncated"),
    ("cut_5_rgb8.png", "truncated"),
    ("cut_90_j420.jpg", "truncated"),
    ("cut_90_lossless.webp", "truncated"),
    ("cut_90_lossy.webp", "truncated"),
    ("cut_90_plain.gif", "truncated"),
    ("cut_90_progressive.jpg", "truncated"),
    ("cut_90_rgb.bmp", "truncated"),
    ("cut_90_rgb8.png", "truncated"),
    ("elf.jpg", "unknown_format"),
    ("empty.jpg", "empty"),
    ("flipped.webp", "ok 45x31"),
    ("flipped_3_scan.jpg", "ok 45x31"),
    ("flipped_6_scan.jpg", "ok 45x31"),
    ("flipped_8_scan.jpg", "ok 45x31"),
    ("flipped_data.png", "corrupt"),
    ("garbage_in_data.gif", "corrupt"),
    ("gzip.jpg", "unknown_format"),
    ("half_with_end.jpg", "ok 45x31"),
    ("html.jpg", "unknown_format"),
    ("huge.bmp", "side_too_long"),
    ("huge.gif", "side_too_long"),
    ("huge.jpg", "side_too_long"),
    ("huge.png", "side_too_long"),
    ("huge.webp", "side_too_long"),
    ("huge_exif.jpg", "ok 15x24"),
    ("impossible_colour.png", "corrupt"),
    ("impossible_depth.bmp", "corrupt"),
    ("impossible_depth.png", "corrupt"),
    ("json.jpg", "unknown_format"),
    ("largest.bmp", "side_too_long"),
    ("largest.png", "side_too_long"),
    ("longer_chunk.png", "truncated"),
    ("lossless.jpg", "unsupported"),
    ("lying_length.webp", "ok 45x31"),
    ("lying_segment.jpg", "truncated"),
    ("magic_only_j420.jpg", "truncated"),
    ("magic_only_lossy.webp", "truncated"),
    ("magic_only_plain.gif", "truncated"),
    ("magic_only_rgb.bmp", "truncated"),
    ("magic_only_rgb8.png", "truncated"),
    ("many_frames.gif", "ok 2x2"),
    ("many_pixels.jpg", "too_many_pixels"),
    ("no_data.png", "corrupt"),
    ("no_end.jpg", "truncated"),
    ("no_end_chunk.png", "truncated"),
    ("no_frame.gif", "corrupt"),
    ("no_height.jpg", "zero_size"),
    ("no_palette.gif", "corrupt"),
    ("no_palette.png", "corrupt"),
    ("no_quantisation.jpg", "corrupt"),
    ("no_size.gif", "zero_size"),
    ("no_tables.jpg", "corrupt"),
    ("no_trailer.gif", "ok 45x31"),
    ("no_width.bmp", "zero_size"),
    ("no_width.jpg", "zero_size"),
    ("no_width.png", "zero_size"),
    ("one_byte.jpg", "unknown_format"),
    ("other_name.png", "ok 45x31"),
    ("pdf.jpg", "unknown_format"),
    ("profile_bomb.png", "ok 5x5"),
    ("shorter_chunk.png", "corrupt"),
    ("svg.jpg", "unknown_format"),
    ("text.jpg", "unknown_format"),
    ("text_bomb.png", "ok 5x5"),
    ("tiff.jpg", "unsupported"),
    ("too_little_data.png", "corrupt"),
    ("too_much_data.png", "ok 3x3"),
    ("twelve_bits.jpg", "unsupported"),
    ("two_headers.png", "corrupt"),
    ("wav.jpg", "unknown_format"),
    ("wrong_crc_of_data.png", "corrupt"),
    ("wrong_crc_of_header.png", "corrupt"),
    ("zeros.jpg", "unknown_format"),
    ("zip.jpg", "unknown_format"),
];

/// Reasons that mean "more than the limits give"; all others mean "cannot be read".
const TOO_LARGE: [&str; 4] = ["too_many_bytes", "side_too_long", "too_many_pixels", "too_much_memory"];

#[test]
fn every_bad_file_gives_the_listed_answer() {
    let Some(folder) = crate::fixtures::folder("pictures/bad") else { return };
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let found: BTreeMap<String, String> = files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), answer(&std::fs::read(&path).unwrap())))
        .collect();
    let expected = EXPECTED.iter().map(|(file, answer)| ((*file).to_owned(), (*answer).to_owned())).collect();
    assert_eq!(found, expected);
}

#[test]
fn no_flipped_byte_of_a_good_picture_causes_a_panic() {
    let Some(folder) = crate::fixtures::folder("pictures/good") else { return };
    for file in [
        "j420.jpg",
        "progressive.jpg",
        "ycck.jpg",
        "palette4_interlaced.png",
        "plain.gif",
        "run_length.bmp",
        "lossy_alpha.webp",
        "lossless.webp",
    ] {
        let good = std::fs::read(folder.join(file)).unwrap();
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 0x5A;
            answer(&bad);
        }
    }
}

/// The reason, or the size; a panic of a decoder fails the test.
fn answer(bytes: &[u8]) -> String {
    let decoded = catch_unwind(|| decode(bytes, &Limits::default(), Orientation::Apply, Alpha::OverWhite));
    match decoded.expect("a decoder panicked") {
        Ok(picture) => format!("ok {}x{}", picture.width(), picture.height()),
        Err(e) => {
            let class = if TOO_LARGE.contains(&e.reason()) { Class::TooLarge } else { Class::Undecodable };
            assert_eq!(e.class(), class, "{e}");
            e.reason().to_owned()
        }
    }
}
