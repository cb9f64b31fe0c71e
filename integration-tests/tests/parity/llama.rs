//! Llama 2, Llama 3 and Qwen 2 against transformers: rotary frequencies, logits.

use kernels::rope;
use model::ranker::{LlamaConfig, Quantize, Ranker, RankerOptions, Trainable};

use crate::{fixtures, golden, padded::Batch};

const MODELS: [&str; 3] = ["llama2", "llama3", "qwen2"];

fn options() -> RankerOptions {
    RankerOptions { quantize: Quantize::None, trainable: Trainable::Nothing, ..RankerOptions::default() }
}

#[test]
fn rotary_frequencies_are_equal() {
    let Some(folder) = fixtures::folder("llama") else { return };
    for name in MODELS {
        let config = std::fs::read_to_string(folder.join(name).join("config.json")).unwrap();
        let config = LlamaConfig::from_json(&config).unwrap();
        let wanted = golden::tensors(&folder.join(name).join("io.safetensors"));
        let found = rope::inverse_frequencies(&config.rope());
        golden::close(name, &found, &wanted.get("inv_freq").unwrap().to_f32(), 0.0, 2e-6);
    }
}

#[test]
fn logits_are_equal_without_padding() {
    let Some(folder) = fixtures::folder("llama") else { return };
    for name in MODELS {
        let ranker = Ranker::load(&folder.join(name), options(), &golden::device()).unwrap();
        let io = folder.join(name).join("io.safetensors");
        let recorded = golden::tensors(&io);
        let batch = Batch::read(&io, "input_ids", "attention_mask", 4);
        for logits in ["logits", "logits_positions_from_mask"] {
            let wanted = batch.unpadded(recorded.get(logits).unwrap());
            for (ids, wanted) in batch.sequences().iter().zip(wanted) {
                let found = ranker.logits(ids).unwrap();
                golden::close(&format!("{name} {logits}"), &found.to_f32(), &wanted, 1e-4, 0.0);
            }
        }
        compare_scores(&ranker, &batch, &recorded.get("last_logits").unwrap().to_f32());
    }
}

/// What the ranker reads: some logits of the last position, all prompts packed together.
fn compare_scores(ranker: &Ranker, batch: &Batch, last: &[f32]) {
    let labels: Vec<u32> = (40..60).collect();
    let vocabulary = ranker.config().vocab_size;
    let scores = ranker.score(None, &batch.sequences(), &labels).unwrap();
    for (found, wanted) in scores.iter().zip(last.chunks(vocabulary)) {
        golden::close("scores", found, &wanted[40..60], 1e-4, 0.0);
    }
}

#[test]
fn the_older_form_of_a_configuration_gives_the_same_network() {
    let Some(folder) = fixtures::folder("llama") else { return };
    for name in MODELS {
        let text = std::fs::read_to_string(folder.join(name).join("config.json")).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let config = value.as_object_mut().unwrap();
        let mut rope = config.remove("rope_parameters").unwrap();
        let theta = rope.as_object_mut().unwrap().remove("rope_theta").unwrap();
        config.insert("rope_theta".to_owned(), theta);
        config.insert("rope_scaling".to_owned(), rope);
        let dtype = config.remove("dtype").unwrap();
        config.insert("torch_dtype".to_owned(), dtype);
        let older = LlamaConfig::from_json(&value.to_string()).unwrap();
        assert_eq!(older, LlamaConfig::from_json(&text).unwrap(), "{name}");
    }
}
