//! What learns, and what it makes of a step.

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

/// What learns. A step is made of slices, which are shared out over the members: their sum is what is learnt from. So is a
/// validation made of chunks.
pub(crate) trait Trainee {
    /// The sums of a member's slices of step number `step`, from 0, and its word on them; `beat` is called behind each. Examples
    /// and slices follow from that number alone.
    fn learn(&mut self, gang: &mut dyn Collective, step: u64, beat: &dyn Fn()) -> Result<(Tree, Word)>;

    /// Tensors with the shapes and the order of what is summed: the parameters, where all of them are learnt by all.
    fn parameters(&self) -> Vec<&Tensor>;

    /// Learns from the sum of all slices. A member that is gone is found out before anything has changed.
    fn apply(&mut self, gang: &mut dyn Collective, total: Bucket) -> Result<()>;

    /// Whether it remembers so much of what others learn that it is time to [`Trainee::settle`].
    fn is_full(&self) -> bool {
        false
    }

    /// The `holders`, ranks that have done the same steps, come to have all that was learnt in them, be it with somebody or not any
    /// more: behind this their states are the same. `goes_on` is asked behind each piece of work.
    fn settle(&mut self, _gang: &mut dyn Collective, _holders: &[usize], _goes_on: &dyn Fn() -> bool) -> Result<()> {
        Ok(())
    }

    /// The chunks of a validation.
    fn chunks(&self) -> usize;

    /// The sum of the figure over the users of a chunk.
    fn validate(&mut self, cx: &Context, chunk: usize) -> Result<f64>;

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

    /// What is committed at the end; `beat` is called as long as that takes.
    fn output(&mut self, course: &Course, beat: &dyn Fn()) -> Result<Output>;
}

/// What learns slice by slice, each by itself.
pub(crate) trait Sliced {
    /// Prepares step number `step` and returns how many slices it has.
    fn begin(&mut self, step: u64) -> Result<usize>;

    /// The gradients of a slice of the step, and its part of the mean loss.
    fn slice(&mut self, slice: usize) -> Result<(Bucket, f64)>;
}

/// [`Trainee::learn`] of what learns slice by slice.
pub(crate) fn slices(
    sliced: &mut dyn Sliced,
    gang: &dyn Collective,
    step: u64,
    beat: &dyn Fn(),
) -> Result<(Tree, Word)> {
    let slices = sliced.begin(step)?;
    let (mut tree, mut word) = (Tree::new(slices), Word { step, ..Word::default() });
    for slice in slices_of(gang.rank(), gang.world(), slices) {
        let (gradients, loss) = sliced.slice(slice)?;
        if !loss.is_finite() || !gradients.is_finite()? {
            word.trouble = format!("slice {slice} is no number");
        }
        tree.push(slice, gradients)?;
        word.figures.push(loss.to_bits());
        beat();
    }
    Ok((tree, word))
}

/// The users that a step learns from, some of them by name.
pub(crate) fn about<'a>(users: impl ExactSizeIterator<Item = &'a str>) -> String {
    let (all, shown) = (users.len(), users.take(NAMED).collect::<Vec<_>>());
    let more = if all > NAMED { format!(" and {} more", all - NAMED) } else { String::new() };
    format!("examples of the users {}{more}", shown.join(", "))
}
