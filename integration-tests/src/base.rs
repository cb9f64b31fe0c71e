//! A language model of two layers in HF layout: the golden Llama with a tokenizer of single characters.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// Where the golden Llama lies. It has no `tokenizer.json`.
#[must_use]
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/llama/llama2")
}

/// Makes a HF folder that the ranker can be trained on, and changes its `config.json` by `adjust`.
///
/// # Panics
/// If the folder cannot be written.
pub fn write(folder: &Path, adjust: impl FnOnce(&mut Value)) {
    std::fs::create_dir_all(folder).expect("the folder can be made");
    let from = golden();
    std::fs::copy(from.join("model.safetensors"), folder.join("model.safetensors")).expect("the golden Llama is there");
    let text = std::fs::read_to_string(from.join("config.json")).expect("the golden Llama has a configuration");
    let mut config: Value = serde_json::from_str(&text).expect("it is JSON");
    adjust(&mut config);
    std::fs::write(folder.join("config.json"), config.to_string()).expect("config.json can be written");
    std::fs::write(folder.join("tokenizer.json"), tokenizer().to_string()).expect("tokenizer.json can be written");
}

/// One token for each printable ASCII character, behind those that begin and end a text.
fn tokenizer() -> Value {
    let special = ["<unk>", "<s>", "</s>", "\n"].map(str::to_owned);
    let characters = (b' '..=b'~').map(|b| char::from(b).to_string());
    let vocabulary: Map<String, Value> =
        special.into_iter().chain(characters).enumerate().map(|(id, piece)| (piece, json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": [],
        },
    })
}
