//! Lines of prompts and their tokens, so that the line of an item is tokenised once and not for every user who sees it.
//!
//! The tokens of a text are not those of its pieces, as a rule: words grow over every border. But where a tokenizer never joins a
//! line break with what comes behind it, a text falls apart into lines. Whether it does is read off its file, and where it cannot be
//! told, texts are taken as a whole.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokenizers::{ModelWrapper, Tokenizer, models::bpe::BPE};

/// Bytes of lines and tokens that are remembered, half of them at least the last ones that were asked for.
const REMEMBERED: usize = 128 << 20;

/// Patterns in which a line break ends the word that it is in.
const BREAKING: [&str; 3] = [
    // Llama 3.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // Qwen 2.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // Mistral's later models.
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];
/// The demo's: words, numbers, marks with the line breaks behind them, and blanks as many as there are.
const DEMO: &str = r"\([0-9A-Z]{1,2}\)(?: \{)?| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+\n*|\s+";

/// The lines of a tokenizer that takes texts line by line.
#[derive(Debug)]
pub(super) struct Lines {
    words: Words,
    /// The tokens of a line break at the beginning of a text.
    line_break: Vec<u32>,
    known: Mutex<Known>,
}

/// Lines and their tokens: those that were asked for lately, and those of the time before.
#[derive(Debug, Default)]
struct Known {
    young: HashMap<Box<str>, Arc<[u32]>>,
    old: HashMap<Box<str>, Arc<[u32]>>,
    /// Bytes of the young ones.
    bytes: usize,
}

impl Lines {
    /// None if this tokenizer may join a line break with what comes behind it, or makes texts of what we do not know.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let ModelWrapper::BPE(model) = tokenizer.get_model() else { return None };
        let cuts = cuts(&json(tokenizer.get_pre_tokenizer())?)?;
        let apart = keeps_line_breaks(&json(tokenizer.get_normalizer())?)
            && is_plain(model)
            && (cuts.words != Words::Long || never_goes_on(tokenizer, cuts.line_break))
            && tokenizer.get_added_tokens_decoder().values().all(|token| {
                // They are found before anything else, and some take the blanks beside them along.
                !token.lstrip && !token.rstrip && !token.content.contains('\n')
            });
        let line_break = tokenizer.encode_fast("\n", false).ok()?.get_ids().to_vec();
        apart.then(|| Self { words: cuts.words, line_break, known: Mutex::default() })
    }

    /// The tokens of a text; none if it has to be taken as a whole after all.
    pub(super) fn encode(&self, tokenizer: &Tokenizer, text: &str) -> tokenizers::Result<Option<Vec<u32>>> {
        if text.starts_with('\n') {
            return Ok(None);
        }
        let mut ids = Vec::new();
        let mut begin = 0;
        for end in self.words.line_ends(text).chain([text.len()]) {
            // With the line break before it: what a tokenizer puts before a text is before that, then.
            let (line, before) = match begin {
                0 => (&text[..end], [].as_slice()),
                begin => (&text[begin - 1..end], self.line_break.as_slice()),
            };
            let Some(line) = self.line(tokenizer, line, before)? else { return Ok(None) };
            ids.extend_from_slice(&line);
            begin = end;
        }
        Ok(Some(ids))
    }

    /// The tokens of a line but for those that are known to come before it.
    fn line(&self, tokenizer: &Tokenizer, line: &str, before: &[u32]) -> tokenizers::Result<Option<Arc<[u32]>>> {
        let known = self.known().get(line);
        if known.is_some() {
            return Ok(known);
        }
        let encoding = tokenizer.encode_fast(line, false)?;
        let Some(ids) = encoding.get_ids().strip_prefix(before) else { return Ok(None) };
        let ids: Arc<[u32]> = Arc::from(ids);
        self.known().put(line.into(), Arc::clone(&ids));
        Ok(Some(ids))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn get(&mut self, line: &str) -> Option<Arc<[u32]>> {
        if let Some(ids) = self.young.get(line) {
            return Some(Arc::clone(ids));
        }
        let (line, ids) = self.old.remove_entry(line)?;
        self.put(line, Arc::clone(&ids));
        Some(ids)
    }

    fn put(&mut self, line: Box<str>, ids: Arc<[u32]>) {
        self.bytes += line.len() + std::mem::size_of_val(&*ids);
        if self.bytes > REMEMBERED / 2 {
            self.old = std::mem::take(&mut self.young);
            self.bytes = line.len() + std::mem::size_of_val(&*ids);
        }
        self.young.insert(line, ids);
    }
}

/// How a text is cut into the words that tokens are made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    /// Not at all, or at blanks: words hold line breaks.
    Long,
    /// By one of [`BREAKING`].
    Breaking,
    /// By GPT-2's pattern: of several blanks the last one may begin a word.
    Gpt2,
    /// By [`DEMO`].
    Demo,
}

impl Words {
    /// Where lines end whose next one begins anew, with or without a blank before its first word. A slash may belong to what is before.
    fn line_ends(self, text: &str) -> impl Iterator<Item = usize> + '_ {
        text.match_indices('\n').map(|(at, _)| at + 1).filter(move |end| {
            let mut behind = text[*end..].chars();
            let (Some(first), second) = (behind.next(), behind.next()) else { return false };
            let begins = |c: char| !c.is_whitespace() && c != '/';
            let anew = begins(first) || (first == ' ' && second.is_some_and(begins));
            let no_blank = text[..end - 1].chars().next_back().is_some_and(|c| !c.is_whitespace());
            match self {
                Self::Long => first != '\n',
                Self::Breaking => anew,
                Self::Gpt2 => anew && no_blank,
                Self::Demo => begins(first) && no_blank,
            }
        })
    }

    /// Those of a pre-tokenizer that cuts by a pattern.
    fn of(split: &Value) -> Option<Self> {
        let isolated = split["type"] == "Split" && split["behavior"] == "Isolated" && split["invert"] == false;
        match split["pattern"]["Regex"].as_str().filter(|_| isolated)? {
            DEMO => Some(Self::Demo),
            pattern => BREAKING.contains(&pattern).then_some(Self::Breaking),
        }
    }
}

/// What a file's `pre_tokenizer` does.
struct Cuts {
    words: Words,
    /// What the vocabulary writes for a line break.
    line_break: char,
}

/// Reads it off the file.
fn cuts(pre_tokenizer: &Value) -> Option<Cuts> {
    const BYTES: char = 'Ċ';
    let bytes = |part: &Value| part["type"] == "ByteLevel" && part["add_prefix_space"] == false;
    if pre_tokenizer.is_null() {
        return Some(Cuts { words: Words::Long, line_break: '\n' });
    }
    match pre_tokenizer["type"].as_str()? {
        "Metaspace" => Some(Cuts { words: Words::Long, line_break: '\n' }),
        "ByteLevel" if bytes(pre_tokenizer) => {
            let words = if pre_tokenizer["use_regex"] == false { Words::Long } else { Words::Gpt2 };
            Some(Cuts { words, line_break: BYTES })
        }
        "Sequence" => match pre_tokenizer["pretokenizers"].as_array()?.as_slice() {
            [split, last] if bytes(last) && last["use_regex"] == false => {
                Some(Cuts { words: Words::of(split)?, line_break: BYTES })
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether a text is changed piece by piece, and nothing of what lines are told apart by.
fn keeps_line_breaks(normalizer: &Value) -> bool {
    let text =
        |value: &Value| value.as_str().is_some_and(|text| !text.contains(|c: char| c.is_whitespace() || c == '/'));
    match normalizer["type"].as_str() {
        None => normalizer.is_null(),
        // No character composes with a line break.
        Some("NFC") => true,
        Some("Prepend") => text(&normalizer["prepend"]),
        Some("Replace") => {
            normalizer["pattern"]["String"].as_str().is_some_and(|pattern| !pattern.contains('\n'))
                && text(&normalizer["content"])
        }
        Some("Sequence") => normalizer["normalizers"].as_array().is_some_and(|all| all.iter().all(keeps_line_breaks)),
        Some(_) => false,
    }
}

/// Whether tokens depend on nothing but their own characters and the merges.
fn is_plain(model: &BPE) -> bool {
    let is_none = |affix: &Option<String>| affix.as_deref().is_none_or(str::is_empty);
    model.dropout.is_none_or(|share| share == 0.0)
        && is_none(&model.continuing_subword_prefix)
        && is_none(&model.end_of_word_suffix)
}

/// Whether no token goes on behind a line break with anything else, so that no merge does, and nothing is unknown that stands beside one:
/// what is unknown waits for its neighbours. Whole words need no merges.
fn never_goes_on(tokenizer: &Tokenizer, line_break: char) -> bool {
    let ModelWrapper::BPE(model) = tokenizer.get_model() else { return false };
    let vocabulary = tokenizer.get_vocab(false);
    let all_bytes = || (0..=255_u8).all(|byte| vocabulary.contains_key(format!("<0x{byte:02X}>").as_str()));
    let known =
        vocabulary.contains_key(line_break.encode_utf8(&mut [0; 4]) as &str) || (model.byte_fallback && all_bytes());
    let goes_on = |token: &String| token.trim_start_matches(|c| c != line_break).chars().any(|c| c != line_break);
    known && !model.ignore_merges && !vocabulary.keys().any(goes_on)
}

fn json<T: serde::Serialize>(part: Option<&T>) -> Option<Value> {
    part.map_or(Some(Value::Null), |part| serde_json::to_value(part).ok())
}
