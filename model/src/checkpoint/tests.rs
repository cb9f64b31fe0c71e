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
