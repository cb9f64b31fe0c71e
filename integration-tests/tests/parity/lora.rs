//! Low-rank updates against PEFT: logits, losses, gradients and three AdamW steps.
//!
//! The `after` tensors of `lora.safetensors` equal its `init`; `lora_steps` holds the parameters after the steps.

use std::path::Path;

use kernels::Tensor;
use model::{
    params::Params,
    ranker::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, Example, Quantize, Ranker, RankerOptions, Trainable},
};

use crate::{fixtures, golden, padded::Batch};

fn ranker(folder: &Path) -> Ranker {
    let config = golden::json(&folder.join("lora.json"));
    let base = folder.join(config["config"]["base"].as_str().unwrap());
    // The fixture's steps are not clipped.
    let options = RankerOptions {
        quantize: Quantize::None,
        trainable: Trainable::Nothing,
        max_grad_norm: None,
        ..RankerOptions::default()
    };
    let mut ranker = Ranker::load(&base, options, &golden::device()).unwrap();
    let adapter = folder.join("adapter");
    let text = std::fs::read_to_string(adapter.join(ADAPTER_CONFIG_FILE)).unwrap();
    ranker.load_adapter(&text, &std::fs::read(adapter.join(ADAPTER_WEIGHTS_FILE)).unwrap()).unwrap();
    ranker
}

fn recorded(folder: &Path) -> Params {
    golden::tensors(&folder.join("lora.safetensors"))
}

fn compare_logits(ranker: &Ranker, folder: &Path, ids: &str, mask: &str, logits: &str) {
    let recorded = recorded(folder);
    let batch = Batch::read(&folder.join("lora.safetensors"), ids, mask, 4);
    let wanted = batch.unpadded(recorded.get(logits).unwrap());
    for (ids, wanted) in batch.sequences().iter().zip(wanted) {
        golden::close(logits, &ranker.logits(ids).unwrap().to_f32(), &wanted, 1e-4, 0.0);
    }
}

#[test]
fn logits_with_without_and_merged_are_equal() {
    let Some(folder) = fixtures::folder("lora") else { return };
    let mut ranker = ranker(&folder);
    compare_logits(&ranker, &folder, "input_ids", "attention_mask", "logits");
    compare_logits(&ranker, &folder, "input_ids", "attention_mask", "logits_merged");
    compare_logits(&ranker, &folder, "ref_input_ids", "ref_attention_mask", "ref_logits");
    ranker.params_mut().fill_zero().unwrap();
    compare_logits(&ranker, &folder, "input_ids", "attention_mask", "logits_base");
}

#[test]
fn an_adapter_is_saved_as_it_was_read() {
    let Some(folder) = fixtures::folder("lora") else { return };
    let files = ranker(&folder).save("../llama/llama2", kernels::Dtype::F32).unwrap();
    let weights = |bytes: &[u8]| model::weights::from_bytes("adapter", bytes).unwrap();
    let theirs = std::fs::read(folder.join("adapter").join(ADAPTER_WEIGHTS_FILE)).unwrap();
    assert_eq!(weights(&files[1].bytes), weights(&theirs));
    let ours: serde_json::Value = serde_json::from_slice(&files[0].bytes).unwrap();
    let theirs = golden::json(&folder.join("adapter").join(ADAPTER_CONFIG_FILE));
    for (key, value) in ours.as_object().unwrap().iter().filter(|(key, _)| *key != "target_modules") {
        let same = &theirs[key] == value || theirs[key].as_f64().is_some_and(|t| Some(t) == value.as_f64());
        assert!(same, "{key}: {value} and {}", theirs[key]);
    }
}

#[test]
fn training_on_the_last_position_follows_peft() {
    let Some(folder) = fixtures::folder("lora") else { return };
    let path = folder.join("lora.safetensors");
    let batch = Batch::read(&path, "input_ids", "attention_mask", 4).sequences();
    let targets = golden::integers(&path, "target");
    let examples: Vec<Example> = batch
        .into_iter()
        .zip(targets)
        .map(|(ids, target)| Example { labels: vec![(ids.len() as u32 - 1, target as u32)], ids, key: 0 })
        .collect();
    follow(&folder, "last", &examples);
}

#[test]
fn training_on_label_and_end_follows_peft() {
    let Some(folder) = fixtures::folder("lora") else { return };
    let batch = Batch::read(&folder.join("lora.safetensors"), "ref_input_ids", "ref_attention_mask", 4);
    let examples: Vec<Example> = batch.sequences().iter().map(|ids| Example::from_text(ids, 2, 0).unwrap()).collect();
    follow(&folder, "ref", &examples);
}

/// The first gradient, three steps, the losses on the way.
fn follow(folder: &Path, tag: &str, examples: &[Example]) {
    let (mut ranker, recorded) = (ranker(folder), recorded(folder));
    let settings = golden::json(&folder.join("lora.json"));
    let losses: Vec<f64> = serde_json::from_value(settings["losses"][tag].clone()).unwrap();
    let learning_rate = settings["config"]["lr"].as_f64().unwrap() as f32;

    let (first, _) = ranker.gradients(examples, examples.len()).unwrap();
    for (name, gradient) in first.iter() {
        let wanted = recorded.get(&format!("{tag}.grad0.{}", short(name))).unwrap().to_f32();
        golden::close(name, &gradient.to_f32(), &wanted, 1e-5, 1e-4);
    }
    for wanted in &losses[..losses.len() - 1] {
        let report = ranker.train_step(examples, learning_rate).unwrap();
        assert!((report.loss - wanted).abs() < 1e-5, "{tag}: loss {} and {wanted}", report.loss);
    }
    assert!((ranker.loss(examples).unwrap() - losses[losses.len() - 1]).abs() < 1e-5);
    if let Some(after) = after_steps(&recorded, tag) {
        compare_params(&ranker, &recorded, &after, tag);
    }
}

/// The file that holds the parameters after the steps: the golden file itself if its `after` tensors have moved.
fn after_steps(recorded: &Params, tag: &str) -> Option<Params> {
    let moved = |(name, tensor): (&str, &Tensor)| {
        let place = name.strip_prefix("init.")?;
        Some(recorded.get(&format!("{tag}.after.{place}")).unwrap() != tensor)
    };
    if recorded.iter().filter_map(moved).any(|moved| moved) {
        return Some(recorded.clone());
    }
    Some(golden::tensors(&fixtures::folder("lora_steps")?.join("lora_steps.safetensors")))
}

/// The parameters after the steps. AdamW makes a full step of a gradient that is almost zero, whatever its sign: such
/// entries are left out.
fn compare_params(ranker: &Ranker, recorded: &Params, after: &Params, tag: &str) {
    for (name, param) in ranker.params().iter() {
        let wanted = after.get(&format!("{tag}.after.{}", short(name))).unwrap().to_f32();
        let gradient = recorded.get(&format!("{tag}.grad0.{}", short(name))).unwrap().to_f32();
        let compared = param.to_f32().into_iter().zip(&wanted).zip(&gradient).filter(|(_, g)| g.abs() >= 1e-7);
        for ((found, wanted), _) in compared {
            assert!((found - wanted).abs() < 2e-6, "{tag} {name}: {found} and {wanted}");
        }
    }
}

/// The fixture leaves out the wrapper's prefix and the last part of a name.
fn short(name: &str) -> &str {
    name.trim_start_matches("base_model.model.").trim_end_matches(".weight")
}
