//! The loop that all trainings share: step, validate, keep the best, checkpoint, stop, resume.

use std::time::Instant;

use data::job::Stage;
use kernels::Tensor;
use kernels::collective::{Bucket, Collective, Tree, local, slices_of};

use crate::checkpoint::{self, Checkpoint};
use crate::context::Context;
use crate::early_stopping::Course;
use crate::{Class, Error, Result};

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

/// What learns. A step is made of slices, which anybody may compute: their sum is what is learnt from.
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

    /// The figure that decides, larger is better; nothing where there is nobody to validate on.
    fn validate(&self, cx: &Context) -> Result<Option<f64>>;

    /// Remembers the present weights as the ones to commit.
    fn keep(&mut self, cx: &Context) -> Result<()>;

    /// All that is needed to go on, kept weights included.
    fn files(&self) -> Result<Vec<(String, Vec<u8>)>>;

    /// Goes back to what [`Trainee::files`] gave, or stays as it is where that fails.
    fn restore(&mut self, cx: &Context, from: &Checkpoint<Course>) -> Result<()>;
}

/// Trains to the end, from the newest checkpoint that is whole. A stop on the way leaves a checkpoint of the last step.
pub(crate) fn train(cx: &mut Context, rules: &Rules, trainee: &mut dyn Trainee) -> Result<Course> {
    let mut course = resume(cx, trainee)?;
    checkpoint::discard_after(cx, course.step);
    let clock = Clock { earlier: course.seconds, began: Instant::now() };
    let mut alone = local::alone();
    loop {
        if course.validation_due(rules.validate_every, rules.steps) {
            validate(cx, trainee, &mut course, &clock)?;
        }
        if course.step >= rules.steps || course.is_exhausted(rules.patience) {
            tell(cx, rules, &course, course.step);
            course.seconds = clock.seconds();
            return Ok(course);
        }
        if let Err(stopped) = cx.check() {
            save(cx, trainee, &mut course, &clock)?;
            return Err(stopped);
        }
        let loss = step(&mut alone, trainee, course.step)?;
        course.step += 1;
        if !loss.is_finite() {
            let (key, learning_rate) = rules.learning_rate;
            return Err(Error::Diverged { stage: rules.stage, step: course.step, loss, key, learning_rate });
        }
        course.loss = Some(loss);
        tell(cx, rules, &course, rules.steps);
    }
}

/// A step of all members of a gang: each computes its slices, and all learn from the sum. Returns the loss.
pub(crate) fn step(gang: &mut dyn Collective, trainee: &mut dyn Trainee, step: u64) -> Result<f64> {
    let slices = trainee.begin(step)?;
    let (mut tree, mut losses) = (Tree::new(slices), Vec::new());
    for slice in slices_of(gang.rank(), gang.world(), slices) {
        let (gradients, loss) = trainee.slice(slice)?;
        tree.push(slice, gradients)?;
        losses.extend(loss.to_le_bytes());
    }
    let losses = gang.all_gather(losses)?.concat();
    let total = gang.all_reduce(tree, &trainee.parameters())?;
    trainee.apply(total)?;
    // Ranks come in the order of their slices.
    Ok(losses.chunks_exact(8).map(|eight| f64::from_le_bytes(std::array::from_fn(|i| eight[i]))).sum())
}

/// The course so far of the newest checkpoint that can be restored; a damaged one costs steps, not the training.
fn resume(cx: &Context, trainee: &mut dyn Trainee) -> Result<Course> {
    for found in checkpoint::newest_first::<Course>(cx)? {
        match trainee.restore(cx, &found) {
            Ok(()) => {
                tracing::info!(step = found.manifest.step, "training resumes from a checkpoint");
                return Ok(found.manifest);
            }
            Err(e) if e.class() == Class::Fatal => {
                tracing::warn!(folder = found.folder(), error = %e, "checkpoint is damaged, looking for an older one");
            }
            Err(e) => return Err(e),
        }
    }
    Ok(Course::default())
}

/// Validates the steps so far. A stop on the way keeps them: the next attempt validates first.
fn validate(cx: &Context, trainee: &mut dyn Trainee, course: &mut Course, clock: &Clock) -> Result<()> {
    let figure = match trainee.validate(cx) {
        Err(stopped @ Error::Stopped(_)) => {
            save(cx, trainee, course, clock)?;
            return Err(stopped);
        }
        outcome => outcome?,
    };
    if course.observe(figure) {
        trainee.keep(cx)?;
    }
    save(cx, trainee, course, clock)
}

/// Measures the time that went into a training, over all attempts.
struct Clock {
    /// Seconds of earlier attempts.
    earlier: f64,
    began: Instant,
}

impl Clock {
    fn seconds(&self) -> f64 {
        self.earlier + self.began.elapsed().as_secs_f64()
    }
}

fn save(cx: &Context, trainee: &dyn Trainee, course: &mut Course, clock: &Clock) -> Result<()> {
    course.seconds = clock.seconds();
    checkpoint::save(cx, course.step, course, trainee.files()?)
}

fn tell(cx: &mut Context, rules: &Rules, course: &Course, total: u64) {
    cx.progress(course.step, total, "steps", || {
        let loss = course.loss.map_or_else(String::new, |loss| format!("loss {loss:.3}  "));
        let best = match course.best {
            Some(best) => format!("best {} {best:.4} at {}", rules.metric, course.best_step),
            None => "not validated yet".to_owned(),
        };
        loss + &best
    });
}
