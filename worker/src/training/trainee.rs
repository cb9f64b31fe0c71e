//! What learns, and what it makes of a step.

use std::time::Instant;

use data::artifact::Digest;
use data::job::Stage;
use kernels::Tensor;
use kernels::collective::{Bucket, Collective, Tree, slices_of};

use crate::Result;
use crate::context::{Context, Output};
use crate::early_stopping::Course;
use crate::gang::Word;
use crate::snapshot::Snapshot;

/// Users that are named where a step fails.
const NAMED: usize = 5;

/// When a training validates and ends.
pub(crate) struct Rules {
    /// The stage, for messages.
    pub(crate) stage: Stage,
    /// Steps at most.
    pub(crate) steps: u64,
    /// Steps between two validations.
    pub(crate) validate_every: u32,
    /// Validations without improvement before it ends.
    pub(crate) patience: u32,
    /// The validation metric as people write it.
    pub(crate) metric: &'static str,
    /// The key of the learning rate and its value, for the one who has to lower it.
    pub(crate) learning_rate: (&'static str, f64),
}

/// What learns. A step is made of slices, which anybody may compute: their sum is what is learnt from. So is a validation made of
/// chunks.
pub(crate) trait Trainee {
    /// Prepares step number `step`, from 0, and returns how many slices it has. Examples and slices follow from that number
    /// alone.
    fn begin(&mut self, step: u64) -> Result<usize>;

    /// The gradients of a slice of the step, and its part of the mean loss.
    fn slice(&mut self, slice: usize) -> Result<(Bucket, f64)>;

    /// What is learnt: gradients have these shapes and this order.
    fn parameters(&self) -> Vec<&Tensor>;

    /// Learns from the sum of all slices.
    fn apply(&mut self, total: Bucket) -> Result<()>;

    /// The parts of a validation.
    fn chunks(&self) -> usize;

    /// The sum of the figure over the users of a chunk.
    fn validate(&self, cx: &Context, chunk: usize) -> Result<f64>;

    /// The figure that decides, larger is better, from the sums of all chunks; nothing where there is nobody to validate on.
    fn figure(&self, sums: &[f64]) -> Option<f64>;

    /// Remembers the present weights as the ones to commit.
    fn keep(&mut self) -> Result<()>;

    /// All that is needed to go on, kept weights included.
    fn files(&self) -> Result<Vec<(String, Vec<u8>)>>;

    /// Goes back to what [`Trainee::files`] gave, or stays as it is where that fails.
    fn restore(&mut self, from: &Snapshot) -> Result<()>;

    /// The digest of what was loaded and does not change: members that differ in it do not train the same.
    fn loaded(&self) -> Result<Digest>;

    /// What a step learns from, for whoever reads why it failed.
    fn about(&self, step: u64) -> String;

    /// What is committed at the end.
    fn output(&self, course: &Course) -> Result<Output>;
}

/// The sums of a member's slices of a step, and its word on them; `beat` is called behind each.
pub(crate) fn slices(
    trainee: &mut dyn Trainee,
    gang: &dyn Collective,
    step: u64,
    beat: &dyn Fn(),
) -> Result<(Tree, Word)> {
    let (began, slices) = (Instant::now(), trainee.begin(step)?);
    let (mut tree, mut word) = (Tree::new(slices), Word { step, ..Word::default() });
    for slice in slices_of(gang.rank(), gang.world(), slices) {
        let (gradients, loss) = trainee.slice(slice)?;
        if !loss.is_finite() || !gradients.is_finite()? {
            word.trouble = format!("slice {slice} is no number");
        }
        tree.push(slice, gradients)?;
        word.figures.push(loss.to_bits());
        beat();
    }
    word.micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    Ok((tree, word))
}

/// The users that a step learns from, some of them by name.
pub(crate) fn about<'a>(users: impl ExactSizeIterator<Item = &'a str>) -> String {
    let (all, shown) = (users.len(), users.take(NAMED).collect::<Vec<_>>());
    let more = if all > NAMED { format!(" and {} more", all - NAMED) } else { String::new() };
    format!("examples of the users {}{more}", shown.join(", "))
}
