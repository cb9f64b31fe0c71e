#![allow(clippy::unwrap_used)]
use super::reference::patches;
use super::*;
use crate::testing::{accelerator, largest_error, noise_tensor, same_on_threads};

const CLIP: Normalisation =
    Normalisation { rescale: 1.0 / 255.0, mean: [0.481, 0.458, 0.408], std: [0.269, 0.261, 0.276] };

/// Pictures, height, width and side of a patch.
const SHAPES: [[usize; 4]; 6] = [[0, 4, 4, 2], [1, 1, 1, 1], [2, 6, 4, 2], [3, 14, 28, 14], [5, 9, 3, 3], [1, 0, 4, 2]];

fn bytes(shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    Tensor::from_u8(shape, (0..count).map(|i| (i * 151 % 256) as u8).collect()).unwrap()
}

#[test]
fn a_picture_by_hand() {
    let half = Normalisation { rescale: 0.5, mean: [0.0, 1.0, 2.0], std: [1.0, 2.0, 4.0] };
    // Two pixels beside each other, each a patch.
    let picture = Tensor::from_u8(&[1, 1, 2, 3], vec![2, 4, 8, 10, 20, 30]).unwrap();
    let rows = normalised(&picture, 1, &half).unwrap();
    assert_eq!(rows.shape(), [2, 3]);
    assert_eq!(rows.f32().unwrap(), [1.0, 0.5, 0.5, 5.0, 4.5, 3.25]);
}

#[test]
fn bytes_match_the_definition() {
    for [n, height, width, side] in SHAPES {
        let pictures = bytes(&[n, height, width, 3]);
        let found = normalised(&pictures, side, &CLIP).unwrap();
        let values = pictures.u8().unwrap();
        let wanted = patches([n, height, width, side], |i, y, x, c| {
            let byte = f64::from(values[((i * height + y) * width + x) * 3 + c]);
            (byte / 255.0 - f64::from(CLIP.mean[c])) / f64::from(CLIP.std[c])
        });
        assert!(largest_error(found.f32().unwrap(), &wanted) < 1e-6, "{n} x {height} x {width}, {side}");
    }
}

#[test]
fn planes_match_the_definition() {
    for [n, height, width, side] in SHAPES {
        let pictures = noise_tensor(1, &[n, 3, height, width]);
        let values = pictures.f32().unwrap();
        let wanted =
            patches([n, height, width, side], |i, y, x, c| f64::from(values[((i * 3 + c) * height + y) * width + x]));
        assert!(largest_error(cut(&pictures, side).unwrap().f32().unwrap(), &wanted) == 0.0);
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let pictures = bytes(&[7, 28, 14, 3]);
    same_on_threads(|| normalised(&pictures, 7, &CLIP).unwrap());
}

#[test]
fn what_does_not_fit_is_named() {
    for (shape, side) in
        [(&[1, 4, 4][..], 2), (&[1, 4, 4, 4], 2), (&[1, 5, 4, 3], 2), (&[1, 4, 4, 3], 0), (&[1, 0, 0, 3], usize::MAX)]
    {
        let error = normalised(&bytes(shape), side, &CLIP).unwrap_err().to_string();
        assert!(error.contains("patches::normalised") && error.contains("pictures"), "{error}");
    }
    assert!(matches!(normalised(&noise_tensor(1, &[1, 4, 4, 3]), 2, &CLIP), Err(Error::Dtype { .. })));
    assert!(matches!(cut(&bytes(&[1, 3, 4, 4]), 2), Err(Error::Dtype { .. })));
    assert!(matches!(cut(&noise_tensor(1, &[1, 3, 4, 5]), 2), Err(Error::Shape { .. })));
}

#[test]
fn a_device_cuts_to_the_bits_of_the_host() {
    let device = accelerator();
    // One more shape, of several blocks and pictures that do not begin at 16 bytes.
    for [n, height, width, side] in SHAPES.into_iter().chain([[3, 15, 35, 5]]) {
        let pictures = bytes(&[n, height, width, 3]);
        let found = normalised(&device.put(&pictures).unwrap(), side, &CLIP).unwrap();
        let wanted = normalised(&pictures, side, &CLIP).unwrap();
        assert!(found.stream().is_some());
        assert_eq!((found.shape(), found.to_le_bytes()), (wanted.shape(), wanted.to_le_bytes()));

        let pictures = noise_tensor(1, &[n, 3, height, width]);
        let (found, wanted) = (cut(&device.put(&pictures).unwrap(), side).unwrap(), cut(&pictures, side).unwrap());
        assert_eq!((found.shape(), found.to_le_bytes()), (wanted.shape(), wanted.to_le_bytes()));
    }
    let there = device.put(&noise_tensor(1, &[1, 4, 4, 3])).unwrap();
    assert!(matches!(normalised(&there, 2, &CLIP), Err(Error::Dtype { .. })));
}
