#![allow(clippy::unwrap_used)]

use super::*;

fn one(name: &str, value: f32) -> Params {
    Params::from_iter([(name.to_owned(), Tensor::from_f32(&[1, 2], vec![value; 2]).unwrap())])
}

#[test]
fn one_file_and_several_parts_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("model.safetensors", &weights::to_bytes(&one("a", 1.0)).unwrap());
    let whole = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(whole.tensor("a").unwrap().f32().unwrap(), [1.0, 1.0]);

    write("part-1.safetensors", &weights::to_bytes(&one("a", 2.0)).unwrap());
    write("part-2.safetensors", &weights::to_bytes(&one("b", 3.0)).unwrap());
    write(
        "model.safetensors.index.json",
        br#"{"metadata": {}, "weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}"#,
    );
    let parts = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(parts.tensor("a").unwrap().f32().unwrap(), [2.0, 2.0]);
    assert_eq!(parts.tensor("b").unwrap().f32().unwrap(), [3.0, 3.0]);
}

#[test]
fn what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Checkpoint::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("model.safetensors"), "{error}");

    std::fs::write(folder.path().join("model.safetensors"), weights::to_bytes(&one("a", 1.0)).unwrap()).unwrap();
    let whole = Checkpoint::open(folder.path()).unwrap();
    assert!(whole.tensor("c").unwrap_err().to_string().contains("`c`"));
    let error = whole.shaped("a", &[2, 2]).unwrap_err().to_string();
    assert!(error.contains("`a`") && error.contains("[1, 2]") && error.contains("[2, 2]"), "{error}");

    std::fs::write(folder.path().join("model.safetensors"), b"not tensors at all").unwrap();
    assert!(Checkpoint::open(folder.path()).err().unwrap().to_string().contains("safetensors"));
    std::fs::write(folder.path().join("model.safetensors.index.json"), br#"{"weight_map": {"a": "../x"}}"#).unwrap();
    assert!(Checkpoint::open(folder.path()).err().unwrap().to_string().contains("`../x`"));
}

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn refusal(files: &[(&str, &[u8])]) -> String {
    Checkpoint::open(folder(files).path()).err().unwrap().to_string()
}

#[test]
fn pickle_files_are_refused_by_name() {
    let said = refusal(&[("config.json", b"{}"), ("pytorch_model.bin", b"\x80\x04")]);
    assert!(said.contains("pytorch_model.bin is a pickle file") && said.contains("safe_serialization=True"), "{said}");
    // Beside safetensors they do not matter.
    let safe = weights::to_bytes(&one("a", 1.0)).unwrap();
    let both = folder(&[("pytorch_model.bin", b"\x80\x04"), ("model.safetensors", &safe)]);
    assert!(Checkpoint::open(both.path()).is_ok());
    assert!(refusal(&[("training_args.bin", b"\x80")]).contains("model.safetensors"));
}

#[test]
fn parts_that_are_missing_or_hold_something_else_are_named() {
    const INDEX: &str = "model.safetensors.index.json";
    let index = br#"{"weight_map": {"a": "p1.safetensors", "b": "p2.safetensors"}}"#;
    let (a, b) = (weights::to_bytes(&one("a", 1.0)).unwrap(), weights::to_bytes(&one("b", 2.0)).unwrap());
    let said = refusal(&[(INDEX, index), ("p1.safetensors", &a)]);
    assert!(said.contains("names p2.safetensors, which is not there"), "{said}");
    let said = refusal(&[(INDEX, index), ("p1.safetensors", &a), ("p2.safetensors", &a)]);
    assert!(said.contains("says that p2.safetensors holds `b`, but it does not"), "{said}");
    let said = refusal(&[(INDEX, b"{}"), ("p1.safetensors", &a)]);
    assert!(said.contains("weight_map"), "{said}");
    // Of a tensor in two parts the index says which counts.
    let mut both = one("a", 9.0);
    both.insert("b", Tensor::zeros(&[1]));
    let both =
        folder(&[(INDEX, index), ("p1.safetensors", &a), ("p2.safetensors", &weights::to_bytes(&both).unwrap())]);
    assert_eq!(Checkpoint::open(both.path()).unwrap().tensor("a").unwrap().f32().unwrap(), [1.0, 1.0]);
    drop(b);
}

/// A file with this header and so many bytes behind it.
fn safetensors(header: &str, bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(std::iter::repeat_n(0, bytes));
    file
}

#[test]
fn headers_that_lie_are_refused() {
    let tensor = |dtype: &str, shape: &str, from: usize, to: usize| {
        format!(r#"{{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [{from}, {to}]}}"#)
    };
    let whole = tensor("F32", "[2]", 0, 8);
    let headers = [
        (format!(r#"{{"a": {whole}}}"#), 7),                        // too short a file
        (format!(r#"{{"a": {whole}}}"#), 9),                        // too long a file
        (format!(r#"{{"a": {}}}"#, tensor("F32", "[3]", 0, 8)), 8), // a shape of more bytes
        (format!(r#"{{"a": {}}}"#, tensor("F32", "[2]", 8, 0)), 8), // backwards
        (format!(r#"{{"a": {whole}, "b": {}}}"#, tensor("F32", "[2]", 4, 12)), 12), // overlapping
        (format!(r#"{{"a": {whole}, "b": {}}}"#, tensor("F32", "[1]", 12, 16)), 16), // a hole
        (format!(r#"{{"a": {}}}"#, tensor("F32", "[4294967296, 4294967296]", 0, 8)), 8), // more than can be
        (format!(r#"{{"a": {}}}"#, tensor("F99", "[2]", 0, 8)), 8), // an unknown type
        ("{".to_owned(), 0),
    ];
    for (header, bytes) in headers {
        let said = refusal(&[("model.safetensors", &safetensors(&header, bytes))]);
        assert!(said.contains("model.safetensors"), "{header}: {said}");
    }
    for length in [0, 7, u64::MAX, 1 << 40] {
        let said = refusal(&[("model.safetensors", &length.to_le_bytes())]);
        assert!(said.contains("model.safetensors"), "{length}: {said}");
    }
    // A type that safetensors knows and a network does not.
    let header = format!(r#"{{"a": {}}}"#, tensor("I64", "[1]", 0, 8));
    let odd = folder(&[("model.safetensors", &safetensors(&header, 8))]);
    let said = Checkpoint::open(odd.path()).unwrap().tensor("a").unwrap_err().to_string();
    assert!(said.contains("`a` has type I64"), "{said}");
}

/// Whatever byte of a file is changed, it is read or refused.
#[test]
fn no_damage_makes_it_panic() {
    let mut params = one("model.w.weight", 1.0);
    params.insert("model.w.bias", Tensor::zeros(&[3]));
    let bytes = weights::to_bytes(&params).unwrap();
    for at in 0..bytes.len() {
        for change in [1u8, 0x20, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= change;
            let folder = folder(&[("model.safetensors", &damaged)]);
            if let Ok(checkpoint) = Checkpoint::open(folder.path()) {
                let _ = (checkpoint.tensor("model.w.weight"), checkpoint.check("model.w.bias", &[3]));
            }
        }
    }
}

/// A packed weight of 128 values with one part changed.
fn packed(change: impl Fn(&mut Params)) -> tempfile::TempDir {
    let weight = Tensor::from_f32(&[2, 64], (0..128).map(|i| (i as f32 - 60.0) / 64.0).collect()).unwrap();
    let nf4 = kernels::nf4::quantize(&weight, false).unwrap();
    let kernels::nf4::Magnitudes::Plain(magnitudes) = nf4.magnitudes().clone() else { unreachable!() };
    let state = br#"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [2, 64]}"#;
    let mut params = Params::new();
    params.insert("w.weight", Tensor::from_u8(&[64, 1], nf4.codes().to_vec()).unwrap());
    params.insert("w.weight.absmax", Tensor::from_f32(&[2], magnitudes).unwrap());
    params.insert("w.weight.quant_map", Tensor::from_f32(&[16], kernels::nf4::CODE.to_vec()).unwrap());
    params.insert("w.weight.quant_state.bitsandbytes__nf4", Tensor::from_u8(&[state.len()], state.to_vec()).unwrap());
    change(&mut params);
    folder(&[("model.safetensors", &weights::to_bytes(&params).unwrap())])
}

#[test]
fn packed_weights_are_read_and_odd_ones_refused() {
    let whole = packed(|_| {});
    let checkpoint = Checkpoint::open(whole.path()).unwrap();
    checkpoint.check("w.weight", &[2, 64]).unwrap();
    let stored = checkpoint.nf4("w.weight").unwrap().unwrap();
    assert_eq!((stored.rounding, stored.weight.shape()), (Rounding::Bf16, &[2, 64][..]));
    assert_eq!(checkpoint.form("w.weight").unwrap(), (Dtype::Bf16, vec![2, 64]));
    assert!(checkpoint.check("w.weight", &[64, 1]).unwrap_err().to_string().contains("[2, 64]"));

    let text = |text: &str| Tensor::from_u8(&[text.len()], text.as_bytes().to_vec()).unwrap();
    let state = "w.weight.quant_state.bitsandbytes__nf4";
    let said = |change: &dyn Fn(&mut Params)| {
        let folder = packed(change);
        Checkpoint::open(folder.path()).unwrap().nf4("w.weight").unwrap_err().to_string()
    };
    let with = |json: &str| said(&|params: &mut Params| params.insert(state, text(json)));
    assert!(
        with(r#"{"quant_type": "nf4", "blocksize": 128, "dtype": "float32", "shape": [2, 64]}"#)
            .contains("blocks of 128")
    );
    assert!(with(r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "int8", "shape": [2, 64]}"#).contains("type int8"));
    assert!(with("{").contains("quant_state"));
    assert!(with(r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [2, 65]}"#).contains("[65]"));
    let huge = r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [18446744073709551615, 64]}"#;
    assert!(with(huge).contains("no more than memory"));
    assert!(said(&|params| params.insert("w.weight.quant_map", Tensor::zeros(&[16]))).contains("quant_map"));
    assert!(said(&|params| drop(params.remove("w.weight.absmax"))).contains("w.weight.absmax"));
    let fp4 = packed(|params| params.insert("w.weight.quant_state.bitsandbytes__fp4", text("{}")));
    let said = Checkpoint::open(fp4.path()).unwrap().tensor("w.weight").unwrap_err().to_string();
    assert!(said.contains("FP4"), "{said}");
    let int8 = packed(|params| {
        params.remove(state).unwrap();
        params.insert("w.SCB", Tensor::zeros(&[2]));
    });
    let said = Checkpoint::open(int8.path()).unwrap().tensor("w.weight").unwrap_err().to_string();
    assert!(said.contains("eight bits"), "{said}");
}
