#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

/// The parts of the public `blip2-opt-2.7b` that its file does not leave to the library.
fn public() -> Value {
    json!({
        "model_type": "blip-2",
        "num_query_tokens": 32,
        "qformer_config": {"model_type": "blip_2_qformer"},
        "text_config": {"model_type": "opt", "activation_function": "relu", "hidden_size": 2560, "ffn_dim": 10240,
            "num_hidden_layers": 32, "num_attention_heads": 32, "word_embed_proj_dim": 2560, "eos_token_id": 50118},
        "use_decoder_only_language_model": true,
        "vision_config": {"model_type": "blip_2_vision_model"},
    })
}

fn refused(change: impl FnOnce(&mut Value)) -> String {
    let mut value = public();
    change(&mut value);
    BlipConfig::from_json(&value.to_string()).unwrap_err().to_string()
}

#[test]
fn what_a_file_leaves_out_is_the_librarys_default() {
    let config = BlipConfig::from_json(&public().to_string()).unwrap();
    assert_eq!((config.vision.rows(), config.vision.hidden_size, config.vision.layers), (257, 1408, 39));
    assert_eq!((config.qformer.hidden_size, config.qformer.layers, config.queries), (768, 12, 32));
    assert_eq!((config.decoder.vocab_size, config.decoder.layers, config.decoder.hidden_size), (50_272, 32, 2560));
    assert_eq!((config.begin, config.ends), (2, vec![50_118]));
    assert_eq!(config.decoder.eps, 1e-5);
}

#[test]
fn other_architectures_are_refused_by_name() {
    assert!(refused(|c| c["model_type"] = json!("blip")).contains("model_type is blip;"));
    let t5 = refused(|c| c["text_config"] = json!({"model_type": "t5", "eos_token_id": 1}));
    assert!(t5.contains("t5 decoder") && t5.contains("blip2-flan-t5") && t5.contains("blip2-opt-2.7b"), "{t5}");
    assert!(refused(|c| c["use_decoder_only_language_model"] = json!(false)).contains("encoder-decoder"));
    assert!(refused(|c| c["qformer_config"]["use_qformer_text_input"] = json!(true)).contains("InstructBLIP"));
    assert!(refused(|c| c["text_config"]["word_embed_proj_dim"] = json!(512)).contains("word_embed_proj_dim"));
    assert!(refused(|c| c["vision_config"]["hidden_act"] = json!("quick_gelu")).contains("hidden_act"));
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    assert!(refused(|c| c["vision_config"]["patch_size"] = json!(15)).contains("patch_size"));
    assert!(refused(|c| c["vision_config"]["patch_size"] = json!(0)).contains("patch_size"));
    assert!(refused(|c| c["text_config"]["num_attention_heads"] = json!(33)).contains("heads"));
    assert!(refused(|c| c["vision_config"]["hidden_size"] = json!(1024)).contains("another vision tower"));
    assert!(refused(|c| c["num_query_tokens"] = json!("many")).contains("config.json"));
    assert!(BlipConfig::from_json("{").is_err());
}

#[test]
fn the_generation_file_says_what_ends_a_caption() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), public().to_string()).unwrap();
    assert_eq!(BlipConfig::load(folder.path()).unwrap().ends, [50_118]);
    std::fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": [3, 4]}"#).unwrap();
    assert_eq!(BlipConfig::load(folder.path()).unwrap().ends, [3, 4]);
    std::fs::write(folder.path().join("generation_config.json"), "[]").unwrap();
    assert!(BlipConfig::load(folder.path()).unwrap_err().to_string().contains("generation_config.json"));
}
