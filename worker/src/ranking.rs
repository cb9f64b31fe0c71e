//! The ranker at work: texts, prompts and labels of one job.

use std::collections::BTreeMap;
use std::sync::Arc;

use data::artifact::table_prefix;
use data::job::{self, CaptionsFrom, Job, MicroBatch, RankerPrecision, Stage};
use data::tables::{CaptionRow, Table, read_all};
use model::Precision;
use model::ranker::{
    Dequantize, Item, LabelStyle, LlamaConfig, LoraOptions, Prompt, PromptBuilder, PromptOptions, Quantize, Ranker,
    RankerOptions, RankerTokenizer, SharedPrefix, Trainable, Truncation, Verbalizer,
};

use crate::context::Context;
use crate::population::Population;
use crate::{Error, Result};

/// What follows the prompt in training: the label and the end of text.
pub(crate) const ANSWER_TOKENS: usize = 2;
/// Tokens that are computed together where the job leaves it to us.
const AUTO_TOKENS: usize = 4096;

/// A shorter beginning is read with every prompt.
const SHARED_TOKENS: usize = 8;

/// Everything between items and tokens.
pub(crate) struct Prompts {
    builder: PromptBuilder,
    /// The label tokens of as many candidates as a prompt shows.
    pub(crate) verbalizer: Verbalizer,
    captions: Vec<String>,
    /// What prompts begin with, where that is worth being read once; else empty.
    beginning: Vec<u32>,
}

impl Prompts {
    /// The texts of a task's items and the prompt of its job.
    pub(crate) fn open(cx: &Context, population: &Population) -> Result<Self> {
        let captions = captions(cx, population)?;
        let config = Ranker::check(cx.job.ranker.base.as_ref(), &options(&cx.job, false)?)?;
        let with_captions = captions.iter().any(|c| !c.is_empty());
        let (builder, verbalizer) = builder(&cx.job, &config, with_captions)?;
        let mut beginning = builder.shared_beginning()?;
        if beginning.len() < SHARED_TOKENS {
            beginning.clear();
        }
        Ok(Self { builder, verbalizer, captions, beginning })
    }

    /// Reads what all prompts begin with, for as long as the ranker stays as it is.
    pub(crate) fn share(&self, ranker: &Ranker) -> Result<Option<SharedPrefix>> {
        Ok((!self.beginning.is_empty()).then(|| ranker.share(&self.beginning)).transpose()?)
    }

    /// Texts of items that had to be cleaned so far: marks of the tokenizer, invisible characters.
    pub(crate) fn cleaned(&self) -> u64 {
        self.builder.tokenizer().cleaned()
    }

    /// Whether prompts show captions.
    pub(crate) fn with_captions(&self) -> bool {
        self.builder.options().captions
    }

    /// How many items of a history prompts show at most.
    pub(crate) fn shown(&self) -> usize {
        self.builder.options().history
    }

    /// The caption of an item.
    pub(crate) fn caption(&self, number: u32) -> &str {
        &self.captions[number as usize - 1]
    }

    /// The prompt of one user.
    pub(crate) fn prompt(
        &self,
        population: &Population,
        who: &str,
        history: &[u32],
        candidates: &[u32],
    ) -> Result<Prompt> {
        let shown = &history[history.len().saturating_sub(self.builder.options().history)..];
        let (shown, candidates) = (self.items(population, shown), self.items(population, candidates));
        Ok(self.builder.prompt(who, &shown, &candidates)?)
    }

    /// The tokens of a training text: prompt, label of the answer, end.
    pub(crate) fn training_ids(&self, prompt: &Prompt, answer: usize) -> Result<Vec<u32>> {
        Ok(self.builder.training_ids(prompt, &self.verbalizer, answer)?)
    }

    fn items<'a>(&'a self, population: &'a Population, numbers: &[u32]) -> Vec<Item<'a>> {
        let item = |n: &u32| Item { title: population.catalogue.title(*n), caption: &self.captions[*n as usize - 1] };
        numbers.iter().map(item).collect()
    }
}

/// Finds whatever is wrong with a job's language model before anything is computed: a checkpoint that does not fit its
/// configuration, a tokenizer that splits a label, a template that cannot be rendered, or one that leaves no room.
///
/// # Errors
/// The first that is found, naming the file or the key.
pub fn check_ranker(job: &Job) -> Result<()> {
    let config = Ranker::check(job.ranker.base.as_ref(), &options(job, false)?)?;
    let captions = job.captions.from != CaptionsFrom::None;
    let (builder, _) = builder(job, &config, captions)?;
    // The shortest prompt that a template may count on: somebody with one item.
    let item = Item { title: "a", caption: if captions { "a" } else { "" } };
    builder.prompt("everybody", &[item], &vec![item; job.shown_candidates() as usize])?;
    Ok(())
}

/// The prompts of a job and the labels of as many candidates as they show.
pub(crate) fn builder(job: &Job, config: &LlamaConfig, captions: bool) -> Result<(PromptBuilder, Verbalizer)> {
    let (base, asked) = (&job.ranker.base, job.ranker.max_prompt_tokens as usize);
    let room = config.longest_sequence().saturating_sub(ANSWER_TOKENS);
    if asked > room {
        return Err(Error::LongPrompts { base: base.clone(), asked, room });
    }
    let tokenizer = Arc::new(RankerTokenizer::load(base.as_ref(), config)?);
    let options = prompt_options(&job.ranker, captions);
    let builder = PromptBuilder::new(tokenizer, &job.ranker.template, options)?;
    let verbalizer = builder.verbalizer(job.shown_candidates() as usize)?;
    Ok((builder, verbalizer))
}

/// Captions in the order of the catalogue.
fn captions(cx: &Context, population: &Population) -> Result<Vec<String>> {
    let digest = cx.input(Stage::Caption, None)?;
    let rows: Vec<CaptionRow> = cx.wait(read_all(&cx.store, &table_prefix(Table::Captions, &digest)))?;
    let mut by_id: BTreeMap<String, String> = rows.into_iter().map(|r| (r.item_id, r.caption)).collect();
    Ok(population.catalogue.items().iter().map(|i| by_id.remove(&i.item_id).unwrap_or_default()).collect())
}

fn prompt_options(ranker: &job::Ranker, captions: bool) -> PromptOptions {
    PromptOptions {
        role: ranker.role.clone(),
        history: ranker.history as usize,
        title_tokens: ranker.title_tokens as usize,
        caption_tokens: ranker.caption_tokens as usize,
        max_prompt_tokens: ranker.max_prompt_tokens as usize,
        captions,
        truncation: Truncation::OldestHistory,
        labels: match ranker.labels {
            job::Labels::Letters => LabelStyle::Letters,
            job::Labels::Numbers => LabelStyle::Numbers,
        },
    }
}

/// How the ranker of a job is held and trained, on a card or on a processor.
pub(crate) fn options(job: &Job, card: bool) -> Result<RankerOptions> {
    let ranker = &job.ranker;
    let trainable = match ranker.trainable {
        job::Trainable::Full => Trainable::Full,
        job::Trainable::Lora => Trainable::Lora(lora(&ranker.lora)?),
    };
    Ok(RankerOptions {
        quantize: match ranker.quantize {
            job::Quantize::Nf4 => Quantize::Nf4,
            job::Quantize::None => Quantize::None,
        },
        dequantize: Dequantize::Auto,
        precision: match ranker.precision {
            RankerPrecision::Auto if card && ranker.trainable == job::Trainable::Lora => Precision::Bf16,
            RankerPrecision::Auto | RankerPrecision::F32 => Precision::F32,
            RankerPrecision::Bf16 => Precision::Bf16,
        },
        trainable,
        seed: job.seed,
        max_tokens: ranker.max_prompt_tokens as usize + ANSWER_TOKENS,
        activation_bytes: usize::MAX,
        max_grad_norm: Some(1.0),
        micro_batch_tokens: match ranker.micro_batch {
            MicroBatch::Auto => AUTO_TOKENS,
            MicroBatch::Tokens(tokens) => tokens as usize,
        },
    })
}

fn lora(lora: &job::Lora) -> Result<LoraOptions> {
    let known = |name: &String| name.parse().map_err(|_| Error::Unknown { what: format!("the LoRA target {name}") });
    Ok(LoraOptions {
        rank: lora.rank as usize,
        alpha: lora.alpha as f32,
        dropout: lora.dropout as f32,
        targets: lora.targets.iter().map(known).collect::<Result<_>>()?,
    })
}
