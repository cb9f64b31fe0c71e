//! How long the prompts of a job are, from those of some users.

use data::dataset::{Catalogue, Holdout, training_items};
use data::examples::Rng;
use data::job::{CaptionsFrom, Job, Split};
use data::tables::HistoryRow;
use model::ranker::{Item, PromptBuilder};

use crate::Result;

/// Short words that make a caption: cut at a number of tokens, it has that many.
const WORDS: &str = "a b c d e f g h i j k l m n o p q r s t u v w x y z ";

/// Lengths of prompts in tokens, each standing for so many.
#[derive(Clone, Debug, Default)]
pub struct Lengths(Vec<(usize, u64)>);

impl Lengths {
    fn add(&mut self, tokens: usize, weight: u64) {
        self.0.push((tokens, weight));
    }

    /// The prompts that were made.
    #[must_use]
    pub fn sampled(&self) -> usize {
        self.0.len()
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let (sum, count) = self.0.iter().fold((0, 0), |(sum, count), (t, w)| (sum + *t as u64 * w, count + w));
        sum as f64 / count.max(1) as f64
    }

    /// The length below which a share of all prompts lies.
    #[must_use]
    pub fn quantile(&self, share: f64) -> usize {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let total: u64 = sorted.iter().map(|(_, w)| w).sum();
        let mut left = (share * total.saturating_sub(1) as f64).round() as u64;
        for (tokens, weight) in sorted {
            if left < weight {
                return tokens;
            }
            left -= weight;
        }
        0
    }

    /// Shares of all prompts in ranges of so many tokens.
    #[must_use]
    pub fn histogram(&self, width: usize) -> Vec<(usize, f64)> {
        let total: u64 = self.0.iter().map(|(_, w)| w).sum();
        let bins = self.quantile(1.0) / width + 1;
        let first = self.quantile(0.0) / width;
        let share = |bin: usize| {
            let inside = self.0.iter().filter(|(t, _)| t / width == bin).map(|(_, w)| w).sum::<u64>();
            (bin * width, inside as f64 / total.max(1) as f64)
        };
        (first..bins).map(share).collect()
    }
}

/// Prompts of training and of scoring.
#[derive(Clone, Debug, Default)]
pub struct Sampled {
    /// Training examples, each user's weighing as much as they have of them.
    pub training: Lengths,
    /// Prompts of the splits, users weighing alike.
    pub scoring: Lengths,
    /// The share of prompts that lost some of their history to `ranker.max_prompt_tokens`.
    pub shortened: f64,
}

/// Makes the prompts of some users, with candidates drawn from the whole catalogue.
pub(super) struct Sampler<'a> {
    pub(super) job: &'a Job,
    pub(super) builder: &'a PromptBuilder,
    pub(super) catalogue: &'a Catalogue,
    pub(super) sampled: Sampled,
    pub(super) shortened: [u64; 2],
    /// What stands for every caption.
    pub(super) caption: String,
}

/// A caption of at least so many tokens; none where the job has none.
pub(super) fn caption(job: &Job) -> String {
    if job.captions.from == CaptionsFrom::None {
        return String::new();
    }
    WORDS.repeat(job.ranker.caption_tokens as usize / 26 + 1)
}

impl Sampler<'_> {
    /// One training example and one prompt to be scored.
    pub(super) fn add(&mut self, user: &HistoryRow) -> Result<()> {
        let items = self.catalogue.encode(user)?;
        let mut rng = Rng::keyed(&[self.job.seed, self.shortened[1]]);
        let training = training_items(&items);
        if training.len() > 1 {
            let prefix = 1 + rng.below(training.len() as u64 - 1) as usize;
            let tokens = self.tokens(&user.user_id, &training[..prefix], &mut rng)?;
            // The label goes through the network, the end does not.
            self.sampled.training.add(tokens + 1, training.len() as u64 - 1);
        }
        let split = if self.job.splits.contains(&Split::All) { Split::All } else { Split::Test };
        let tokens = self.tokens(&user.user_id, Holdout::of(&items, split).history, &mut rng)?;
        self.sampled.scoring.add(tokens, 1);
        Ok(())
    }

    fn tokens(&mut self, who: &str, history: &[u32], rng: &mut Rng) -> Result<usize> {
        let item = |number: u32| Item { title: self.catalogue.title(number), caption: &self.caption };
        let most = history.len().min(self.builder.options().history);
        let shown: Vec<Item<'_>> = history[history.len() - most..].iter().map(|n| item(*n)).collect();
        let drawn = (0..self.job.shown_candidates()).map(|_| 1 + rng.below(u64::from(self.catalogue.len())) as u32);
        let candidates: Vec<Item<'_>> = drawn.map(item).collect();
        let prompt = self.builder.prompt(who, &shown, &candidates)?;
        self.shortened[0] += u64::from(prompt.shown_history < shown.len());
        self.shortened[1] += 1;
        Ok(prompt.ids.len())
    }
}
