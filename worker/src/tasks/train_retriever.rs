//! train_retriever: LRURec on the training sequences, the best checkpoint on validation kept.

use data::dataset::KnownItems;
use data::job::Stage;
use kernels::Device;

use crate::Result;
use crate::context::Context;
use crate::population::Population;
use crate::retrieval::check_candidates;
use crate::training::{Rules, train};
use lessons::Lessons;
use shared::Shared;
use whole::Whole;

mod lessons;
mod shared;
#[cfg(test)]
mod tests;
mod whole;

/// Trains and commits the model.
pub(crate) fn run(cx: &mut Context, device: &Device) -> Result<()> {
    let population = Population::open(cx)?;
    let users = population.users(cx)?;
    let settings = cx.job.retriever.clone();
    if cx.job.runs(Stage::Retrieve) {
        check_candidates(cx, &population)?; // before the training, and not behind it
    }
    let known = KnownItems::all(&population.catalogue);
    let lessons = Lessons::new(cx.job.seed, &settings, &population.catalogue, &known, &users)?;
    let rules = Rules {
        stage: Stage::TrainRetriever,
        steps: lessons.steps_per_epoch() * u64::from(settings.max_epochs),
        validate_every: settings.validate_every,
        patience: settings.patience,
        metric: "R@10",
        learning_rate: ("retriever.learning_rate", settings.learning_rate),
    };
    if lessons.are_shared() {
        tracing::info!(items = known.len(), parts = settings.slices, "the items are shared out");
        return train(cx, device, &rules, &mut Shared::new(lessons, device)?);
    }
    train(cx, device, &rules, &mut Whole::new(lessons, device)?)
}
