//! From history and candidates to the tokens of a prompt.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use minijinja::{Environment, UndefinedBehavior, Value, context, syntax::SyntaxConfig};

use super::{
    tokenizer::RankerTokenizer,
    verbalizer::{LabelStyle, Verbalizer},
};
use crate::{Error, Result};

/// An item as the prompt shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// Its title.
    pub title: &'a str,
    /// What its image shows; may be empty.
    pub caption: &'a str,
}

/// What happens to a prompt that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// The oldest items of the history are left out until it fits; instruction and candidates stay.
    OldestHistory,
    /// The first tokens are cut, as the reference code does. For comparisons only: it cuts the instruction.
    Left,
}

/// The settings of a [`PromptBuilder`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptOptions {
    /// The dataset's role sentence.
    pub role: String,
    /// The last items of a history that are shown.
    pub history: usize,
    /// Titles are cut to this many tokens.
    pub title_tokens: usize,
    /// Captions are cut to this many tokens.
    pub caption_tokens: usize,
    /// The longest prompt, the beginning token included and the answer not.
    pub max_prompt_tokens: usize,
    /// Whether captions are shown.
    pub captions: bool,
    /// What happens to a longer prompt.
    pub truncation: Truncation,
    /// How candidates are labelled.
    pub labels: LabelStyle,
}

/// A prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The text.
    pub text: String,
    /// The tokens, beginning with the model's first token if it has one.
    pub ids: Vec<u32>,
    /// Items of the history that are shown.
    pub shown_history: usize,
}

/// Renders a template and tokenises the result.
///
/// # Template
/// A minijinja template with the variables `role` (text), `history` (list of `index` from 1, `title`, `caption`, oldest
/// first), `candidates` (list of `label`, `letter` (the same), `title`, `caption`) and `captions` (whether captions are
/// shown; without them every caption is empty). Nothing is escaped; a last line break stays; a variable that does not
/// exist is an error; the line of a block tag leaves no empty line behind.
#[derive(Debug)]
pub struct PromptBuilder {
    tokenizer: Arc<RankerTokenizer>,
    templates: Environment<'static>,
    options: PromptOptions,
}

const TEMPLATE: &str = "prompt";

/// The template of jobs that bring none: three blocks, closed braces, the label on a line of its own.
pub const DEFAULT_TEMPLATE: &str = include_str!("prompt/default.jinja");

impl PromptBuilder {
    /// A builder from the text of a template.
    ///
    /// # Errors
    /// [`Error::Template`] if it does not parse.
    pub fn new(tokenizer: Arc<RankerTokenizer>, template: &str, options: PromptOptions) -> Result<Self> {
        let mut templates = Environment::new();
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).trim_blocks(true).lstrip_blocks(true).build();
        templates.set_syntax(syntax.map_err(|e| Error::Template(e.into()))?);
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        templates.add_template_owned(TEMPLATE, template.to_owned()).map_err(|e| Error::Template(e.into()))?;
        Ok(Self { tokenizer, templates, options })
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &RankerTokenizer {
        &self.tokenizer
    }

    /// The settings.
    #[must_use]
    pub fn options(&self) -> &PromptOptions {
        &self.options
    }

    /// The label tokens for up to `candidates` candidates, checked against this template and tokenizer.
    ///
    /// # Errors
    /// As [`Verbalizer::new`].
    pub fn verbalizer(&self, candidates: usize) -> Result<Verbalizer> {
        self.options.labels.check(candidates)?;
        let item = Item { title: "-", caption: "-" };
        let prompt = self.render(self.history(&[item])?, self.candidates(&[item])?)?;
        Verbalizer::new(&self.tokenizer, &prompt, self.options.labels, candidates)
    }

    /// The tokens that prompts of this template begin with, whoever is asked: the instruction, as a rule. What every prompt
    /// of a few unlike people begins with; a prompt may still begin otherwise.
    ///
    /// # Errors
    /// [`Error::Template`] or [`Error::Tokenizer`].
    pub fn shared_beginning(&self) -> Result<Vec<u32>> {
        let mut shared: Option<Vec<u32>> = None;
        for title in ["-", "A a", "7", "(é", " z", "中"] {
            let item = Item { title, caption: title };
            let prompt = self.ids(&self.render(self.history(&[item])?, self.candidates(&[item])?)?)?;
            let common =
                shared.as_ref().map_or(prompt.len(), |s| s.iter().zip(&prompt).take_while(|(a, b)| a == b).count());
            shared = Some(prompt[..common].to_vec());
        }
        Ok(shared.unwrap_or_default())
    }

    /// The prompt of one user. `who` names the user in errors.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`] if it does not fit without any history; [`Error::Labels`] for more candidates than
    /// labels; [`Error::Template`] or [`Error::Tokenizer`].
    pub fn prompt(&self, who: &str, history: &[Item<'_>], candidates: &[Item<'_>]) -> Result<Prompt> {
        self.options.labels.check(candidates.len())?;
        let shown = &history[history.len().saturating_sub(self.options.history)..];
        let candidates = self.candidates(candidates)?;
        let build = |kept: usize| -> Result<Prompt> {
            let text = self.render(self.history(&shown[shown.len() - kept..])?, candidates.clone())?;
            let ids = self.ids(&text)?;
            Ok(Prompt { text, ids, shown_history: kept })
        };
        let limit = self.options.max_prompt_tokens;
        let mut whole = build(shown.len())?;
        if whole.ids.len() <= limit {
            return Ok(whole);
        }
        if self.options.truncation == Truncation::Left {
            whole.ids = self.keep_last(whole.ids, limit);
            return Ok(whole);
        }
        // The largest number of items that fits; more items never make a prompt shorter.
        let mut best = build(0)?;
        if best.ids.len() > limit {
            return Err(Error::PromptTooLong {
                who: who.to_owned(),
                tokens: best.ids.len(),
                candidates: candidates.len(),
                limit,
            });
        }
        let (mut fits, mut too_many) = (0, shown.len());
        while too_many - fits > 1 {
            let middle = fits + (too_many - fits) / 2;
            let prompt = build(middle)?;
            if prompt.ids.len() <= limit {
                (fits, best) = (middle, prompt);
            } else {
                too_many = middle;
            }
        }
        Ok(best)
    }

    /// The tokens of a training text: prompt, label, end.
    ///
    /// # Errors
    /// [`Error::Input`] if `answer` is no candidate of the verbalizer.
    pub fn training_ids(&self, prompt: &Prompt, verbalizer: &Verbalizer, answer: usize) -> Result<Vec<u32>> {
        let label = verbalizer.tokens().get(answer).ok_or_else(|| {
            Error::Input(format!("answer {answer} of {} labelled candidates", verbalizer.tokens().len()))
        })?;
        let mut ids = prompt.ids.clone();
        ids.push(*label);
        if self.options.truncation == Truncation::Left {
            ids = self.keep_last(ids, self.options.max_prompt_tokens);
        }
        ids.push(self.tokenizer.eos());
        Ok(ids)
    }

    /// The first token, if the model has one, and those of a text.
    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids: Vec<u32> = self.tokenizer.bos().into_iter().collect();
        ids.extend(self.tokenizer.encode(text)?);
        Ok(ids)
    }

    /// The first token and the last ones, `limit` in all.
    fn keep_last(&self, ids: Vec<u32>, limit: usize) -> Vec<u32> {
        if ids.len() <= limit {
            return ids;
        }
        let bos = self.tokenizer.bos();
        let rest = limit - bos.iter().len().min(limit);
        bos.into_iter().chain(ids[ids.len() - rest..].iter().copied()).collect()
    }

    fn history(&self, items: &[Item<'_>]) -> Result<Vec<Value>> {
        let entry = |(i, item): (usize, &Item<'_>)| {
            let (title, caption) = self.texts(item)?;
            Ok(context! { index => i + 1, title, caption })
        };
        items.iter().enumerate().map(entry).collect()
    }

    fn candidates(&self, items: &[Item<'_>]) -> Result<Vec<Value>> {
        let entry = |(i, item): (usize, &Item<'_>)| {
            let (title, caption) = self.texts(item)?;
            let label = self.options.labels.label(i);
            Ok(context! { letter => &label, label => &label, title, caption })
        };
        items.iter().enumerate().map(entry).collect()
    }

    /// Title and caption, cut.
    fn texts(&self, item: &Item<'_>) -> Result<(Arc<str>, Arc<str>)> {
        let caption = if self.options.captions { item.caption } else { "" };
        Ok((
            self.tokenizer.cut(item.title, self.options.title_tokens)?,
            self.tokenizer.cut(caption, self.options.caption_tokens)?,
        ))
    }

    fn render(&self, history: Vec<Value>, candidates: Vec<Value>) -> Result<String> {
        let values = context! { role => &self.options.role, history, candidates, captions => self.options.captions };
        let template = self.templates.get_template(TEMPLATE).map_err(|e| Error::Template(e.into()))?;
        template.render(values).map_err(|e| Error::Template(e.into()))
    }
}
