//! Pictures of every kind, decoded, resized and normalised, against Pillow and the BLIP image processor.

use std::path::Path;

use kernels::{Tensor, patches};
use model::captioner::picture::{Alpha, Limits, Orientation, Picture, Preprocess, decode, resize};
use model::params::Params;
use serde_json::json;

use crate::golden;

#[test]
fn every_kind_of_picture_decodes_to_the_same_colours() {
    let Some(folder) = crate::fixtures::folder("pictures") else { return };
    let golden = golden::tensors(&folder.join("golden.safetensors"));
    let mut compared = 0;
    for (name, wanted) in golden.iter().filter(|(name, _)| !name.starts_with("resize.")) {
        let (file, look) = name.rsplit_once('.').unwrap();
        let (orientation, alpha) = match look {
            "rgb" => (Orientation::Ignore, Alpha::Drop),
            "over_white" => (Orientation::Ignore, Alpha::OverWhite),
            "upright" => (Orientation::Apply, Alpha::Drop),
            _ => panic!("{name}: unknown"),
        };
        let found = read(&folder.join("good").join(file), orientation, alpha);
        assert_eq!([found.height(), found.width(), 3], wanted.shape(), "{name}");
        same(name, found.rgb(), wanted.u8().unwrap(), &Allowed::of(file));
        compared += 1;
    }
    assert!(compared > 0, "an empty set");
    println!("{compared} pictures are equal");
}

#[test]
fn resizing_gives_the_same_bytes() {
    let Some(folder) = crate::fixtures::folder("pictures") else { return };
    let golden = golden::tensors(&folder.join("golden.safetensors"));
    for (name, wanted) in golden.iter().filter(|(name, _)| name.starts_with("resize.")) {
        let numbers: Vec<usize> = name.split(['.', 'x']).skip(1).map(|n| n.parse().unwrap()).collect();
        let found = resize(&formula(numbers[0], numbers[1]), numbers[2]);
        assert_eq!([found.height(), found.width(), 3], wanted.shape(), "{name}");
        assert_eq!(found.rgb(), wanted.u8().unwrap(), "{name}");
    }
}

#[test]
fn the_image_processor_gives_the_same_numbers() {
    let Some(folder) = crate::fixtures::folder("blip2") else { return };
    let golden = golden::tensors(&folder.join("preprocess.safetensors"));
    for (name, wanted) in golden.iter().filter(|(name, _)| name.contains(".pixel_values_")) {
        let (file, case) = name.split_once(".pixel_values_").unwrap();
        let alpha = if case.ends_with("_over_white") { Alpha::OverWhite } else { Alpha::Drop };
        let picture = read(&folder.join("images").join(file), Orientation::Ignore, alpha);
        compare_decoded(file, &picture, alpha, &golden);
        let side: usize = case.trim_end_matches("_over_white").parse().unwrap();
        let preprocess = settings(side);
        // One patch of the whole picture is its planes.
        let small = Tensor::from_u8(&[1, side, side, 3], resize(&picture, side).into_rgb()).unwrap();
        let found = patches::normalised(&small, side, &preprocess.normalisation).unwrap().to_f32();
        compare_numbers(name, &preprocess, &found, wanted, &Allowed::of(file));
    }
}

/// Before resizing; the golden file has the colours as they are stored.
fn compare_decoded(file: &str, picture: &Picture, alpha: Alpha, golden: &Params) {
    if alpha == Alpha::Drop {
        let wanted = golden.get(&format!("{file}.decoded_rgb")).unwrap();
        same(file, picture.rgb(), wanted.u8().unwrap(), &Allowed::of(file));
    }
}

/// Distances are taken before normalising, in steps of a byte.
fn compare_numbers(name: &str, preprocess: &Preprocess, found: &[f32], wanted: &Tensor, allowed: &Allowed) {
    let wanted = wanted.f32().unwrap();
    let plane = found.len() / 3;
    let steps = |i: usize| (found[i] - wanted[i]).abs() * preprocess.normalisation.std[i / plane] * 255.0;
    // What is left between equal bytes is rounding of floats.
    let distances: Vec<f32> = (0..found.len()).map(|i| (steps(i) - 1e-3).max(0.0)).collect();
    assert_eq!(found.len(), wanted.len(), "{name}");
    allowed.check(name, &distances);
}

/// The settings that BLIP-2 checkpoints come with, for another size.
fn settings(side: usize) -> Preprocess {
    let file = json!({
        "do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "BlipImageProcessor", "processor_class": "Blip2Processor", "resample": 3,
        "rescale_factor": 0.00392156862745098, "size": {"height": side, "width": side},
    });
    Preprocess::from_json(file.to_string().as_bytes()).unwrap()
}

fn read(path: &Path, orientation: Orientation, alpha: Alpha) -> Picture {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    decode(&bytes, &Limits::default(), orientation, alpha).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The picture that the resized ones of the golden file were made from.
fn formula(width: usize, height: usize) -> Picture {
    let sample = |x: usize, y: usize, c: usize| (((x * x * 3 + y * y * 5 + x * y * (c + 1) + 17 * c) >> 2) % 256) as u8;
    let rgb = (0..width * height * 3).map(|i| sample(i / 3 % width, i / 3 / width, i % 3)).collect();
    Picture::new(width, height, rgb).unwrap()
}

fn same(name: &str, found: &[u8], wanted: &[u8], allowed: &Allowed) {
    let distances: Vec<f32> = found.iter().zip(wanted).map(|(&f, &w)| f32::from(f.abs_diff(w))).collect();
    allowed.check(name, &distances);
}

/// How far decoders may be apart, in steps of a byte.
struct Allowed {
    on_average: f32,
    anywhere: f32,
}

impl Allowed {
    /// JPEG leaves the last steps of its arithmetic to the decoder, and Pillow cuts where five bits become eight; all others
    /// are exact.
    fn of(file: &str) -> Self {
        match file {
            _ if file.ends_with(".jpg") => Self { on_average: 1.0, anywhere: 8.0 },
            "rgb555.bmp" => Self { on_average: 1.0, anywhere: 1.0 },
            _ => Self { on_average: 0.0, anywhere: 0.0 },
        }
    }

    fn check(&self, name: &str, distances: &[f32]) {
        let average = distances.iter().sum::<f32>() / distances.len() as f32;
        let largest = distances.iter().copied().fold(0.0, f32::max);
        let text = format!("{name}: {average} steps apart on average, {largest} at most");
        assert!(average <= self.on_average && largest <= self.anywhere, "{text}");
    }
}
