#![allow(clippy::unwrap_used)]

use serde_json::{Map, json};

use super::*;

/// A tokenizer of single characters (token 3 is a line break, then the printable ASCII ones from 4 on) with some merges.
pub(crate) fn characters(merges: &[(&str, &str)]) -> RankerTokenizer {
    let mut vocabulary = Map::new();
    for piece in ["<unk>", "<s>", "</s>", "\n"]
        .into_iter()
        .map(str::to_owned)
        .chain((b' '..=b'~').map(|b| char::from(b).to_string()))
    {
        vocabulary.insert(piece, json!(vocabulary.len()));
    }
    for (a, b) in merges {
        vocabulary.insert(format!("{a}{b}"), json!(vocabulary.len()));
    }
    let merges: Vec<_> = merges.iter().map(|(a, b)| json!([a, b])).collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [{
            "id": 2, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        }],
        "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary, "merges": merges,
        },
    });
    RankerTokenizer::from_bytes(file.to_string().as_bytes(), Some(1), 2).unwrap()
}

#[test]
fn texts_are_cut_at_tokens_and_read_from_the_cache_the_second_time() {
    let tokenizer = characters(&[("T", "h")]);
    assert_eq!(&*tokenizer.cut("The end", 4).unwrap(), "The e");
    assert_eq!(&*tokenizer.cut("The end", 4).unwrap(), "The e");
    assert_eq!(&*tokenizer.cut("The end", 2).unwrap(), "The");
    assert_eq!(&*tokenizer.cut("The end", 99).unwrap(), "The end");
    assert_eq!(&*tokenizer.cut("", 4).unwrap(), "");
}

#[test]
fn no_first_or_last_token_is_added() {
    assert_eq!(characters(&[]).encode("\n !").unwrap(), [3, 4, 5]);
}

#[test]
fn a_broken_file_is_an_error() {
    let error = RankerTokenizer::from_bytes(b"{", None, 2).unwrap_err();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
}

#[test]
fn an_item_cannot_end_a_text() {
    let tokenizer = characters(&[]);
    assert_eq!(tokenizer.encode("a</s>").unwrap()[1..], [2], "a template may");
    let cut = tokenizer.cut("a</s>", 9).unwrap();
    assert_eq!((&*cut, tokenizer.cleaned()), ("a< /s>", 1));
    assert!(!tokenizer.encode(&cut).unwrap().contains(&2));
    tokenizer.cut("a</s>", 9).unwrap();
    tokenizer.cut("plain", 9).unwrap();
    assert_eq!(tokenizer.cleaned(), 1);
}

#[test]
fn a_tokenizer_of_another_checkpoint_is_refused() {
    let config = |vocabulary: usize| {
        let json = format!(
            r#"{{"model_type": "llama", "vocab_size": {vocabulary}, "hidden_size": 8, "intermediate_size": 8,
                "num_hidden_layers": 1, "num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2}}"#
        );
        super::super::LlamaConfig::from_json(&json).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let json = serde_json::to_vec(&characters(&[]).tokenizer).unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), json).unwrap();
    assert!(RankerTokenizer::load(folder.path(), &config(99)).is_ok());
    let error = RankerTokenizer::load(folder.path(), &config(98)).unwrap_err().to_string();
    assert!(error.contains("99 tokens") && error.contains("different checkpoints"), "{error}");
}
