#![allow(clippy::unwrap_used)]

use super::{super::tokenizer::tests::characters, *};

fn error(tokenizer: &RankerTokenizer, prompt: &str, style: LabelStyle, candidates: usize) -> String {
    Verbalizer::new(tokenizer, prompt, style, candidates).unwrap_err().to_string()
}

#[test]
fn the_token_behind_the_prompt_is_taken_not_that_of_the_bare_label() {
    let tokenizer = characters(&[(" ", "A")]);
    let a = tokenizer.encode("A").unwrap()[0];
    assert_eq!(Verbalizer::new(&tokenizer, "x\n", LabelStyle::Letters, 2).unwrap().tokens(), [a, a + 1]);
}

#[test]
fn a_label_that_merges_with_the_prompt_is_refused() {
    let message = error(&characters(&[(":", "B")]), "x:", LabelStyle::Letters, 3);
    assert!(message.contains("label `B` merges") && message.contains("line break"), "{message}");
}

#[test]
fn a_label_of_two_tokens_is_refused() {
    assert_eq!(Verbalizer::new(&characters(&[]), "x\n", LabelStyle::Numbers, 9).unwrap().tokens().len(), 9);
    let message = error(&characters(&[]), "x\n", LabelStyle::Numbers, 10);
    assert!(message.contains("label `10` is 2 tokens") && message.contains("\"letters\""), "{message}");
    assert_eq!(Verbalizer::new(&characters(&[("1", "0")]), "x\n", LabelStyle::Numbers, 10).unwrap().tokens().len(), 10);
}

#[test]
fn more_candidates_than_letters_are_refused() {
    let message = error(&characters(&[]), "x\n", LabelStyle::Letters, 27);
    assert!(
        message.contains("27 candidates") && message.contains("26") && message.contains("\"numbers\""),
        "{message}"
    );
}
