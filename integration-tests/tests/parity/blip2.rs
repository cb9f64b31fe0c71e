//! BLIP-2 against transformers: features of pictures, logits, generated tokens.

use std::path::Path;

use model::Precision;
use model::captioner::{BlipConfig, Captioner, Generation};
use model::checkpoint::Checkpoint;

use crate::{fixtures, golden};

/// The golden files hold token ids: nothing is decoded.
const TOKENIZER: &str = r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}}"#;

fn captioner(folder: &Path) -> Captioner {
    let model = folder.join("model");
    let config = BlipConfig::load(&model).unwrap();
    let tokenizer = tokenizers::Tokenizer::from_bytes(TOKENIZER).unwrap();
    let device = golden::device();
    Captioner::from_source(config, &Checkpoint::open(&model).unwrap(), tokenizer, Precision::F32, &device).unwrap()
}

#[test]
fn features_and_logits_are_equal() {
    let Some(folder) = fixtures::folder("blip2") else { return };
    let captioner = captioner(&folder);
    let io = golden::tensors(&folder.join("blip2_io.safetensors"));
    let pixels = io.get("pixel_values").unwrap();
    let features = captioner.features(pixels).unwrap();
    let wanted = |name: &str| io.get(name).unwrap().f32().unwrap();
    golden::close("image_embeds", &features.patches.to_f32(), wanted("image_embeds"), 2e-5, 1e-4);
    golden::close("qformer_output", &features.queries.to_f32(), wanted("qformer_output"), 2e-5, 1e-4);
    golden::close("language_model_inputs", &features.prefix.to_f32(), wanted("language_model_inputs"), 5e-5, 1e-4);
    let logits = captioner.first_logits(pixels).unwrap();
    golden::close("first_logits", &logits.to_f32(), wanted("first_logits"), 1e-4, 1e-4);
}

#[test]
fn generated_tokens_are_equal() {
    let Some(folder) = fixtures::folder("blip2") else { return };
    let captioner = captioner(&folder);
    let (path, about) = (folder.join("blip2_io.safetensors"), golden::json(&folder.join("blip2.json")));
    let io = golden::tensors(&path);
    let pixels = io.get("pixel_values").unwrap();
    let max_tokens = about["config"]["new_tokens"].as_u64().unwrap() as usize;
    let free = golden::integers(&path, "generated_no_eos");
    let pad = about["pad"].as_u64().unwrap() as u32;
    for (name, ends) in
        [("generated_no_eos", vec![]), ("generated_eos", vec![about["eos_case"].as_u64().unwrap() as u32])]
    {
        let wanted = golden::integers(&path, name);
        let width = wanted.len() / pixels.shape()[0];
        assert_eq!(free.len() / pixels.shape()[0], max_tokens);
        let found = captioner.generate(pixels, &Generation { max_tokens, ends: ends.clone() }).unwrap();
        for (found, wanted) in found.iter().zip(wanted.chunks(width)) {
            let wanted: Vec<u32> = wanted.iter().map(|&t| u32::try_from(t).unwrap()).collect();
            // The library keeps the token that ends a text, and fills up behind it.
            let end = wanted.iter().position(|t| ends.contains(t)).unwrap_or(width);
            assert!(wanted.iter().skip(end + 1).all(|&t| t == pad), "{name}");
            assert_eq!(*found, wanted[..end], "{name}");
        }
    }
}
