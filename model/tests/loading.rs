//! What loading a checkpoint takes of the host's memory: never more than the ranker that comes of it and two of its layers.
//!
//! Alone in a program of its own, whose every allocation is counted.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use kernels::{Device, Dtype, Tensor};
use mllm4rec_model::params::Params;
use mllm4rec_model::ranker::{Dequantize, Footprint, Quantize, Ranker, RankerOptions, Trainable};
use mllm4rec_model::weights;

/// Bytes that are allocated, and the most that ever were.
struct Counting {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[global_allocator]
static COUNTING: Counting = Counting { now: AtomicUsize::new(0), most: AtomicUsize::new(0) };

impl Counting {
    fn add(&self, bytes: usize) {
        let now = self.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.most.fetch_max(now, Ordering::Relaxed);
    }

    /// What is allocated now; the most begins anew.
    fn begin(&self) -> usize {
        let now = self.now.load(Ordering::Relaxed);
        self.most.store(now, Ordering::Relaxed);
        now
    }
}

// SAFETY: everything is asked of the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        self.now.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

const HIDDEN: usize = 256;
const INNER: usize = 704;
const LAYERS: usize = 12;
const VOCABULARY: usize = 512;

/// A Llama in bfloat16, a file for every layer, as checkpoints of many gigabytes come.
fn write(folder: &Path) {
    let config = format!(
        r#"{{"model_type": "llama", "vocab_size": {VOCABULARY}, "hidden_size": {HIDDEN}, "intermediate_size": {INNER},
            "num_hidden_layers": {LAYERS}, "num_attention_heads": 4, "max_position_embeddings": 64, "eos_token_id": 2,
            "tie_word_embeddings": true}}"#
    );
    std::fs::write(folder.join("config.json"), config).unwrap();
    let mut places = serde_json::Map::new();
    for layer in 0..=LAYERS {
        let (file, mut params) = (format!("model-{layer}.safetensors"), Params::new());
        let mut add = |name: String, shape: &[usize]| {
            let values = (0..shape.iter().product::<usize>()).map(|i| (i % 251) as f32 / 1000.0 - 0.1).collect();
            params.insert(&*name, Tensor::from_f32(shape, values).unwrap().cast(Dtype::Bf16).unwrap());
            places.insert(name, serde_json::json!(file));
        };
        if layer == LAYERS {
            add("model.embed_tokens.weight".to_owned(), &[VOCABULARY, HIDDEN]);
            add("model.norm.weight".to_owned(), &[HIDDEN]);
        } else {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            add(name("input_layernorm"), &[HIDDEN]);
            add(name("post_attention_layernorm"), &[HIDDEN]);
            for projection in ["q_proj", "k_proj", "v_proj", "o_proj"] {
                add(name(&format!("self_attn.{projection}")), &[HIDDEN, HIDDEN]);
            }
            add(name("mlp.gate_proj"), &[INNER, HIDDEN]);
            add(name("mlp.up_proj"), &[INNER, HIDDEN]);
            add(name("mlp.down_proj"), &[HIDDEN, INNER]);
        }
        std::fs::write(folder.join(&file), weights::to_bytes(&params).unwrap()).unwrap();
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": places});
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn loading_takes_what_is_held_and_two_layers_at_most() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    let device = Device::cpu(2).unwrap();
    let weights_of_a_layer = 4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER;
    for quantize in [Quantize::Nf4, Quantize::None] {
        let dequantize = Dequantize::PerUse;
        let options = RankerOptions { quantize, dequantize, trainable: Trainable::Nothing, ..RankerOptions::default() };
        let before = COUNTING.begin();
        let ranker = device.run(|| Ranker::load(folder.path(), options.clone(), &device)).unwrap();
        let most = COUNTING.most.load(Ordering::Relaxed) - before;
        let held = Footprint::of(ranker.config(), &options).unwrap().weights as usize;
        let layers = (most as f64 - held as f64) / (4 * weights_of_a_layer) as f64;
        println!("{quantize:?}: {held} bytes to be held, {most} at most: {layers:.2} layers more");
        assert!((0.0..=2.0).contains(&layers), "{quantize:?}: {layers:.2} layers beside what is held");
        drop(ranker);
    }
}
