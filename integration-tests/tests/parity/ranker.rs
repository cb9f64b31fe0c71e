//! Whole rankers against transformers, PEFT and bitsandbytes: every family, a base in four bits, clipping and schedule.
//!
//! Every folder of the topic `ranker` is a case; `make.py` there says what is in it and makes more.

use std::path::PathBuf;

use model::{
    params::Params,
    ranker::{
        ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, Dequantize, Example, Quantize, Ranker, RankerOptions, Schedule,
        Trainable,
    },
};
use serde::Deserialize;

use crate::{fixtures, golden, padded::Batch};

/// `case.json`.
#[derive(Deserialize)]
struct Settings {
    lr: f32,
    steps: u64,
    warmup: u64,
    total: u64,
    clip: Option<f64>,
    quantize: Option<bool>,
    rows: usize,
    losses: Vec<f64>,
    grad_norms: Vec<f64>,
    learning_rates: Vec<f64>,
}

struct Case {
    folder: PathBuf,
    settings: Settings,
    recorded: Params,
}

impl Case {
    fn all() -> Vec<Self> {
        let Some(topic) = fixtures::folder("ranker") else { return Vec::new() };
        let mut folders: Vec<PathBuf> = std::fs::read_dir(topic).unwrap().map(|entry| entry.unwrap().path()).collect();
        folders.retain(|folder| folder.join("case.json").exists());
        folders.sort();
        assert!(!folders.is_empty());
        folders.into_iter().map(Self::read).collect()
    }

    fn read(folder: PathBuf) -> Self {
        let settings = serde_json::from_value(golden::json(&folder.join("case.json"))).unwrap();
        let recorded = golden::tensors(&folder.join("io.safetensors"));
        Self { folder, settings, recorded }
    }

    fn name(&self) -> String {
        self.folder.file_name().unwrap().to_string_lossy().into_owned()
    }

    /// The base as the libraries computed with it: where they packed it, as they did. Their nearest code of a magnitude is at times
    /// a neighbour of ours.
    fn base(&self) -> &'static str {
        if self.folder.join("packed").is_dir() { "packed" } else { "model" }
    }

    fn options(&self) -> RankerOptions {
        let quantize = if self.settings.quantize == Some(true) { Quantize::Nf4 } else { Quantize::None };
        let max_grad_norm = self.settings.clip;
        RankerOptions {
            quantize,
            trainable: Trainable::Nothing,
            max_grad_norm,
            max_tokens: 64,
            ..RankerOptions::default()
        }
    }

    /// The ranker with the adapter of a folder, on the base of another.
    fn ranker(&self, base: &str, adapter: &str, options: RankerOptions) -> Ranker {
        let mut ranker = Ranker::load(&self.folder.join(base), options, &golden::device()).unwrap();
        let (config, weights) = self.adapter(adapter);
        ranker.load_adapter(&config, &weights).unwrap();
        ranker
    }

    fn adapter(&self, folder: &str) -> (String, Vec<u8>) {
        let file = |name: &str| self.folder.join(folder).join(name);
        (
            std::fs::read_to_string(file(ADAPTER_CONFIG_FILE)).unwrap(),
            std::fs::read(file(ADAPTER_WEIGHTS_FILE)).unwrap(),
        )
    }

    fn batch(&self) -> Batch {
        Batch::read(&self.folder.join("io.safetensors"), "input_ids", "attention_mask", self.settings.rows)
    }

    /// Label and end of every row.
    fn examples(&self) -> Vec<Example> {
        self.batch().sequences().iter().map(|ids| Example::from_text(ids, 2, 0).unwrap()).collect()
    }

    fn compare_logits(&self, ranker: &Ranker, recorded: &str) {
        self.compare_logits_within(ranker, recorded, 2e-4);
    }

    fn compare_logits_within(&self, ranker: &Ranker, recorded: &str, absolute: f32) {
        let batch = self.batch();
        let wanted = batch.unpadded(self.recorded.get(recorded).unwrap());
        for (ids, wanted) in batch.sequences().iter().zip(wanted) {
            let what = format!("{} {recorded}", self.name());
            golden::close(&what, &ranker.logits(ids).unwrap().to_f32(), &wanted, absolute, 2e-5);
        }
    }
}

#[test]
fn logits_with_and_without_adapter_are_those_of_transformers_and_peft() {
    for case in Case::all() {
        let mut ranker = case.ranker(case.base(), "adapter", case.options());
        case.compare_logits(&ranker, "logits");
        if case.recorded.contains("logits_merged") {
            case.compare_logits(&case.ranker(case.base(), "trained", case.options()), "logits_merged");
        }
        ranker.params_mut().fill_zero().unwrap();
        case.compare_logits(&ranker, "logits_base");
    }
}

/// Packed prompts behind a shared beginning, and only the letters' rows of the head: what scoring does.
#[test]
fn scores_are_the_last_logits_of_transformers() {
    for case in Case::all() {
        let ranker = case.ranker(case.base(), "adapter", case.options());
        let (batch, labels) = (case.batch(), [7, 40, 3, 99]);
        let wanted = batch.unpadded(case.recorded.get("logits").unwrap());
        let width = ranker.config().vocab_size;
        let shared = ranker.share(&batch.sequences()[0][..2]).unwrap();
        for scores in [None, Some(&shared)].map(|shared| ranker.score(shared, &batch.sequences(), &labels).unwrap()) {
            for (found, wanted) in scores.iter().zip(&wanted) {
                let last = &wanted[wanted.len() - width..];
                golden::close(&case.name(), found, &labels.map(|token| last[token as usize]), 2e-4, 2e-5);
            }
        }
    }
}

#[test]
fn gradients_of_every_factor_and_the_steps_behind_them_are_those_of_peft() {
    for case in Case::all() {
        let mut ranker = case.ranker(case.base(), "adapter", case.options());
        let (examples, settings, name) = (case.examples(), &case.settings, case.name());
        let (first, _) = ranker.gradients(&examples, examples.len()).unwrap();
        for (parameter, gradient) in first.iter() {
            let wanted = case.recorded.get(&format!("grad.{parameter}")).unwrap().to_f32();
            golden::close(&format!("{name} {parameter}"), &gradient.to_f32(), &wanted, 2e-6, 2e-4);
        }
        let schedule =
            Schedule { learning_rate: settings.lr, warmup_steps: settings.warmup, total_steps: settings.total };
        for step in 0..settings.steps {
            let rate = schedule.at(step);
            let wanted = settings.learning_rates[step as usize];
            assert!((f64::from(rate) - wanted).abs() <= 1e-6 * wanted, "{name}: rate {rate} and {wanted}");
            let report = ranker.train_step(&examples, rate).unwrap();
            let (loss, norm) = (settings.losses[step as usize], settings.grad_norms[step as usize]);
            assert!((report.loss - loss).abs() < 2e-5, "{name} step {step}: loss {} and {loss}", report.loss);
            assert!((report.grad_norm - norm).abs() < 1e-4 * norm, "{name}: norm {} and {norm}", report.grad_norm);
        }
        let last = settings.losses[settings.losses.len() - 1];
        assert!((ranker.loss(&examples).unwrap() - last).abs() < 2e-5, "{name}");
        compare_trained(&case, &ranker, &first);
    }
}

/// AdamW makes a full step of a gradient that is almost zero, whatever its sign: such entries are left out.
fn compare_trained(case: &Case, ranker: &Ranker, first: &Params) {
    let (_, trained) = case.adapter("trained");
    let trained = model::weights::from_bytes_f32("adapter", &trained).unwrap();
    let tolerance = 2e-3 * case.settings.lr * case.settings.steps as f32;
    let mut compared = 0;
    for (name, parameter) in ranker.params().iter() {
        let (found, wanted) = (parameter.to_f32(), trained.get(name).unwrap().to_f32());
        for ((found, wanted), gradient) in found.iter().zip(&wanted).zip(first.get(name).unwrap().to_f32()) {
            if gradient.abs() >= 1e-5 {
                compared += 1;
                assert!((found - wanted).abs() <= tolerance, "{} {name}: {found} and {wanted}", case.name());
            }
        }
    }
    assert!(compared * 10 >= ranker.params().elements() * 9, "{}: {compared} entries were compared", case.name());
}

#[test]
fn a_base_that_bitsandbytes_has_packed_is_nearly_the_one_that_we_pack() {
    let mut found = 0;
    for case in Case::all().into_iter().filter(|case| case.base() == "packed") {
        found += 1;
        for dequantize in [Dequantize::Once, Dequantize::PerUse] {
            let options = RankerOptions { dequantize, ..case.options() };
            Ranker::check(&case.folder.join("packed"), &options).unwrap();
            case.compare_logits(&case.ranker("packed", "adapter", options.clone()), "logits");
            // Magnitudes of ours are a code away here and there, which is less than a hundredth of them.
            case.compare_logits_within(&case.ranker("model", "adapter", options), "logits", 5e-2);
        }
        // Whoever wants it dense gets what the codes stand for.
        let dense = RankerOptions { quantize: Quantize::None, ..case.options() };
        case.compare_logits(&case.ranker("packed", "adapter", dense), "logits");
    }
    assert!(found > 0 || fixtures::folder("ranker").is_none());
}

#[test]
fn an_adapter_of_peft_comes_out_as_it_went_in() {
    for case in Case::all() {
        let ranker = case.ranker(case.base(), "adapter", case.options());
        let files = ranker.save("../model", kernels::Dtype::F32).unwrap();
        let (config, weights) = case.adapter("adapter");
        let read = |bytes: &[u8]| model::weights::from_bytes_f32("adapter", bytes).unwrap();
        assert_eq!(read(&files[1].bytes), read(&weights), "{}", case.name());
        let values = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
        let (ours, theirs) = (values(&files[0].bytes), values(config.as_bytes()));
        for key in
            ["peft_type", "task_type", "bias", "base_model_name_or_path", "fan_in_fan_out", "use_dora", "use_rslora"]
        {
            assert_eq!(ours[key], theirs[key], "{} {key}", case.name());
        }
        assert_eq!(ours["r"].as_f64(), theirs["r"].as_f64());
        assert_eq!(ours["lora_alpha"].as_f64(), theirs["lora_alpha"].as_f64());
    }
}

#[test]
fn adapters_of_another_base_are_refused() {
    let cases = Case::all();
    let named = |name: &str| cases.iter().find(|case| case.name() == name);
    for (base, adapter) in [("llama3", "nf4"), ("nf4", "qwen2")] {
        let (Some(base), Some(adapter)) = (named(base), named(adapter)) else { continue };
        let mut ranker = Ranker::load(&base.folder.join("model"), base.options(), &golden::device()).unwrap();
        let (config, weights) = adapter.adapter("adapter");
        let error = ranker.load_adapter(&config, &weights).unwrap_err().to_string();
        assert!(error.contains("the adapter does not fit") && error.contains("lora_"), "{error}");
    }
}
