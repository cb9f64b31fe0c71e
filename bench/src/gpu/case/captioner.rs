//! Networks of the captioner, as their configurations say them.

use serde_json::{Value, json};

/// The sizes of a transformer: features, features inside of a layer, layers, heads.
type Sizes = [usize; 4];

/// A `config.json` as transformers writes it.
fn captioner(queries: usize, picture: [usize; 2], vision: Sizes, qformer: Sizes, decoder: Sizes) -> Value {
    let part = |[hidden, inner, layers, heads]: Sizes| json!({"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads});
    let [mut vision_config, mut qformer_config, mut text_config] = [part(vision), part(qformer), part(decoder)];
    vision_config["image_size"] = picture[0].into();
    vision_config["patch_size"] = picture[1].into();
    qformer_config["encoder_hidden_size"] = vision[0].into();
    text_config["ffn_dim"] = text_config["intermediate_size"].take();
    text_config["word_embed_proj_dim"] = decoder[0].into();
    text_config["vocab_size"] = 50_304.into();
    for (name, value) in [("bos_token_id", 2), ("eos_token_id", 50_118), ("pad_token_id", 1)] {
        text_config[name] = value.into();
    }
    text_config["model_type"] = "opt".into();
    json!({
        "model_type": "blip-2", "num_query_tokens": queries, "image_token_index": 50_265,
        "vision_config": vision_config, "qformer_config": qformer_config, "text_config": text_config,
    })
}

/// `Salesforce/blip2-opt-2.7b`.
pub(super) fn blip2_opt() -> Value {
    captioner(32, [224, 14], [1408, 6144, 39, 16], [768, 3072, 12, 12], [2560, 10240, 32, 32])
}

/// About 100 million weights.
pub(super) fn small() -> Value {
    captioner(32, [224, 14], [512, 2048, 8, 8], [512, 2048, 4, 8], [768, 3072, 6, 12])
}

pub(super) fn tiny() -> Value {
    let mut config = captioner(4, [16, 8], [32, 64, 1, 2], [32, 64, 2, 2], [32, 64, 1, 2]);
    for (name, value) in [("vocab_size", 70), ("eos_token_id", 69), ("max_position_embeddings", 64)] {
        config["text_config"][name] = value.into();
    }
    config["image_token_index"] = 68.into();
    config
}
