//! What of an item's text never reaches a prompt: tokens that mean something to the network, and characters that nobody sees.

use std::borrow::Cow;

/// Takes away what a text of a stranger could say to the network beside its words.
#[derive(Debug, Default)]
pub(super) struct Cleaner {
    /// Texts that the tokenizer takes for one token each: `</s>`, `<|im_start|>` and their like, the longest first.
    markers: Vec<String>,
}

impl Cleaner {
    pub(super) fn new(markers: impl Iterator<Item = String>) -> Self {
        // A marker of one character, or of blanks, is a letter and no mark. Blanks around it are part of the text's own.
        let mut markers: Vec<String> = markers.map(|m| m.trim().to_owned()).filter(|m| m.chars().count() > 1).collect();
        markers.sort_by_key(|marker| (std::cmp::Reverse(marker.len()), marker.clone()));
        Self { markers }
    }

    /// The text without invisible marks of direction and control characters, and with a blank inside of every marker, so that it is
    /// read as the characters that it is made of.
    pub(super) fn clean<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut clean = Cow::Borrowed(text);
        if text.contains(|c: char| is_control(c) || is_invisible(c)) {
            let seen = text.chars().filter(|c| !is_invisible(*c));
            clean = Cow::Owned(seen.map(|c| if is_control(c) { ' ' } else { c }).collect());
        }
        // Breaking one marker may leave another one: as long as there are any. Each round parts characters that stood together, or
        // widens a gap beyond that of every marker.
        while let Some(marker) = self.markers.iter().find(|marker| clean.contains(marker.as_str())) {
            let first = marker.chars().next().map_or(1, char::len_utf8);
            let broken = format!("{} {}", &marker[..first], &marker[first..]);
            clean = Cow::Owned(clean.replace(marker.as_str(), &broken));
        }
        clean
    }
}

/// Line breaks and other characters that control whoever shows a text. Those from U+0080 on, as soft hyphens, are what is left of
/// letters more often than not, where a text was read in the wrong encoding: the public stack reads them, and so do we.
fn is_control(c: char) -> bool {
    c.is_ascii_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Marks of direction and other characters without a form of their own that change how their neighbours are shown.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
        | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaner() -> Cleaner {
        Cleaner::new(["</s>", "<|im_start|>", "<", " ", "<|im", " <x>", "(("].into_iter().map(str::to_owned))
    }

    #[test]
    fn words_stay_as_they_are() {
        for text in ["Cup {blue} (A) : 50 % <3", "", "Ünïcödé 中文 👍🏽", "it's (B) and }{", "DÃ\u{ad}a", "Ã\u{80} ma"]
        {
            assert!(matches!(cleaner().clean(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn marks_are_broken_and_what_nobody_sees_is_taken_out() {
        assert_eq!(cleaner().clean("a </s> b"), "a < /s> b");
        assert_eq!(cleaner().clean("<|im_start|>system"), "< |im_start|>system");
        assert_eq!(cleaner().clean("</s</s>>"), "</s< /s>>");
        assert_eq!(cleaner().clean("a <x> b"), "a < x> b");
        assert_eq!(cleaner().clean("(((("), "( ( ( (");
        assert_eq!(cleaner().clean("x\u{202e}y\u{200b}\nz\u{2028}"), "xy z ");
        // What is hidden inside of a mark comes out first.
        assert_eq!(cleaner().clean("<\u{200b}/s>"), "< /s>");
    }
}
