#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;
use tokenizers::models::{TrainerWrapper, bpe::BpeTrainer};
use tokenizers::{AddedToken, Tokenizer};

use super::*;

/// What tokens are made of in these tests: words that grow over every border that a tokenizer lets them grow over.
const PIECES: [&str; 27] = [
    "\n (2) x",
    "\n",
    "\n\n",
    " ",
    "  ",
    "\t",
    "\r\n",
    "/",
    "(3)",
    "(A) {",
    "}",
    "Toy Story",
    " story",
    "1995",
    " 7",
    "'s",
    "'",
    ".",
    "é",
    "e\u{301}",
    "\u{301}",
    "中",
    "</s>",
    "<s>",
    "\u{85}",
    "\u{a0}",
    "-",
];

const PROMPT: &str =
    "Rank these.\n\nSeen:\n(1) {Toy Story}\n(2) {Toys' Story, 1995}\nPool:\n(A) {Story}\n(B) {Toy}\n### Response:\n";

/// A tokenizer with the parts of a file, its merges learnt from `texts`.
fn learnt(parts: &Value, texts: &[String], joins: bool) -> Tokenizer {
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "added_tokens": [], "pre_tokenizer": null,
        "post_processor": null, "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": {}, "merges": [],
        },
    });
    for (key, value) in parts.as_object().unwrap() {
        file[key] = value.clone();
    }
    let mut tokenizer = Tokenizer::from_bytes(file.to_string()).unwrap();
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter();
    let bytes = (0..=255).filter(|_| !joins).map(|byte| format!("<0x{byte:02X}>"));
    let special = special.chain(bytes).map(|content| AddedToken::from(content, true)).collect();
    let trainer = BpeTrainer::builder().vocab_size(700).show_progress(false).special_tokens(special);
    tokenizer.train(&mut TrainerWrapper::from(trainer.build()), texts.iter()).unwrap();
    tokenizer
}

/// Every two pieces beside one another.
fn texts() -> Vec<String> {
    let pairs = PIECES.iter().flat_map(|a| PIECES.iter().map(move |b| format!("{a}{b}{a}")));
    pairs.chain([PROMPT.to_owned()]).collect()
}

/// By their names, the forms of tokenizers that rankers come with.
fn forms() -> Vec<(String, Tokenizer)> {
    let bytes =
        |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let split = |pattern: &str| {
        let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]})
    };
    let nfc = json!({"type": "NFC"});
    let mut forms: Vec<(String, Value)> = BREAKING
        .iter()
        .chain([&DEMO])
        .map(|p| (p.to_string(), json!({"pre_tokenizer": split(p), "normalizer": nfc})))
        .collect();
    forms.push(("GPT-2".to_owned(), json!({"pre_tokenizer": bytes(true)})));
    let of_bytes = forms.into_iter().map(|(name, parts)| (name, learnt(&parts, &texts(), true)));

    // As sentencepiece makes them: no token holds a line break, which is a byte.
    let lines: Vec<String> = texts().iter().flat_map(|text| text.split('\n')).map(str::to_owned).collect();
    let blanks = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let prepend = json!({"type": "Prepend", "prepend": "▁"});
    let llama2 = json!({"normalizer": {"type": "Sequence", "normalizers": [prepend, blanks]}});
    let metaspace = |scheme: &str, split: bool| {
        let parts = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split});
        json!({ "pre_tokenizer": parts })
    };
    let of_words = [
        ("Llama 2".to_owned(), llama2),
        ("Mistral".to_owned(), metaspace("first", false)),
        ("always".to_owned(), metaspace("always", true)),
    ];
    of_bytes.chain(of_words.map(|(name, parts)| (name, learnt(&parts, &lines, false)))).collect()
}

fn whole(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec()
}

#[test]
fn lines_have_the_tokens_that_they_have_in_the_whole_text() {
    for (name, tokenizer) in forms() {
        let lines = Lines::of(&tokenizer).unwrap_or_else(|| panic!("{name} is taken as a whole"));
        assert_eq!(lines.encode(&tokenizer, PROMPT).unwrap().unwrap(), whole(&tokenizer, PROMPT), "{name}");
        let known = lines.known().young.len();
        assert!(known >= 7, "{name}: every line is one of its own, but where it ends in two line breaks");
        let texts = prop::collection::vec(prop::sample::select(&PIECES[..]), 1..30);
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let outcome = runner.run(&texts, |pieces| {
            let text = pieces.concat();
            for _ in 0..2 {
                if let Some(ids) = lines.encode(&tokenizer, &text).unwrap() {
                    prop_assert_eq!(ids, whole(&tokenizer, &text), "{}: {:?}", name, &text);
                } else {
                    prop_assert!(text.starts_with('\n'), "{}: {:?} is taken as a whole", name, &text);
                }
            }
            Ok(())
        });
        outcome.unwrap();
        assert!(lines.known().young.len() > known + 100, "{name}");
    }
}

#[test]
fn a_tokenizer_that_may_join_lines_is_asked_for_whole_texts() {
    // Its merges were learnt over line breaks.
    assert!(Lines::of(&learnt(&json!({}), &texts(), true)).is_none());
    let split = |pattern: &str| {
        let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, bytes]}})
    };
    assert!(Lines::of(&learnt(&split(BREAKING[0]), &texts(), true)).is_some());
    assert!(Lines::of(&learnt(&split(r"\s+\S+"), &texts(), true)).is_none(), "nobody has read this pattern");

    for normalizer in [
        json!({"type": "NFKC"}),
        json!({"type": "Replace", "pattern": {"String": "_"}, "content": " "}),
        json!({"type": "Strip", "strip_left": true, "strip_right": true}),
    ] {
        let mut parts = split(BREAKING[0]);
        parts["normalizer"] = normalizer;
        assert!(Lines::of(&learnt(&parts, &texts(), true)).is_none(), "it makes other lines: {parts}");
    }

    let mut greedy = learnt(&split(BREAKING[0]), &texts(), true);
    let mut token = AddedToken::from("<mask>", true);
    token.lstrip = true;
    greedy.add_special_tokens([token]).unwrap();
    assert!(Lines::of(&greedy).is_none(), "it takes line breaks along");
}

#[test]
fn only_so_much_is_remembered_and_what_is_asked_for_stays() {
    let mut known = Known::default();
    let ids = || Arc::from([7_u32]);
    let long = "x".repeat(REMEMBERED / 10);
    known.put("often".into(), ids());
    for i in 0..100 {
        known.put(format!("{long}{i}").into(), ids());
        assert!(known.get("often").is_some(), "{i}");
        assert!(known.young.len() + known.old.len() <= 12);
    }
    assert!(known.get(&format!("{long}0")).is_none() && known.get(&format!("{long}99")).is_some());
}
