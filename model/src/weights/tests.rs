#![allow(clippy::unwrap_used)]
use half::{bf16, f16};

use super::*;

fn sample() -> Params {
    let mut params = Params::new();
    params.insert("b.weight", Tensor::from_f32(&[2, 2], vec![1.0, -2.5, 3.0e-8, f32::MAX]).unwrap());
    params.insert("a.half", Tensor::from_bf16(&[2], vec![bf16::from_f32(1.5), bf16::from_f32(-0.25)]).unwrap());
    params.insert("c.half", Tensor::from_f16(&[1], vec![f16::from_f32(0.125)]).unwrap());
    params.insert("d.codes", Tensor::from_u8(&[3], vec![0, 7, 255]).unwrap());
    params.insert("e.scalar", Tensor::from_f32(&[], vec![4.0]).unwrap());
    params
}

#[test]
fn tensors_survive_the_way_to_bytes_and_back() {
    let bytes = to_bytes(&sample()).unwrap();
    assert_eq!(from_bytes("test", &bytes).unwrap(), sample());
    assert_eq!(to_bytes(&sample()).unwrap(), bytes);
}

#[test]
fn half_precision_is_read_as_f32() {
    let params = from_bytes_f32("test", &to_bytes(&sample()).unwrap()).unwrap();
    assert_eq!(params.get("a.half").unwrap().f32().unwrap(), [1.5, -0.25]);
    assert_eq!(params.get("c.half").unwrap().f32().unwrap(), [0.125]);
}

#[test]
fn broken_bytes_are_an_error_that_names_the_file() {
    let mut bytes = to_bytes(&sample()).unwrap();
    bytes.truncate(bytes.len() - 1);
    let error = from_bytes("model.safetensors", &bytes).unwrap_err().to_string();
    assert!(error.contains("model.safetensors"), "{error}");
    assert!(from_bytes("x", b"").is_err());
}

#[test]
fn casting_rounds_to_nearest() {
    // The neighbours of 1 are 2⁻⁷ away; half of that is a tie, which goes to the even one.
    let t = Tensor::from_f32(&[2], vec![1.005, 1.003_906_3]).unwrap();
    assert_eq!(cast(&t, Dtype::Bf16).unwrap().to_f32(), [1.007_812_5, 1.0]);
}
