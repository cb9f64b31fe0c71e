//! What the ranker learns from: prompts whose answer is a label.

use std::collections::HashMap;

use data::artifact::table_prefix;
use data::dataset::training_items;
use data::examples::{Permutation, Question, Recipe, Seen, TrainingPrefixes, choose_candidates};
use data::job::{Negatives, Split, Stage};
use data::tables::{CandidateRow, Reader, Table};
use model::ranker::Example;
use rayon::prelude::*;

use crate::context::Context;
use crate::population::{Population, User};
use crate::ranking::{ANSWER_TOKENS, Prompts};
use crate::tasks::rank::numbers;
use crate::{Error, Result};

/// The training examples: pure functions of (seed, epoch, number).
pub(super) struct Examples<'a> {
    population: &'a Population,
    users: &'a [User],
    pub(super) prefixes: TrainingPrefixes,
    seen: Vec<Seen>,
    /// (user, prefix length) → what the retriever proposes there.
    retrieved: HashMap<(usize, usize), Vec<u32>>,
    recipe: Recipe,
}

impl<'a> Examples<'a> {
    pub(super) fn open(cx: &Context, population: &'a Population, users: &'a [User]) -> Result<Self> {
        let prefixes = TrainingPrefixes::new(users.iter().map(|u| training_items(&u.items).len()));
        if prefixes.is_empty() {
            let what =
                "no user has two training items; loosen dataset.min_interactions_per_item or bring longer histories"
                    .to_owned();
            return Err(Error::Nothing { stage: Stage::TrainRanker, what });
        }
        let recipe = Recipe {
            negatives: cx.job.ranker.negatives,
            order: cx.job.ranker.candidate_order,
            candidates: cx.job.shown_candidates(),
            catalogue_len: population.catalogue.len(),
            seed: cx.job.seed,
        };
        let random = recipe.negatives == Negatives::Random;
        let retrieved = if random { HashMap::new() } else { retrieved(cx, population, users)? };
        let seen = users.iter().map(|u| Seen::new(&u.items)).collect();
        Ok(Self { population, users, prefixes, seen, retrieved, recipe })
    }

    fn example(&self, prompts: &Prompts, epoch: u64, number: u64) -> Result<Example> {
        let prefix = self.prefixes.at(number);
        let user = &self.users[prefix.user];
        let (history, answer) = prefix.view(training_items(&user.items));
        let retrieved = self.retrieved.get(&(prefix.user, prefix.length)).map_or(&[][..], Vec::as_slice);
        let question = Question { example: number, answer: *answer, seen: &self.seen[prefix.user], retrieved };
        let choice = choose_candidates(&self.recipe, epoch, &question)?;
        let prompt = prompts.prompt(self.population, &user.id, history, &choice.items)?;
        let ids = prompts.training_ids(&prompt, choice.answer)?;
        Ok(Example::from_text(&ids, ANSWER_TOKENS, model::retriever::example_key(epoch, number))?)
    }

    /// The numbers of the examples of one step, and its epoch.
    fn numbers(&self, step: u64, size: u64) -> (u64, Vec<u64>) {
        let per_epoch = self.prefixes.len().div_ceil(size);
        let (epoch, place) = (step / per_epoch, step % per_epoch);
        let order = Permutation::new(self.prefixes.len(), self.recipe.seed, epoch);
        (epoch, (place * size..((place + 1) * size).min(order.len())).map(|place| order.at(place)).collect())
    }

    /// The users whom one step learns from.
    pub(super) fn users(&self, step: u64, size: u64) -> Vec<&str> {
        let (_, numbers) = self.numbers(step, size);
        numbers.into_iter().map(|number| self.users[self.prefixes.at(number).user].id.as_str()).collect()
    }

    /// The examples of one step, the same ones whatever computes them.
    pub(super) fn batch(&self, prompts: &Prompts, step: u64, size: u64) -> Result<Vec<Example>> {
        let (epoch, numbers) = self.numbers(step, size);
        numbers.par_iter().map(|number| self.example(prompts, epoch, *number)).collect()
    }
}

/// The candidates of training prefixes, by user and length.
fn retrieved(cx: &Context, population: &Population, users: &[User]) -> Result<HashMap<(usize, usize), Vec<u32>>> {
    let digest = cx.input(Stage::Retrieve, Some(Split::Train))?;
    let reader: Reader<CandidateRow> = cx.wait(Reader::open(&cx.store, &table_prefix(Table::Candidates, &digest)))?;
    let places: HashMap<&str, usize> = users.iter().enumerate().map(|(i, u)| (u.id.as_str(), i)).collect();
    let mut retrieved = HashMap::new();
    for part in 0..reader.len() {
        cx.check()?;
        for row in &cx.wait(reader.part(part))? {
            if let (Some(user), Some(length)) = (places.get(row.user_id.as_str()), row.position) {
                retrieved.insert((*user, length as usize), numbers(population, row)?);
            }
        }
    }
    Ok(retrieved)
}
