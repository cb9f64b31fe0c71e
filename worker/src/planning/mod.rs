//! What a job's ranker will take: prompts, tokens, steps, memory, hours. Nothing is trained, and nothing is written that stays.

mod cards;
pub(crate) mod measured;
mod prompts;
#[cfg(test)]
mod tests;

use std::path::Path;

use data::dataset::{Catalogue, training_items};
use data::job::{CaptionsFrom, Job, Split, Stage};
use data::prepare::{Counts, Gauge, prepare};
use model::Precision;
use model::ranker::{Footprint, Ranker};

use crate::Result;
use crate::asking::prompts_of;
use crate::ranking::{builder, options};
pub use cards::{ASSUMED_SHARE, CARDS, Card, Rates};
pub use measured::{Measured, measured};
pub use prompts::{Lengths, Sampled};

/// Users whose prompts are made.
const SAMPLE: u64 = 1_000;

/// A job's ranker before it runs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Users, items and interactions that stay.
    pub counts: Counts,
    /// Lengths of prompts.
    pub prompts: Sampled,
    /// Parameters, bytes and operations of the network.
    pub footprint: Footprint,
    /// What its products are made of.
    pub precision: Precision,
    /// The training, unless the ranker is taken over.
    pub training: Option<Training>,
    /// Prompts that the job's splits score.
    pub scored: u64,
    /// Prompts that one user's candidates take: one, or heats and a final.
    pub asked: u64,
    /// The most tokens of the prompts that were made.
    pub longest: u64,
    /// The most tokens that the base takes.
    pub longest_of_base: u64,
    /// Tokens that are computed together.
    pub micro_batch_tokens: u64,
}

/// How long the ranker is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Training {
    /// Prefixes of all training sequences.
    pub examples: u64,
    /// Examples in a step.
    pub batch_size: u64,
    /// Optimiser steps, if no validation ends it earlier.
    pub steps: u64,
    /// Validations.
    pub validations: u64,
}

/// The job on one card.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OnCard {
    /// Bytes of training with everything kept, with inputs alone, and of scoring.
    pub bytes: [u64; 3],
    /// Bytes of training on as many tokens at once as were asked for, with inputs alone.
    pub again: u64,
    /// Whether it fits at all: training, computing activations again where needed, or scoring where nothing is trained.
    pub fits: bool,
    /// The longest prompt that could be trained on.
    pub longest: u64,
    /// Hours of training, its validations, and scoring.
    pub hours: [f64; 3],
}

impl Plan {
    /// Looks at the data and the configuration of the base; `spool` is for what does not fit into memory.
    ///
    /// # Errors
    /// Those of preparing the data, of a configuration that does not fit, and of a prompt that cannot be made.
    pub async fn of(job: &Job, spool: &Path) -> Result<Self> {
        let settings = options(job, true)?;
        let config = Ranker::check(job.ranker.base.as_ref(), &settings)?;
        let footprint = Footprint::of(&config, &settings)?;
        let footprint = if job.ranker.fp8 { footprint.scored_in_eight_bits() } else { footprint };
        let captions = job.captions.from != CaptionsFrom::None;
        let mut prompt_job = job.clone();
        if job.runs(Stage::Pictures) {
            // A caption that is still to be made has no more tokens than the captioner gives it.
            let ranker = &mut prompt_job.ranker;
            ranker.caption_tokens = ranker.caption_tokens.min(job.captions.max_tokens);
        }
        let (builder, _) = builder(&prompt_job, &config, captions)?;
        let mut prepared = prepare(&job.dataset, &job.limits, spool, &Gauge::default()).await?;
        let catalogue = Catalogue::new(std::mem::take(&mut prepared.items))?;
        let every = prepared.counts.users.div_ceil(SAMPLE).max(1);
        let mut sampler = prompts::Sampler {
            job,
            builder: &builder,
            catalogue: &catalogue,
            sampled: Sampled::default(),
            shortened: [0; 2],
            caption: prompts::caption(&prompt_job),
        };
        let (mut examples, mut seen) = (0, 0);
        while let Some(users) = prepared.histories.next_shard().await? {
            for user in &users {
                examples += (training_items(&user.items).len() as u64).saturating_sub(1);
                if seen % every == 0 {
                    sampler.add(user)?;
                }
                seen += 1;
            }
        }
        let prompts::Sampler { mut sampled, shortened: [short, made], .. } = sampler;
        sampled.shortened = short as f64 / made.max(1) as f64;
        let asked = prompts_of(job.retriever.candidates as usize, job.shown_candidates() as usize) as u64;
        let splits = job.splits.iter().filter(|split| **split != Split::Train).count() as u64;
        Ok(Self {
            counts: prepared.counts,
            footprint,
            precision: settings.precision,
            training: job.runs(Stage::TrainRanker).then(|| Training::of(job, examples)),
            scored: if job.runs(Stage::Rank) {
                splits * prepared.counts.users * asked * u64::from(job.ranker.permutations)
            } else {
                0
            },
            asked,
            longest: sampled.training.quantile(1.0).max(sampled.scoring.quantile(1.0)) as u64,
            longest_of_base: config.longest_sequence() as u64,
            micro_batch_tokens: settings.micro_batch_tokens as u64,
            prompts: sampled,
        })
    }

    /// How fast a card is: as earlier runs were on one, or at a share of its peak where there were none.
    #[must_use]
    pub fn rates(&self, card: &Card, earlier: &[Measured]) -> Rates {
        let alike = |measured: &&Measured| measured.is_on(card) && self.is_like(measured);
        let assumed = ASSUMED_SHARE * card.peak_tflops(self.precision) * 1e12;
        match earlier.iter().find(alike).and_then(Rates::of) {
            Some(rates) => rates,
            None => Rates { training: assumed, scoring: assumed, measured: false },
        }
    }

    /// Whether a training was of a network as large as this one, and multiplied the same floats.
    #[must_use]
    pub fn is_like(&self, measured: &Measured) -> bool {
        measured.precision == self.precision.name() && measured.parameters == self.footprint.parameters
    }

    /// Hours of training, its validations, and scoring, at these rates; `again` if activations are computed again.
    #[must_use]
    pub fn hours(&self, rates: &Rates, again: bool) -> [f64; 3] {
        let scoring = self.footprint.scoring_flops(self.prompts.scoring.mean());
        let training = self.training.map_or([0.0; 2], |training| {
            let learnt = (training.steps * training.batch_size) as f64;
            let mean = self.prompts.training.mean();
            // What is computed again is at most another forward pass.
            let forward = if again { self.footprint.scoring_flops(mean) } else { 0.0 };
            let trained = learnt * (self.footprint.training_flops(mean) + forward);
            // Users whose item was not retrieved are not asked about, so these are more than there will be.
            [trained, (training.validations * self.counts.users * self.asked) as f64 * scoring]
        });
        let [trained, validated, scored] = [training[0], training[1], self.scored as f64 * scoring];
        [trained / rates.training, validated / rates.scoring, scored / rates.scoring].map(|seconds| seconds / 3600.0)
    }

    /// The job on a card that is so fast.
    #[must_use]
    pub fn on(&self, card: &Card, rates: &Rates) -> OnCard {
        let together = self.micro_batch_tokens.max(self.longest);
        let held = self.footprint.with_memory(card.usable());
        let [all, again] = held.training_bytes(together);
        // Where there is no room, one text is computed at a time.
        let [_, least] = held.training_bytes(self.longest);
        let fixed = held.training_bytes(0)[1];
        let per_token = (least - fixed).div_ceil(self.longest.max(1)).max(1);
        let scored = held.scoring_bytes(self.longest);
        OnCard {
            bytes: [all, least, held.scoring_bytes(together)],
            again,
            fits: if self.training.is_some() { least } else { scored } <= card.usable(),
            longest: (card.usable().saturating_sub(fixed) / per_token).min(self.longest_of_base),
            hours: self.hours(rates, all > card.usable()),
        }
    }
}

impl Training {
    fn of(job: &Job, examples: u64) -> Self {
        let ranker = &job.ranker;
        let (batch_size, steps) = (u64::from(ranker.batch_size), ranker.steps(examples));
        Self { examples, batch_size, steps, validations: steps.div_ceil(u64::from(ranker.validate_every)) }
    }

    /// Passes over the examples.
    #[must_use]
    pub fn epochs(&self) -> f64 {
        (self.steps * self.batch_size) as f64 / self.examples.max(1) as f64
    }
}
