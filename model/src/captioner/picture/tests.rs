//! What can be seen without files of others; pictures of every kind are compared with Pillow's in `integration-tests`.

#![allow(clippy::unwrap_used)]

use image::{DynamicImage, ExtendedColorType, ImageEncoder, ImageFormat, codecs::png::PngEncoder};

use super::*;
use crate::Error;

fn read(bytes: &[u8]) -> Result<Picture, PictureError> {
    decode(bytes, &Limits::default(), Orientation::Apply, Alpha::OverWhite)
}

fn png(width: u32, height: u32, samples: &[u8], colour: ExtendedColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(samples, width, height, colour).unwrap();
    bytes
}

fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::new_rgb8(width, height).write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

#[test]
fn one_pixel_is_a_picture() {
    let picture = read(&png(1, 1, &[10, 20, 30], ExtendedColorType::Rgb8)).unwrap();
    assert_eq!((picture.width(), picture.height(), picture.rgb()), (1, 1, &[10, 20, 30][..]));
    assert_eq!(resize(&picture, 3).into_rgb(), [10, 20, 30].repeat(9));
}

#[test]
fn transparency_shows_white_or_what_is_behind() {
    let bytes = png(2, 1, &[100, 0, 200, 0, 100, 0, 200, 128], ExtendedColorType::Rgba8);
    assert_eq!(read(&bytes).unwrap().rgb(), [255, 255, 255, 177, 127, 227]);
    let dropped = decode(&bytes, &Limits::default(), Orientation::Apply, Alpha::Drop).unwrap();
    assert_eq!(dropped.rgb(), [100, 0, 200, 100, 0, 200]);
}

#[test]
fn limits_hold_before_anything_is_decoded() {
    let bytes = png(30, 20, &[7; 600], ExtendedColorType::L8);
    let refused = |limits: Limits| {
        let error = decode(&bytes, &limits, Orientation::Apply, Alpha::OverWhite).unwrap_err();
        assert_eq!(error.class(), Class::TooLarge);
        error.reason()
    };
    let default = Limits::default();
    assert_eq!(refused(Limits { bytes: bytes.len() - 1, ..default }), "too_many_bytes");
    assert_eq!(refused(Limits { side: 29, ..default }), "side_too_long");
    assert_eq!(refused(Limits { pixels: 599, ..default }), "too_many_pixels");
    let exact = Limits { bytes: bytes.len(), side: 30, pixels: 600 };
    assert!(decode(&bytes, &exact, Orientation::Apply, Alpha::OverWhite).is_ok());
}

#[test]
fn what_is_no_picture_is_named() {
    assert_eq!(read(b"").unwrap_err().reason(), "empty");
    assert_eq!(read(b"<html>").unwrap_err().reason(), "unknown_format");
    let tiff = read(b"II*\0\x08\0\0\0").unwrap_err();
    assert_eq!(tiff.reason(), "unsupported");
    assert_eq!(tiff.to_string(), "TIFF is not supported: convert the picture to plain JPEG or PNG");
}

#[test]
fn a_jpeg_cut_anywhere_is_truncated_and_never_half_a_picture() {
    let whole = jpeg(40, 24);
    assert!(read(&whole).is_ok());
    for end in 4..whole.len() {
        let reason = read(&whole[..end]).unwrap_err().reason();
        assert_eq!(reason, "truncated", "cut at {end} of {}", whole.len());
    }
}

#[test]
fn a_png_cut_anywhere_is_refused() {
    let whole = png(9, 5, &[3; 135], ExtendedColorType::Rgb8);
    // The last chunk says only that nothing more comes.
    for end in 8..whole.len() - 12 {
        assert_eq!(read(&whole[..end]).unwrap_err().reason(), "truncated", "cut at {end} of {}", whole.len());
    }
}

#[test]
fn equal_pixels_stay_equal_at_any_size() {
    for (width, height) in [(1, 9), (7, 3), (40, 40), (3, 200)] {
        let picture = Picture::new(width, height, [0, 128, 255].repeat(width * height)).unwrap();
        assert_eq!(resize(&picture, 13).into_rgb(), [0, 128, 255].repeat(169));
    }
}

#[test]
fn pictures_have_the_pixels_that_they_say() {
    assert!(Picture::new(0, 1, Vec::new()).is_none());
    assert!(Picture::new(2, 1, vec![0; 5]).is_none());
    assert!(Picture::new(usize::MAX, 2, Vec::new()).is_none());
}

#[test]
fn settings_default_to_those_of_the_image_processor() {
    let settings = Preprocess::from_json(b"{}").unwrap();
    assert_eq!(settings, Preprocess::default());
    let file =
        br#"{"size": {"height": 224, "width": 224}, "image_mean": [0.5, 0.4, 0.3], "resample": 3, "other": [1]}"#;
    let settings = Preprocess::from_json(file).unwrap();
    assert_eq!((settings.size, settings.normalisation.mean), (224, [0.5, 0.4, 0.3]));
    assert_eq!(Preprocess::from_json(br#"{"size": 30}"#).unwrap().size, 30);
}

#[test]
fn settings_that_are_not_followed_are_refused_by_name() {
    let cases = [
        (r#"{"do_resize": false}"#, "do_resize"),
        (r#"{"do_rescale": false}"#, "do_rescale"),
        (r#"{"do_normalize": false}"#, "do_normalize"),
        (r#"{"do_convert_rgb": false}"#, "do_convert_rgb"),
        (r#"{"do_center_crop": true}"#, "do_center_crop"),
        (r#"{"resample": 2}"#, "resample"),
        (r#"{"resample": "nearest"}"#, "resample"),
        (r#"{"size": {"height": 224, "width": 200}}"#, "size"),
        (r#"{"size": {"shortest_edge": 224}}"#, "size"),
        (r#"{"size": 0}"#, "size"),
        (r#"{"size": 100000}"#, "size"),
        (r#"{"image_std": [0.5, 0, 0.5]}"#, "image_std"),
        (r#"{"rescale_factor": -1}"#, "rescale_factor"),
        (r#"{"image_mean": [1, 2]}"#, "invalid length"),
        ("not json", "expected"),
    ];
    for (file, named) in cases {
        let error = Preprocess::from_json(file.as_bytes()).unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{file}");
        assert!(error.to_string().contains(named), "{file}: {error}");
    }
}
