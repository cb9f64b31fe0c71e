//! `[ranker]`: what orders them.

use serde::Serialize;
use serde_json::{Value, json};

use super::{ModelFrom, rate};
use crate::job::reader::Section;

/// Where the wrong candidates of a training prompt come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Negatives {
    /// Any unseen items, as in the paper.
    Random,
    /// The retriever's best for the same prefix.
    Retrieved,
    /// Half of each.
    Mixed,
}

/// The order in which a training prompt shows its candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CandidateOrder {
    /// Any, so that places say nothing.
    Shuffled,
    /// The retriever's, as in use; an answer that it has not proposed stands anywhere.
    Retrieved,
}

/// Which weights the ranker's training changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trainable {
    /// Low-rank adapters only.
    Lora,
    /// All of them.
    Full,
}

/// How the frozen weights are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantize {
    /// 4-bit NormalFloat with double quantisation.
    Nf4,
    /// As they are in the checkpoint.
    None,
}

/// What products are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RankerPrecision {
    /// bfloat16 on cards, 32-bit floats on processors and where everything is trained.
    Auto,
    /// 32-bit floats.
    F32,
    /// bfloat16, summed in f32.
    Bf16,
}

/// What candidates are called in the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// A, B, C …
    Letters,
    /// 1, 2, 3 …
    Numbers,
}

impl Labels {
    /// The name in the job file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Letters => "letters",
            Self::Numbers => "numbers",
        }
    }

    /// How many candidates can be told apart.
    #[must_use]
    pub fn max_candidates(self) -> u32 {
        match self {
            Self::Letters => 26,
            Self::Numbers => 999,
        }
    }
}

/// `ranker.lora`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lora {
    /// Rank of the adapters.
    pub rank: u32,
    /// Their output is scaled by alpha / rank.
    pub alpha: f64,
    /// Dropout on their input.
    pub dropout: f64,
    /// The projections that carry one.
    pub targets: Vec<String>,
}

impl Lora {
    const TARGETS: [(&'static str, &'static str); 7] = [
        ("q_proj", "q_proj"),
        ("k_proj", "k_proj"),
        ("v_proj", "v_proj"),
        ("o_proj", "o_proj"),
        ("gate_proj", "gate_proj"),
        ("up_proj", "up_proj"),
        ("down_proj", "down_proj"),
    ];

    fn read(mut s: Section<'_>) -> Self {
        let this = Self {
            rank: s.number("rank", 8, 1..=1024),
            alpha: s.number("alpha", 32.0, 0.0..=1e6),
            dropout: rate(&mut s, "dropout", 0.05),
            targets: s
                .choices("targets", &["q_proj", "v_proj"], &Self::TARGETS)
                .into_iter()
                .map(str::to_owned)
                .collect(),
        };
        s.finish();
        this
    }
}

/// How many tokens of prompts are worked on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MicroBatch {
    /// Left to the worker.
    Auto,
    /// This many tokens.
    Tokens(u32),
}

/// `[ranker]`: the prompt, the language model and its tuning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranker {
    /// Whose training it is of; counts by what it leads to.
    #[serde(skip)]
    pub from: ModelFrom,
    /// HF folder of the base checkpoint; counts by content.
    #[serde(skip)]
    pub base: String,
    /// The prompt template: a path, or the text itself once [`crate::job::Job::inline_template`] has run.
    pub template: String,
    /// The role sentence of the prompt.
    pub role: String,
    /// Items of history in a prompt at most.
    pub history: u32,
    /// Titles are cut at this many tokens.
    pub title_tokens: u32,
    /// Captions are cut at this many tokens.
    pub caption_tokens: u32,
    /// The longest prompt.
    pub max_prompt_tokens: u32,
    /// Where wrong candidates come from in training.
    pub negatives: Negatives,
    /// In which order they are shown in training.
    pub candidate_order: CandidateOrder,
    /// Candidates in a prompt at most; 0: all of them.
    pub window: u32,
    /// What is trained.
    pub trainable: Trainable,
    /// How frozen weights are held.
    pub quantize: Quantize,
    /// What products are made of.
    pub precision: RankerPrecision,
    /// The adapters.
    pub lora: Lora,
    /// Examples in an optimiser step.
    pub batch_size: u32,
    /// Slices of a step, whose gradients are computed one by one and summed in one order: so many workers can share it.
    pub slices: u32,
    /// Tokens in a micro-batch; shapes the work, not the result.
    #[serde(skip)]
    pub micro_batch: MicroBatch,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u32,
    /// Passes over the training examples at most.
    pub max_epochs: u32,
    /// Steps at most; 0: no limit.
    pub max_steps: u32,
    /// Steps between two validations.
    pub validate_every: u32,
    /// Validations without improvement before training stops.
    pub patience: u32,
    /// What candidates are called.
    pub labels: Labels,
    /// Whether a ranker that is worse than the retriever's order on validation users fails the job.
    pub require_lift: bool,
    /// Orders of the candidates whose logits are averaged.
    #[serde(skip)]
    pub permutations: u32,
    /// What the retriever says beside the ranker.
    #[serde(skip)]
    pub blend: Blend,
    /// Whether probabilities are those that validation bears out.
    #[serde(skip)]
    pub calibrate: bool,
    /// Whether it scores in eight bits, where that leaves orders as they are.
    #[serde(skip)]
    pub fp8: bool,
    /// The share of users whose first candidate must be the same in eight bits.
    #[serde(skip)]
    pub fp8_agreement: f64,
}

/// What is said beside the ranker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blend {
    /// Nothing.
    None,
    /// The retriever, with the share that was best on validation.
    Fitted,
}

impl Ranker {
    /// What a folder with a ranker does not say.
    const BESIDE_A_FOLDER: [&'static str; 17] = [
        "permutations",
        "blend",
        "calibrate",
        "fp8",
        "fp8_agreement",
        "base",
        "template",
        "role",
        "history",
        "title_tokens",
        "caption_tokens",
        "max_prompt_tokens",
        "quantize",
        "precision",
        "micro_batch_tokens",
        "labels",
        "window",
    ];

    /// The keys that change what a finished ranker answers.
    #[must_use]
    pub fn scoring_keys(&self) -> Value {
        json!({
            "template": self.template,
            "role": self.role,
            "history": self.history,
            "title_tokens": self.title_tokens,
            "caption_tokens": self.caption_tokens,
            "max_prompt_tokens": self.max_prompt_tokens,
            "quantize": self.quantize,
            "precision": self.precision,
            "labels": self.labels,
            "window": self.window,
        })
    }

    /// The keys that change how a ranker is asked and what is made of its answers, as far as they are set.
    #[must_use]
    pub fn ordering_keys(&self) -> Value {
        let mut keys = serde_json::Map::new();
        if self.permutations > 1 {
            keys.insert("permutations".to_owned(), json!(self.permutations));
        }
        if self.blend != Blend::None {
            keys.insert("blend".to_owned(), json!(self.blend));
        }
        if self.calibrate {
            keys.insert("calibrate".to_owned(), json!(true));
        }
        if self.fp8 {
            keys.insert("fp8_agreement".to_owned(), json!(self.fp8_agreement));
        }
        Value::Object(keys)
    }

    /// Optimiser steps over so many examples, if no validation ends the training earlier.
    #[must_use]
    pub fn steps(&self, examples: u64) -> u64 {
        let all = examples.div_ceil(u64::from(self.batch_size)) * u64::from(self.max_epochs);
        if self.max_steps == 0 { all } else { all.min(u64::from(self.max_steps)) }
    }

    /// How many of so many candidates a prompt shows.
    #[must_use]
    pub fn shown(&self, candidates: u32) -> u32 {
        if self.window == 0 { candidates } else { candidates.min(self.window) }
    }

    /// Whether it takes what was fitted on validation.
    #[must_use]
    pub fn is_fitted(&self) -> bool {
        self.blend == Blend::Fitted || self.calibrate
    }

    pub(in crate::job) fn read(mut s: Section<'_>) -> Self {
        let this = Self {
            from: ModelFrom::read(&mut s, &Self::BESIDE_A_FOLDER),
            base: s.get("base", String::new()),
            template: s.get("template", String::new()),
            role: s.get("role", String::new()),
            history: s.number("history", 20, 1..=10_000),
            title_tokens: s.number("title_tokens", 32, 1..=10_000),
            caption_tokens: s.number("caption_tokens", 32, 1..=10_000),
            max_prompt_tokens: s.number("max_prompt_tokens", 1536, 16..=1_000_000),
            negatives: s.choice(
                "negatives",
                Negatives::Random,
                &[("random", Negatives::Random), ("retrieved", Negatives::Retrieved), ("mixed", Negatives::Mixed)],
            ),
            candidate_order: s.choice(
                "candidate_order",
                CandidateOrder::Shuffled,
                &[("shuffled", CandidateOrder::Shuffled), ("retrieved", CandidateOrder::Retrieved)],
            ),
            window: s.number("window", 0, 0..=999),
            trainable: s.choice("trainable", Trainable::Lora, &[("lora", Trainable::Lora), ("full", Trainable::Full)]),
            quantize: s.choice("quantize", Quantize::Nf4, &[("nf4", Quantize::Nf4), ("none", Quantize::None)]),
            precision: s.choice(
                "precision",
                RankerPrecision::Auto,
                &[("auto", RankerPrecision::Auto), ("f32", RankerPrecision::F32), ("bf16", RankerPrecision::Bf16)],
            ),
            lora: Lora::read(s.section("lora")),
            batch_size: s.number("batch_size", 16, 1..=1_000_000),
            slices: s.number("slices", 8, 1..=1024),
            micro_batch: micro_batch(&mut s),
            learning_rate: s.number("learning_rate", 1e-4, 0.0..=10.0),
            warmup_steps: s.number("warmup_steps", 100, 0..=1_000_000_000),
            max_epochs: s.number("max_epochs", 1, 1..=1_000_000),
            max_steps: s.number("max_steps", 0, 0..=1_000_000_000),
            validate_every: s.number("validate_every", 100, 1..=1_000_000_000),
            patience: s.number("patience", 10, 1..=1_000_000),
            labels: s.choice("labels", Labels::Letters, &[("letters", Labels::Letters), ("numbers", Labels::Numbers)]),
            require_lift: s.get("require_lift", false),
            permutations: s.number("permutations", 1, 1..=32),
            blend: s.choice("blend", Blend::None, &[("none", Blend::None), ("fitted", Blend::Fitted)]),
            calibrate: s.get("calibrate", false),
            fp8: s.get("fp8", false),
            fp8_agreement: s.number("fp8_agreement", 0.99, 0.0..=1.0),
        };
        if this.candidate_order == CandidateOrder::Retrieved && this.negatives == Negatives::Random {
            let why =
                "is \"retrieved\", but random negatives have no order: set negatives = \"retrieved\" or \"mixed\"";
            s.report("candidate_order", why);
        }
        if this.window == 1 {
            s.report(
                "window",
                "is 1, and one candidate leaves nothing to choose: 2 or more, or 0 for all in one prompt",
            );
        }
        if this.trainable == Trainable::Full && this.precision == RankerPrecision::Bf16 {
            s.report("precision", "is \"bf16\", but trainable = \"full\" multiplies what it trains: leave it out");
        }
        if this.trainable == Trainable::Full && this.quantize == Quantize::Nf4 {
            s.report("quantize", "is \"nf4\", but trainable = \"full\" changes all weights: set quantize = \"none\"");
        }
        s.finish();
        this
    }
}

fn micro_batch(s: &mut Section<'_>) -> MicroBatch {
    const KEY: &str = "micro_batch_tokens";
    if s.optional_string(KEY).as_deref() == Some("auto") || s.is_absent(KEY) {
        return MicroBatch::Auto;
    }
    MicroBatch::Tokens(s.number(KEY, 4096, 1..=100_000_000))
}
