//! Training steps on a device that are asked for in one piece.

use kernels::{Device, Recording};

use super::{Dropout, LruRec, PackedBatch, StepReport, sum};
use crate::{
    Result,
    params::{AdamW, Params},
};

/// The most shapes of batches that are remembered; together they keep the memory of about one step.
const MOST_SHAPES: usize = 4;
/// Rows of a batch are rounded up to a multiple of this, or of an eighth of the next power of two.
const LEAST_ROWS: usize = 64;

/// Training steps that were recorded, one for every shape of a batch: those used last at the end.
#[derive(Debug, Default)]
pub struct Recordings {
    steps: Vec<(Shape, Recording)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    rows: usize,
    sequences: usize,
}

impl Shape {
    /// The shape to which a batch is padded: few shapes for batches of about one size, and less than a quarter of
    /// padding for large ones.
    fn around(batch: &PackedBatch) -> Self {
        let (rows, sequences) = (batch.rows(), batch.segments.len());
        let step = (rows.next_power_of_two() / 8).max(LEAST_ROWS);
        // The padding is a sequence of its own.
        Self { rows: rows.next_multiple_of(step), sequences: (sequences + 1).next_power_of_two() }
    }
}

impl Recordings {
    /// How often a step was recorded, and how often one was replayed, of the shapes that are remembered.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let add = |(a, b): (u64, u64), (_, step): &(Shape, Recording)| (a + step.recorded(), b + step.replayed());
        self.steps.iter().fold((0, 0), add)
    }

    /// The recording of a shape, which may be a new one.
    fn of(&mut self, shape: Shape) -> &mut Recording {
        let known = match self.steps.iter().position(|(other, _)| *other == shape) {
            Some(place) => self.steps.remove(place),
            None => (shape, Recording::default()),
        };
        if self.steps.len() == MOST_SHAPES {
            self.steps.remove(0);
        }
        self.steps.push(known);
        &mut self.steps.last_mut().expect("one was put there").1
    }
}

impl LruRec {
    /// [`LruRec::train_step`] on the device where the retriever is, which is given the whole step at once: it takes some
    /// hundred small kernels, and asking for each of them would take longer than they do. Batches are padded to a few shapes
    /// for this. On the CPU it is [`LruRec::train_step`].
    ///
    /// # Errors
    /// As [`LruRec::train_step`].
    pub fn train_step_on(
        &mut self,
        device: &Device,
        recordings: &mut Recordings,
        batch: PackedBatch,
        optimizer: &mut AdamW,
        dropout: Dropout,
    ) -> Result<StepReport> {
        if device.is_cpu() {
            return self.train_step(&batch, optimizer, dropout);
        }
        let shape = Shape::around(&batch);
        let batch = batch.padded(shape.rows, shape.sequences);
        device.replayed(recordings.of(shape), || self.train_step(&batch, optimizer, dropout))
    }

    /// [`LruRec::loss_and_gradients`] on the device where the retriever is, given to it at once as
    /// [`LruRec::train_step_on`] is. `grads` are made zero first.
    ///
    /// # Errors
    /// As [`LruRec::loss_and_gradients`].
    pub fn gradients_on(
        &self,
        device: &Device,
        recordings: &mut Recordings,
        batch: PackedBatch,
        (rows_of_step, dropout): (usize, Dropout),
        grads: &mut Params,
    ) -> Result<f64> {
        let mut compute = |batch: &PackedBatch| {
            grads.fill_zero()?;
            let losses = self.gradients(batch, rows_of_step, dropout, grads)?;
            sum(&losses, batch.taught())
        };
        if device.is_cpu() {
            return compute(&batch);
        }
        let shape = Shape::around(&batch);
        let batch = batch.padded(shape.rows, shape.sequences);
        device.replayed(recordings.of(shape), || compute(&batch))
    }
}
