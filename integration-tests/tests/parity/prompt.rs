//! Prompts against the reference's, rendered with the template strings that lie beside them.

use std::sync::Arc;

use model::ranker::{Item, LabelStyle, PromptBuilder, PromptOptions, RankerTokenizer, Truncation};
use serde_json::Value;

use crate::{fixtures, golden};

#[test]
fn texts_and_tokens_are_equal() {
    let (Some(folder), Some(tokenizer)) = (fixtures::folder("prompt"), fixtures::folder("tokenizer")) else { return };
    let templates = golden::json(&folder.join("templates.json"));
    let recorded = golden::json(&folder.join("prompt.json"));
    let dataset = recorded["config"]["dataset"].as_str().unwrap();
    let bytes = std::fs::read(tokenizer.join("tokenizer.json")).unwrap();
    let tokenizer = Arc::new(RankerTokenizer::from_bytes(&bytes, Some(1), 2).unwrap());
    for example in recorded["examples"].as_array().unwrap() {
        let captions = example["kind"] == "multimodal";
        let strings = if captions { &templates["multimodal"][dataset] } else { &templates["text_only"] };
        let template = convert(&templates, strings);
        for (limit, wanted) in example["eval_ids"].as_object().unwrap() {
            let builder = builder(&tokenizer, &template, strings, captions, limit.parse().unwrap());
            compare(&builder, example, limit, wanted);
        }
    }
}

fn builder(
    tokenizer: &Arc<RankerTokenizer>,
    template: &str,
    strings: &Value,
    captions: bool,
    limit: usize,
) -> PromptBuilder {
    let options = PromptOptions {
        role: strings["system"].as_str().unwrap().to_owned(),
        history: strings["max_history"].as_u64().unwrap() as usize,
        title_tokens: 32,
        caption_tokens: 32,
        max_prompt_tokens: limit,
        captions,
        truncation: Truncation::Left,
        labels: LabelStyle::Letters,
    };
    PromptBuilder::new(Arc::clone(tokenizer), template, options).unwrap()
}

fn compare(builder: &PromptBuilder, example: &Value, limit: &str, wanted: &Value) {
    let texts = |key: &str| -> Vec<String> { serde_json::from_value(example[key].clone()).unwrap() };
    let (history, captions) = (texts("history"), texts("history_captions"));
    let (candidates, candidate_captions) = (texts("candidates"), texts("candidate_captions"));
    let history = items(&history, &captions);
    let candidates = items(&candidates, &candidate_captions);

    let prompt = builder.prompt("a user", &history, &candidates).unwrap();
    assert_eq!(prompt.text, example["prompt"].as_str().unwrap());
    assert_eq!(prompt.ids, serde_json::from_value::<Vec<u32>>(wanted.clone()).unwrap());

    let verbalizer = builder.verbalizer(candidates.len()).unwrap();
    let answer = example["label_index"].as_u64().unwrap() as usize;
    let training = builder.training_ids(&prompt, &verbalizer, answer).unwrap();
    assert_eq!(training, serde_json::from_value::<Vec<u32>>(example["train_ids"][limit].clone()).unwrap());
}

fn items<'a>(titles: &'a [String], captions: &'a [String]) -> Vec<Item<'a>> {
    titles.iter().zip(captions).map(|(title, caption)| Item { title, caption }).collect()
}

/// The reference's Python format strings as one template of ours.
fn convert(templates: &Value, strings: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let item = text(&strings["item"]).replace("{{", "\u{1}");
    let item = item.replace("{title}", "{{ item.title }}").replace("{caption}", "{{ item.caption }}");
    // A literal brace in front of an expression is written as one.
    let item = item.replace('\u{1}', "{{ '{' }}");
    let separator = text(&templates["separator"]);
    let list = |name: &str, index: &str| {
        let one = item.replace("{index}", &format!("{{{{ item.{index} }}}}"));
        format!(
            "{{% for item in {name} %}}{one}{{% if not loop.last %}}{{{{ {separator:?} }}}}{{% endif %}}{{% endfor +%}}"
        )
    };
    let mut input = text(&strings["input"]);
    for list in [list("history", "index"), list("candidates", "letter")] {
        input = input.replacen("{}", &list, 1);
    }
    text(&templates["wrapper"]).replace("{instruction}", "{{ role }}").replace("{input}", &input)
}
