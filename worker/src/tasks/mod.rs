//! One file per stage.

mod caption;
mod choose;
mod evaluate;
mod pictures;
mod prepare;
mod rank;
mod retrieve;
mod train_ranker;
mod train_retriever;

pub use caption::check_captioner;
pub(crate) use caption::forget;
use data::job::Stage;
use kernels::Device;

use crate::Result;
use crate::context::Context;
use crate::kept::Kept;

/// Computes and commits the shards of a lease on the device's threads.
pub(crate) fn run(mut context: Context, shards: &[u32], device: &Device, kept: &mut Kept) -> Result<()> {
    if context.artifact.stage != Stage::Caption {
        forget();
    }
    if !matches!(context.artifact.stage, Stage::Retrieve | Stage::Rank) {
        kept.forget();
    }
    // The device's threads are others than the one that was told for which lease it works.
    let span = tracing::Span::current();
    let work = || match context.artifact.stage {
        Stage::Prepare => prepare::run(&mut context),
        Stage::Pictures => pictures::run(&mut context),
        Stage::Caption => caption::run(&mut context, shards, device),
        Stage::TrainRetriever | Stage::TrainRanker if choose::is_choice(&context) => choose::run(&mut context),
        Stage::TrainRetriever => train_retriever::run(&mut context, device),
        Stage::Retrieve => retrieve::run(&mut context, shards, device, kept),
        Stage::TrainRanker => train_ranker::run(&mut context, device),
        Stage::Rank => rank::run(&mut context, shards, device, kept),
        Stage::Evaluate => evaluate::run(&mut context),
    };
    device.run(|| span.in_scope(work))
}
