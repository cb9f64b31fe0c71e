#![allow(clippy::unwrap_used)]
use super::*;

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_f32(&[values.len()], values.to_vec()).unwrap()
}

fn sample() -> Params {
    let mut params = Params::new();
    params.insert("w", tensor(&[1.0, 2.0, 3.0]));
    params.insert("layer_norm.weight", tensor(&[1.0]));
    params.insert("bias", tensor(&[0.5, -0.5]));
    params
}

fn config() -> AdamWConfig {
    AdamWConfig {
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-9,
        weight_decay: 0.5,
        no_decay: vec!["bias".into(), "layer_norm".into()],
        max_grad_norm: Some(5.0),
    }
}

#[test]
fn names_are_sorted_and_flat_values_follow_them() {
    let mut params = sample();
    assert_eq!(params.iter().map(|(n, _)| n).collect::<Vec<_>>(), ["bias", "layer_norm.weight", "w"]);
    let flat = params.to_flat().unwrap();
    assert_eq!(flat, [0.5, -0.5, 1.0, 1.0, 2.0, 3.0]);
    params.fill_zero().unwrap();
    assert_ne!(params, sample());
    let bucket = sample().into_bucket().unwrap();
    assert_eq!(params.named(bucket.clone()).unwrap(), sample());
    assert!(Params::new().named(bucket).is_err());
    let (copy, mut own) = (sample().copied().unwrap(), sample());
    own.fill_zero().unwrap();
    assert_eq!(copy, sample());
}

#[test]
fn several_tensors_can_be_changed_together() {
    let mut params = sample();
    let [w, bias] = params.get_many_mut(["w", "bias"]).unwrap();
    std::mem::swap(w, bias);
    assert_eq!(params.get("w").unwrap().len(), 2);
    assert_eq!(params.get_many_mut(["w", "v"]).unwrap_err().to_string(), "tensor `v` is missing from the checkpoint");
    assert!(params.get_many_mut(["w", "w"]).is_err());
}

#[test]
fn a_checkpoint_of_another_shape_is_named() {
    let mut other = sample();
    other.insert("w", tensor(&[1.0]));
    let error = other.expect_like(&sample()).unwrap_err().to_string();
    assert!(error.contains("`w` has shape [1], expected [3]"), "{error}");
    let mut other = sample();
    other.insert("x", tensor(&[1.0]));
    assert!(matches!(other.expect_like(&sample()), Err(Error::UnknownTensor { name }) if name == "x"));
}

#[test]
fn decay_spares_biases_and_norms() {
    let (mut params, grads) = (sample(), sample().zeros_like().unwrap());
    let norm = AdamW::new(config()).step(&mut params, &grads).unwrap();
    assert_eq!(norm, 0.0);
    assert_eq!(params.get("bias").unwrap(), sample().get("bias").unwrap());
    assert_eq!(params.get("layer_norm.weight").unwrap(), sample().get("layer_norm.weight").unwrap());
    let w = params.get("w").unwrap().to_f32();
    assert!((w[0] - 0.95).abs() < 1e-6, "{w:?}");
}

#[test]
fn a_parameter_without_gradient_stays() {
    let mut params = sample();
    let mut grads = Params::new();
    grads.insert("bias", tensor(&[1.0, 1.0]));
    AdamW::new(config()).step(&mut params, &grads).unwrap();
    assert_eq!(params.get("w").unwrap(), sample().get("w").unwrap());
    assert_ne!(params.get("bias").unwrap(), sample().get("bias").unwrap());
}

#[test]
fn a_resumed_optimizer_goes_on_with_the_same_bits() {
    let (mut params, grads) = (sample(), sample());
    let mut optimizer = AdamW::new(config());
    for _ in 0..3 {
        optimizer.step(&mut params, &grads).unwrap();
    }
    let mut resumed_params = params.clone();
    let mut resumed = AdamW::load(config(), &optimizer.save().unwrap(), &params).unwrap();
    assert_eq!(resumed, optimizer);
    optimizer.step(&mut params, &grads).unwrap();
    resumed.step(&mut resumed_params, &grads).unwrap();
    assert_eq!(params, resumed_params);
    assert_eq!(resumed.steps(), 4);
}

#[test]
fn a_state_of_other_parameters_is_refused() {
    let (mut params, grads) = (sample(), sample());
    let mut optimizer = AdamW::new(config());
    optimizer.step(&mut params, &grads).unwrap();
    let bytes = optimizer.save().unwrap();
    params.insert("w", tensor(&[1.0]));
    assert!(matches!(AdamW::load(config(), &bytes, &params), Err(Error::TensorShape { name, .. }) if name == "m.w"));
    params.remove("w").unwrap();
    assert!(matches!(AdamW::load(config(), &bytes, &params), Err(Error::MissingTensor { name }) if name == "w"));
}
