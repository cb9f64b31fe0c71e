#![allow(clippy::unwrap_used)]

use super::{super::tokenizer::tests::characters, *};

const TEMPLATE: &str = "\
{{ role }}
Seen:
{% for item in history %}
({{ item.index }}) {{ item.title }}{% if captions %}: {{ item.caption }}{% endif +%}
{% endfor %}
Pool:
{% for item in candidates %}
({{ item.letter }}) {{ item.title }}
{% endfor %}
Answer:
";

fn options() -> PromptOptions {
    PromptOptions {
        role: "R".to_owned(),
        history: 20,
        title_tokens: 3,
        caption_tokens: 2,
        max_prompt_tokens: 1000,
        captions: true,
        truncation: Truncation::OldestHistory,
        labels: LabelStyle::Letters,
    }
}

fn builder(options: PromptOptions) -> PromptBuilder {
    PromptBuilder::new(Arc::new(characters(&[])), TEMPLATE, options).unwrap()
}

const HISTORY: [Item<'_>; 3] = [
    Item { title: "one", caption: "uno" },
    Item { title: "twofold", caption: "" },
    Item { title: "<&>", caption: "d" },
];
const POOL: [Item<'_>; 2] = [Item { title: "x", caption: "" }, Item { title: "y", caption: "" }];

#[test]
fn texts_are_cut_numbered_and_lettered() {
    let prompt = builder(options()).prompt("u", &HISTORY, &POOL).unwrap();
    let wanted = "R\nSeen:\n(1) one: un\n(2) two: \n(3) <&>: d\nPool:\n(A) x\n(B) y\nAnswer:\n";
    assert_eq!(prompt.text, wanted);
    assert_eq!(prompt.ids.len(), wanted.len() + 1);
    assert_eq!((prompt.ids[0], *prompt.ids.last().unwrap()), (1, 3));
}

#[test]
fn all_prompts_share_what_comes_before_the_first_item() {
    let builder = builder(options());
    let shared = builder.shared_beginning().unwrap();
    assert_eq!(shared.len(), "R\nSeen:\n(1) ".len() + 1);
    assert!(builder.prompt("u", &HISTORY, &POOL).unwrap().ids.starts_with(&shared));
}

#[test]
fn only_the_last_items_and_no_captions_if_so_asked() {
    let prompt = builder(PromptOptions { history: 1, captions: false, ..options() }).prompt("u", &HISTORY, &POOL);
    assert_eq!(prompt.unwrap().text, "R\nSeen:\n(1) <&>\nPool:\n(A) x\n(B) y\nAnswer:\n");
}

#[test]
fn a_long_prompt_loses_its_oldest_history_and_never_its_instruction() {
    let whole = builder(options()).prompt("u", &HISTORY, &POOL).unwrap().ids.len();
    for less in 1..15 {
        let limit = whole - less;
        let prompt =
            builder(PromptOptions { max_prompt_tokens: limit, ..options() }).prompt("u", &HISTORY, &POOL).unwrap();
        assert!(prompt.ids.len() <= limit && prompt.text.starts_with("R\nSeen:\n(1) "));
        assert!(prompt.text.contains("(B) y"));
        assert_eq!(prompt.shown_history, if less <= 12 { 2 } else { 1 });
    }
}

#[test]
fn a_prompt_that_cannot_fit_names_the_user_and_the_key() {
    let error = builder(PromptOptions { max_prompt_tokens: 20, ..options() }).prompt("user 7", &HISTORY, &POOL);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("user 7") && error.contains("limit is 20") && error.contains("ranker.max_prompt_tokens"));
}

#[test]
fn training_appends_the_label_that_the_verbalizer_reads_and_the_end() {
    let builder = builder(options());
    let verbalizer = builder.verbalizer(2).unwrap();
    let prompt = builder.prompt("u", &HISTORY, &POOL).unwrap();
    let ids = builder.training_ids(&prompt, &verbalizer, 1).unwrap();
    assert_eq!(ids[..prompt.ids.len()], prompt.ids);
    assert_eq!(ids[prompt.ids.len()..], [verbalizer.tokens()[1], 2]);
    assert_eq!(builder.tokenizer().decode(&ids[1..ids.len() - 1]).unwrap(), format!("{}B", prompt.text));
    assert!(builder.training_ids(&prompt, &verbalizer, 2).is_err());
}

#[test]
fn templates_that_do_not_parse_or_name_unknown_things_are_errors() {
    let tokenizer = Arc::new(characters(&[]));
    let broken = PromptBuilder::new(Arc::clone(&tokenizer), "{% for %}", options()).unwrap_err();
    assert!(broken.to_string().contains("prompt template"), "{broken}");
    let unknown = PromptBuilder::new(tokenizer, "{{ histroy }}", options()).unwrap();
    assert!(unknown.prompt("u", &HISTORY, &POOL).is_err());
}
