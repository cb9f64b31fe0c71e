#![allow(clippy::unwrap_used)]

mod fp8;
mod precision;

use std::collections::BTreeSet;

use kernels::{Device, Tensor};

use super::*;
use crate::Precision;

fn config_json(tied: bool) -> String {
    format!(
        r#"{{"model_type": "qwen2", "vocab_size": 23, "hidden_size": 12, "intermediate_size": 20,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
            "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": {tied},
            "rope_theta": 100.0, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2}}"#
    )
}

fn noise(seed: u64, n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| (lora::mix(lora::mix(seed) ^ i) >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// Random weights of the whole network.
fn base(tied: bool) -> Params {
    let mut params = Params::new();
    let mut add = |name: String, shape: &[usize]| {
        let seed = params.len() as u64 + 1;
        let values = noise(seed, shape.iter().product());
        let gain = name.contains("norm");
        let values = values.into_iter().map(|v| if gain { 1.0 + 0.2 * v } else { 0.5 * v }).collect();
        params.insert(name, Tensor::from_f32(shape, values).unwrap());
    };
    add("model.embed_tokens.weight".into(), &[23, 12]);
    add("model.norm.weight".into(), &[12]);
    if !tied {
        add("lm_head.weight".into(), &[23, 12]);
    }
    for i in 0..2 {
        let name = |part: &str| format!("model.layers.{i}.{part}");
        add(name("input_layernorm.weight"), &[12]);
        add(name("post_attention_layernorm.weight"), &[12]);
        for (projection, rows) in [("q_proj", 16), ("k_proj", 8), ("v_proj", 8)] {
            add(name(&format!("self_attn.{projection}.weight")), &[rows, 12]);
            add(name(&format!("self_attn.{projection}.bias")), &[rows]);
        }
        add(name("self_attn.o_proj.weight"), &[12, 16]);
        add(name("mlp.gate_proj.weight"), &[20, 12]);
        add(name("mlp.up_proj.weight"), &[20, 12]);
        add(name("mlp.down_proj.weight"), &[12, 20]);
    }
    params
}

fn lora(dropout: f32) -> Trainable {
    let targets: BTreeSet<Projection> = Projection::ALL.into_iter().collect();
    Trainable::Lora(LoraOptions { rank: 3, alpha: 6.0, dropout, targets })
}

fn ranker(tied: bool, quantize: Quantize, trainable: Trainable) -> Ranker {
    ranker_on(&Device::cpu(1).unwrap(), tied, quantize, trainable)
}

fn ranker_on(device: &Device, tied: bool, quantize: Quantize, trainable: Trainable) -> Ranker {
    let dequantize = Dequantize::PerUse;
    ranker_with(device, tied, RankerOptions { quantize, dequantize, trainable, ..RankerOptions::default() })
}

fn ranker_with(device: &Device, tied: bool, options: RankerOptions) -> Ranker {
    let options = RankerOptions { micro_batch_tokens: 12, ..options };
    let mut ranker = Ranker::from_source(&config_json(tied), &base(tied), options, device).unwrap();
    // Updates begin at zero, which would hide half of their gradients.
    for (i, (name, tensor)) in ranker.params_mut().iter_mut().enumerate() {
        if name.contains("lora_B") {
            let values = noise(100 + i as u64, tensor.len());
            let values = values.iter().map(|v| 0.3 * v).collect();
            *tensor = Tensor::from_f32(tensor.shape(), values).unwrap().beside(tensor).unwrap();
        }
    }
    ranker
}

fn examples() -> Vec<Example> {
    [&[1u32, 5, 9, 20, 7, 2][..], &[1, 6, 11, 8, 8, 13, 4, 3, 2], &[1, 12, 2]]
        .iter()
        .zip(10..)
        .map(|(ids, key)| Example::from_text(ids, 2, key).unwrap())
        .collect()
}

/// Compares gradients with central differences, some coordinates of every parameter.
fn check_gradients(mut ranker: Ranker, loss: impl Fn(&Ranker) -> f64) {
    let (grads, reported) = ranker.gradients(&examples(), 3).unwrap();
    assert!((reported - loss(&ranker)).abs() < 1e-6);
    let names: Vec<String> = ranker.params().iter().map(|(n, _)| n.to_owned()).collect();
    for name in names {
        let gradient = grads.get(&name).unwrap().f32().unwrap().to_vec();
        for i in (0..gradient.len()).step_by((gradient.len() / 5).max(1)) {
            let mut moved = |by: f32| {
                let values = ranker.params_mut().get_mut(&name).unwrap().f32_mut().unwrap();
                let kept = values[i];
                values[i] = kept + by;
                let result = loss(&ranker);
                ranker.params_mut().get_mut(&name).unwrap().f32_mut().unwrap()[i] = kept;
                result
            };
            let numeric = (moved(2e-3) - moved(-2e-3)) / 4e-3;
            let found = f64::from(gradient[i]);
            assert!((found - numeric).abs() < 2e-3 * numeric.abs().max(0.2), "{name}[{i}]: {found}, not {numeric}");
        }
    }
}

#[test]
fn full_gradients_agree_with_finite_differences() {
    for tied in [true, false] {
        check_gradients(ranker(tied, Quantize::None, Trainable::Full), |r| r.loss(&examples()).unwrap());
    }
}

#[test]
fn low_rank_gradients_agree_with_finite_differences() {
    for quantize in [Quantize::None, Quantize::Nf4] {
        check_gradients(ranker(false, quantize, lora(0.0)), |r| r.loss(&examples()).unwrap());
    }
}

#[test]
fn gradients_with_dropout_agree_with_finite_differences_under_the_same_masks() {
    let loss = |r: &Ranker| r.gradients(&examples(), 3).unwrap().1;
    check_gradients(ranker(true, Quantize::None, lora(0.3)), loss);
}

#[test]
fn decoding_once_and_at_every_use_gives_the_same_bits_on_a_processor() {
    for precision in [Precision::F32, Precision::Bf16] {
        let with = |dequantize| {
            let options = RankerOptions { dequantize, precision, trainable: lora(0.2), ..RankerOptions::default() };
            let ranker = ranker_with(&Device::cpu(1).unwrap(), false, options);
            let (grads, loss) = ranker.gradients(&examples(), 3).unwrap();
            (ranker.logits(&[1, 5, 7, 9]).unwrap(), grads.to_flat().unwrap(), loss, ranker.fingerprint().unwrap())
        };
        assert!(with(Dequantize::Once) == with(Dequantize::PerUse), "{precision:?}");
    }
    let of = |precision| {
        let options = RankerOptions { precision, trainable: lora(0.0), ..RankerOptions::default() };
        ranker_with(&Device::cpu(1).unwrap(), false, options).fingerprint().unwrap()
    };
    assert_ne!(of(Precision::F32), of(Precision::Bf16), "members of a gang multiply the same floats");
}

#[test]
fn a_prompt_scores_the_same_bits_in_any_company_and_on_any_number_of_threads() {
    let ranker = ranker(true, Quantize::Nf4, lora(0.0));
    let prompts = vec![vec![1, 4, 5], vec![1, 9, 3, 2, 7, 7, 20, 11, 6, 5], vec![1], vec![1, 8, 8, 8, 8, 4]];
    let together = Device::cpu(1).unwrap().run(|| ranker.score(None, &prompts, &[3, 9, 14]).unwrap());
    for (prompt, scores) in prompts.iter().zip(&together) {
        let alone =
            Device::cpu(3).unwrap().run(|| ranker.score(None, std::slice::from_ref(prompt), &[3, 9, 14]).unwrap());
        assert_eq!(&alone[0], scores);
        let logits = ranker.logits(prompt).unwrap();
        let last = &logits.f32().unwrap()[(prompt.len() - 1) * 23..];
        assert!([3, 9, 14].iter().zip(scores).all(|(&t, s)| (last[t] - s).abs() < 1e-5));
    }
}

#[test]
fn prompts_score_the_same_bits_behind_a_shared_beginning() {
    let ranker = ranker(true, Quantize::Nf4, lora(0.0));
    let prompts =
        vec![vec![1, 4, 5, 9, 3], vec![1, 4, 5, 2, 7, 7, 20, 11, 6, 5], vec![1, 4, 5], vec![1, 8, 8], vec![1, 4, 5, 6]];
    let whole = ranker.score(None, &prompts, &[3, 9, 14]).unwrap();
    let shared = ranker.share(&[1, 4, 5]).unwrap();
    assert_eq!((shared.tokens(), shared.bytes()), (3, 2 * 2 * 3 * 8 * 4));
    assert_eq!(ranker.score(Some(&shared), &prompts, &[3, 9, 14]).unwrap(), whole);
}

#[test]
fn what_is_computed_again_gives_the_same_bits() {
    for trainable in [lora(0.2), Trainable::Full] {
        let gradient = |activation_bytes| {
            let mut ranker = ranker(true, Quantize::None, trainable.clone());
            ranker.room = Room::new(12, activation_bytes);
            let (grads, loss) = ranker.gradients(&examples(), 3).unwrap();
            (loss, grads.to_flat().unwrap())
        };
        let kept = gradient(usize::MAX);
        // From everything to nothing but inputs, and whatever lies between.
        for activation_bytes in [0, 2_000, 4_000, 6_000, 8_000] {
            assert_eq!(gradient(activation_bytes), kept, "{activation_bytes}");
        }
    }
}

#[test]
fn micro_batches_do_not_change_the_gradient() {
    let gradient = |micro_batch_tokens| {
        let mut ranker = ranker(true, Quantize::None, lora(0.2));
        ranker.room = Room::new(micro_batch_tokens, usize::MAX);
        let (grads, loss) = ranker.gradients(&examples(), 3).unwrap();
        (loss, grads.to_flat().unwrap())
    };
    let ((one, a), (many, b)) = (gradient(1000), gradient(1));
    assert!((one - many).abs() < 1e-9);
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn training_lowers_the_loss_and_going_on_from_a_state_gives_the_same_bits() {
    let mut ranker = ranker(true, Quantize::Nf4, lora(0.1));
    let first = ranker.train_step(&examples(), 1e-2).unwrap();
    for _ in 0..4 {
        ranker.train_step(&examples(), 1e-2).unwrap();
    }
    let state = ranker.save_state().unwrap();
    let mut other = super::tests::ranker(true, Quantize::Nf4, lora(0.1));
    other.load_state(&state).unwrap();
    let (a, b) = (ranker.train_step(&examples(), 1e-2).unwrap(), other.train_step(&examples(), 1e-2).unwrap());
    assert_eq!((a, ranker.steps()), (b, other.steps()));
    assert_eq!(ranker.params(), other.params());
    assert!(a.loss < first.loss - 0.2, "{} then {}", first.loss, a.loss);
}

#[test]
fn adapters_and_whole_models_survive_a_round_trip() {
    let mut trained = ranker(false, Quantize::None, lora(0.0));
    trained.train_step(&examples(), 1e-2).unwrap();
    let files = trained.save("base", Dtype::F32).unwrap();
    let mut fresh = ranker(false, Quantize::None, Trainable::Nothing);
    fresh.load_adapter(std::str::from_utf8(&files[0].bytes).unwrap(), &files[1].bytes).unwrap();
    assert_eq!(fresh.logits(&[1, 2, 3]).unwrap(), trained.logits(&[1, 2, 3]).unwrap());
    assert!(fresh.params().contains("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"));

    let mut trained = ranker(false, Quantize::None, Trainable::Full);
    trained.train_step(&examples(), 1e-2).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for file in trained.save("", Dtype::F32).unwrap() {
        std::fs::write(folder.path().join(file.name), file.bytes).unwrap();
    }
    let options = RankerOptions { quantize: Quantize::None, trainable: Trainable::Nothing, ..RankerOptions::default() };
    let loaded = Ranker::load(folder.path(), options, &Device::cpu(1).unwrap()).unwrap();
    assert_eq!(loaded.logits(&[1, 2, 3]).unwrap(), trained.logits(&[1, 2, 3]).unwrap());
    assert!(loaded.save("", Dtype::F32).unwrap_err().to_string().contains("nothing was trained"));
}

#[test]
fn what_does_not_fit_is_named() {
    let load = |json: &str, params: &Params, options: RankerOptions| {
        Ranker::from_source(json, params, options, &Device::cpu(1).unwrap()).unwrap_err().to_string()
    };
    let mut wrong = base(true);
    wrong.insert("model.layers.1.mlp.up_proj.weight", Tensor::zeros(&[20, 13]));
    let error = load(&config_json(true), &wrong, RankerOptions::default());
    assert!(error.contains("`model.layers.1.mlp.up_proj.weight` has shape [20, 13], expected [20, 12]"), "{error}");
    let error = load(&config_json(false), &base(true), RankerOptions::default());
    assert!(error.contains("`lm_head.weight` is missing"), "{error}");
    let full = RankerOptions { trainable: Trainable::Full, ..RankerOptions::default() };
    assert!(load(&config_json(true), &base(true), full).contains("ranker.quantize"));

    let ranker = ranker(true, Quantize::None, Trainable::Nothing);
    let error = ranker.score(None, &[vec![1; 65]], &[3]).unwrap_err().to_string();
    assert!(error.contains("65 tokens") && error.contains("1 to 64"), "{error}");
    assert!(ranker.score(None, &[vec![1, 23]], &[3]).is_err());
}

#[test]
fn a_device_trains_and_scores_like_the_host() {
    let device = Device::under_test().unwrap();
    let cases = [(true, Quantize::None, Trainable::Full), (false, Quantize::Nf4, lora(0.2))];
    for (tied, quantize, trainable) in cases {
        let mut host = ranker(tied, quantize, trainable.clone());
        let mut other = ranker_on(&device, tied, quantize, trainable);
        let prompts = [vec![1, 5, 9, 20], vec![1, 6, 11]];
        let [wanted, found] = [&host, &other].map(|r| r.score(None, &prompts, &[3, 9, 14]).unwrap().concat());
        assert!(found.iter().zip(&wanted).all(|(f, w)| (f - w).abs() < 1e-4), "{found:?} and {wanted:?}");
        for _ in 0..2 {
            let wanted = host.train_step(&examples(), 1e-3).unwrap();
            let found = other.train_step(&examples(), 1e-3).unwrap();
            assert!((found.loss - wanted.loss).abs() < 1e-4, "{found:?} and {wanted:?}");
            assert!((found.grad_norm - wanted.grad_norm).abs() < 1e-3 * wanted.grad_norm, "{found:?} and {wanted:?}");
        }
        other.load_state(&other.save_state().unwrap()).unwrap();
        let ([wanted, found], tolerance) = ([&host, &other].map(|r| r.loss(&examples()).unwrap()), 1e-3);
        assert!((found - wanted).abs() < tolerance, "{found} and {wanted}");
    }
}

/// Between one that keeps everything and one that has to be found out to be full.
#[test]
fn a_ranker_keeps_what_its_device_has_free_memory_for() {
    let options = || RankerOptions {
        quantize: Quantize::None,
        trainable: lora(0.0),
        micro_batch_tokens: 64,
        ..Default::default()
    };
    // So many tokens that what operations take for the least of work is little beside them.
    let examples = || (0..5).flat_map(|_| examples()).collect::<Vec<_>>();
    let gradients = |ranker: &Ranker| ranker.gradients(&examples(), 15).unwrap().0.to_flat().unwrap();
    let device = Device::emulated().unwrap();
    let wanted = gradients(&Ranker::from_source(&config_json(false), &base(false), options(), &device).unwrap());
    let c = LlamaConfig::from_json(&config_json(false)).unwrap();
    let mut seen = BTreeSet::new();
    for kib in (104..=168).step_by(8) {
        let device = Device::emulated_with(kib << 10).unwrap();
        let ranker = Ranker::from_source(&config_json(false), &base(false), options(), &device).unwrap();
        let budget = ranker.room.activation_bytes();
        seen.insert(recompute::choose(&c, Precision::F32, 64, budget)[0]);
        assert_eq!(gradients(&ranker), wanted, "{kib} KiB");
        assert_eq!(ranker.room.activation_bytes(), budget, "{kib} KiB were less than was thought");
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

/// From a device with plenty of room to one that cannot hold a single example, and everything between.
#[test]
fn a_device_without_room_computes_less_at_a_time_or_says_so() {
    let host = ranker(false, Quantize::None, lora(0.0));
    let wanted = host.gradients(&examples(), 3).unwrap();
    let (mut shrunk, mut refused) = (0, 0);
    for kib in (20..160).step_by(4) {
        let device = Device::emulated_with(kib << 10).unwrap();
        let options = RankerOptions {
            quantize: Quantize::None,
            trainable: lora(0.0),
            micro_batch_tokens: 64,
            ..RankerOptions::default()
        };
        let Ok(mut ranker) = Ranker::from_source(&config_json(false), &base(false), options, &device) else { continue };
        let Ok(params) = host.params().beside(ranker.params()) else { continue };
        *ranker.params_mut() = params;
        match ranker.gradients(&examples(), 3) {
            Ok((grads, loss)) => {
                shrunk += usize::from(ranker.micro_batch_tokens() < 64);
                assert!((loss - wanted.1).abs() < 1e-5, "{kib} KiB");
                let pairs = grads.to_flat().unwrap().into_iter().zip(wanted.0.to_flat().unwrap());
                assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4), "{kib} KiB");
            }
            Err(e) => {
                refused += 1;
                assert!(e.to_string().contains("cannot hold"), "{e}");
            }
        }
    }
    assert!(shrunk > 0 && refused > 0, "{shrunk} shrunk, {refused} refused");
}
