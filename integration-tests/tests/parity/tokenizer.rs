//! Encoding, decoding and cutting against the tokenizers library as Python calls it, and the tokens of the labels.

use model::ranker::{LabelStyle, RankerTokenizer, Verbalizer};

use crate::{fixtures, golden};

#[test]
fn texts_encode_and_cut_alike() {
    let Some(folder) = fixtures::folder("tokenizer") else { return };
    let tokenizer = open(&folder);
    let recorded = golden::json(&folder.join("tokenizer_cases.json"));
    for case in recorded["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
        // Of what an item says, tabs, line breaks and marks of the tokenizer are taken before it is cut: they are the template's.
        let cut = !text.contains(|c: char| c.is_ascii_control()) && !text.contains("</s>");
        for (limit, wanted) in case["truncated"].as_object().unwrap().iter().filter(|_| cut) {
            let found = tokenizer.cut(text, limit.parse().unwrap()).unwrap();
            assert_eq!(&*found, wanted.as_str().unwrap(), "{text:?} cut at {limit}");
        }
    }
}

#[test]
fn labels_behind_a_line_break_have_other_tokens_than_alone() {
    let Some(folder) = fixtures::folder("tokenizer") else { return };
    let tokenizer = open(&folder);
    let recorded = golden::json(&folder.join("tokenizer_cases.json"));
    let verbalizer = Verbalizer::new(&tokenizer, "### Response:\n", LabelStyle::Letters, 20).unwrap();
    for (i, token) in verbalizer.tokens().iter().enumerate() {
        let wanted = &recorded["letters"][LabelStyle::Letters.label(i)];
        let after: Vec<u32> = serde_json::from_value(wanted["after_newline"].clone()).unwrap();
        assert_eq!(after.last(), Some(token));
        let alone: Vec<u32> = serde_json::from_value(wanted["alone"].clone()).unwrap();
        assert_ne!(alone, [*token], "the token of the bare letter is never the one that is trained");
    }
}

fn open(folder: &std::path::Path) -> RankerTokenizer {
    RankerTokenizer::from_bytes(&std::fs::read(folder.join("tokenizer.json")).unwrap(), Some(1), 2).unwrap()
}
