//! Golden files as values: what cannot be read fails the test.

use std::path::Path;

use kernels::Device;
use model::params::Params;
use safetensors::SafeTensors;
use serde_json::Value;

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A JSON file.
pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&read(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The tensors of a safetensors file that hold floats or bytes.
pub(crate) fn tensors(path: &Path) -> Params {
    let bytes = read(path);
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let readable = file.iter().filter(|(_, view)| view.dtype() != safetensors::Dtype::I64);
    readable.map(|(name, view)| (name.to_owned(), model::weights::to_tensor(name, &view).unwrap())).collect()
}

/// A tensor of 64-bit integers, flat.
pub(crate) fn integers(path: &Path, name: &str) -> Vec<i64> {
    let bytes = read(path);
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let view = file.tensor(name).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
}

/// Asserts that every value is within an absolute or, where that is larger, a relative distance.
pub(crate) fn close(what: &str, found: &[f32], wanted: &[f32], absolute: f32, relative: f32) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
        assert!((f - w).abs() <= absolute.max(relative * w.abs()), "{what}[{i}]: {f} and {w}");
    }
}

/// Where models are compared: the CPU, or what `MLLM4REC_TEST_DEVICE` says: `cuda` or `emulated`.
pub(crate) fn device() -> Device {
    match std::env::var("MLLM4REC_TEST_DEVICE").as_deref() {
        Ok("cuda") => Device::cuda(0, 2).unwrap(),
        Ok("emulated") => Device::emulated().unwrap(),
        Ok(other) => panic!("MLLM4REC_TEST_DEVICE is cuda or emulated, not {other}"),
        Err(_) => Device::cpu(2).unwrap(),
    }
}
