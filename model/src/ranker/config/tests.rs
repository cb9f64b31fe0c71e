#![allow(clippy::unwrap_used)]

use super::*;

fn json(extra: &str) -> String {
    format!(
        r#"{{"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
            "num_hidden_layers": 32, "num_attention_heads": 32, "rms_norm_eps": 1e-5, "hidden_act": "silu",
            "max_position_embeddings": 4096, "bos_token_id": 1, "eos_token_id": 2 {extra}}}"#
    )
}

#[test]
fn the_older_form_and_the_newest_say_the_same() {
    let scaling = r#""factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3""#;
    let old = json(&format!(r#", "torch_dtype": "bfloat16", "rope_theta": 500000.0, "rope_scaling": {{{scaling}}}"#));
    let new = json(&format!(r#", "dtype": "bfloat16", "rope_parameters": {{"rope_theta": 500000.0, {scaling}}}"#));
    let old = LlamaConfig::from_json(&old).unwrap();
    assert_eq!(old, LlamaConfig::from_json(&new).unwrap());
    assert_eq!(old.rope_theta, 500_000.0);
    assert!(matches!(old.rope_scaling, rope::Scaling::Llama3 { factor: 8.0, .. }));
}

#[test]
fn llama_2_has_the_plain_defaults() {
    let config = LlamaConfig::from_json(&json(r#", "rope_scaling": null"#)).unwrap();
    assert_eq!((config.kv_heads, config.head_dim, config.rope_theta), (32, 128, 10_000.0));
    assert_eq!(config.rope_scaling, rope::Scaling::None);
    assert!(!config.qkv_bias && !config.tied_embeddings);
}

#[test]
fn qwen2_has_biases_and_mistral_a_window() {
    let qwen = json(r#", "sliding_window": 32768, "use_sliding_window": false"#).replace("llama", "qwen2");
    let qwen = LlamaConfig::from_json(&qwen).unwrap();
    assert!(qwen.qkv_bias && !qwen.out_bias);
    assert_eq!(qwen.longest_sequence(), 4096);
    let mistral = json(r#", "sliding_window": 1024"#).replace("llama", "mistral");
    assert_eq!(LlamaConfig::from_json(&mistral).unwrap().longest_sequence(), 1024);
}

#[test]
fn several_end_tokens_are_read() {
    let config = LlamaConfig::from_json(&json("").replace("\"eos_token_id\": 2", "\"eos_token_id\": [5, 6]")).unwrap();
    assert_eq!(config.eos_tokens, [5, 6]);
}

#[test]
fn unknown_kinds_are_refused_by_name() {
    let error = |text: &str| LlamaConfig::from_json(text).unwrap_err().to_string();
    assert!(error(&json("").replace("llama", "gpt2")).contains("`gpt2` is not supported; supported are llama"));
    assert!(error(&json("").replace("silu", "gelu")).contains("`gelu`"));
    assert!(error(&json(r#", "rope_scaling": {"type": "yarn", "factor": 4.0}"#)).contains("`yarn`"));
    assert!(error(&json(r#", "rope_scaling": {"type": "linear"}"#)).contains("`factor`"));
    assert!(error(&json(r#", "num_key_value_heads": 5"#)).contains("32 heads of 128 features over 5"));
}

#[test]
fn packings_are_told_apart() {
    let read = |quantization: &str| {
        let json = format!(
            r#"{{"model_type": "llama", "vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
                "num_attention_heads": 2, "quantization_config": {quantization}}}"#
        );
        LlamaConfig::from_json(&json).map(drop).map_err(|e| e.to_string())
    };
    read(r#"{"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}"#).unwrap();
    read("null").unwrap();
    for (config, named) in [
        (r#"{"quant_method": "gptq", "bits": 4}"#, "gptq"),
        (r#"{"quant_method": "awq"}"#, "awq"),
        (r#"{"quant_method": "bitsandbytes", "load_in_8bit": true}"#, "eight bits"),
        (r#"{"load_in_4bit": true, "bnb_4bit_quant_type": "fp4"}"#, "FP4"),
    ] {
        let said = read(config).unwrap_err();
        assert!(said.contains(named) && said.contains("ranker.quantize"), "{said}");
    }
}
