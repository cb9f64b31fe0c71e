#![allow(clippy::unwrap_used)]

use std::io::Read as _;

use flate2::Crc;
use flate2::read::ZlibDecoder;

use super::{SIDE, draw, pixels, png};
use crate::demo::rng::Rng;
use crate::demo::scene::{Drawable, Scene};

fn words() -> Drawable {
    serde_json::from_str(include_str!("../words.json")).unwrap()
}

fn scene(shape: &str, colour: &str, pattern: &str, count: usize) -> Scene {
    let [colour, pattern] = [colour, pattern].map(str::to_owned);
    Scene { shape: (shape.to_owned(), format!("{shape}s")), colour, pattern, count, caption: String::new() }
}

#[test]
fn every_word_can_be_drawn() {
    let words = words();
    for (shape, _) in &words.shapes {
        for (colour, pattern) in words.colours.iter().zip(words.patterns.iter().cycle()) {
            for count in 1..=words.counts.len() {
                let picture = pixels(&scene(shape, colour, pattern, count), &mut Rng::new(7));
                assert_eq!(picture.len(), 3 * SIDE * SIDE);
            }
        }
    }
}

#[test]
fn every_word_makes_another_picture() {
    let any = |shape: &str, colour: &str, pattern: &str, count| {
        pixels(&scene(shape, colour, pattern, count), &mut Rng::new(7))
    };
    let words = words();
    let mut pictures: Vec<_> = words.shapes.iter().map(|(shape, _)| any(shape, "red", "plain", 1)).collect();
    pictures.extend(words.colours.iter().skip(1).map(|colour| any("star", colour, "plain", 1)));
    pictures.extend(words.patterns.iter().skip(1).map(|pattern| any("star", "red", pattern, 1)));
    pictures.extend((2..=words.counts.len()).map(|count| any("star", "red", "plain", count)));
    let drawn = pictures.len();
    pictures.sort();
    pictures.dedup();
    assert_eq!(pictures.len(), drawn);
}

#[test]
fn a_picture_has_the_same_bits_everywhere() {
    // The captioner was trained on pictures with these bits.
    let mut crc = Crc::new();
    for (i, (shape, _)) in words().shapes.iter().enumerate() {
        let pattern = &words().patterns[i % 5];
        crc.update(&pixels(&scene(shape, "blue", pattern, 1 + i % 4), &mut Rng::new(i as u64)));
    }
    assert_eq!(crc.sum(), 2_601_030_476);
}

#[test]
fn a_shape_in_the_middle_has_its_colour_there() {
    let picture = pixels(&scene("square", "blue", "plain", 1), &mut Rng::new(1));
    let [red, green, blue] = picture[3 * (SIDE * SIDE / 2 + SIDE / 2)..][..3] else { unreachable!() };
    assert!(blue > 180 && red < 60 && green < 120, "{red} {green} {blue}");
}

#[test]
fn a_file_gives_its_pixels_back() {
    let rgb: Vec<u8> = (0..3 * 5 * 5).map(|i| (i * 37 % 256) as u8).collect();
    assert_eq!(unpacked(5, &png::encode(5, &rgb)), rgb);
    let star = scene("star", "red", "dots", 3);
    assert_eq!(unpacked(SIDE, &draw(&star, &mut Rng::new(3))), pixels(&star, &mut Rng::new(3)));
}

/// Reads what the writer writes: three chunks with right checksums, rows as differences to the left.
fn unpacked(side: usize, file: &[u8]) -> Vec<u8> {
    let mut rest = file.strip_prefix(b"\x89PNG\r\n\x1a\n").unwrap();
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        let mut crc = Crc::new();
        crc.update(&rest[4..8 + length]);
        assert_eq!(crc.sum().to_be_bytes(), rest[8 + length..12 + length]);
        chunks.push((&rest[4..8], &rest[8..8 + length]));
        rest = &rest[12 + length..];
    }
    let [(b"IHDR", header), (b"IDAT", packed), (b"IEND", [])] = chunks[..] else { panic!("{chunks:?}") };
    assert_eq!(header, [0, 0, 0, side as u8, 0, 0, 0, side as u8, 8, 2, 0, 0, 0]);
    let mut rows = Vec::new();
    ZlibDecoder::new(packed).read_to_end(&mut rows).unwrap();
    let mut rgb = Vec::new();
    for row in rows.chunks_exact(1 + 3 * side) {
        assert_eq!(row[0], 1);
        let start = rgb.len();
        for (i, value) in row[1..].iter().enumerate() {
            let left = if i < 3 { 0 } else { rgb[start + i - 3] };
            rgb.push(value.wrapping_add(left));
        }
    }
    rgb
}
