//! A retriever that every member has all of: slices are shared out.

use data::artifact::Digest;
use kernels::collective::{Bucket, Collective, Tree};
use kernels::{Device, Tensor};
use model::params::{AdamW, Params};
use model::retriever::{LruRec, PackedBatch, Recordings, optimizer_config};

use super::lessons::Lessons;
use crate::Result;
use crate::context::{Context, Output};
use crate::early_stopping::Course;
use crate::gang::Word;
use crate::snapshot::Snapshot;
use crate::training::{Sliced, Trainee, slices};

/// LRURec in training.
pub(super) struct Whole<'a> {
    lessons: Lessons<'a>,
    device: &'a Device,
    recordings: Recordings,
    /// Those of the present step.
    slices: Vec<PackedBatch>,
    /// The gradients of the present slice.
    grads: Params,
    pub(super) model: LruRec,
    pub(super) optimizer: AdamW,
    best: LruRec,
}

impl<'a> Whole<'a> {
    pub(super) fn new(lessons: Lessons<'a>, device: &'a Device) -> Result<Self> {
        let model = lessons.fresh()?.on(device)?;
        let s = lessons.settings;
        let optimizer = AdamW::new(optimizer_config(s.learning_rate as f32, s.weight_decay as f32));
        let (best, grads) = (model.clone(), model.params().zeros_like()?);
        let (recordings, slices) = (Recordings::default(), Vec::new());
        Ok(Self { lessons, device, recordings, slices, grads, model, optimizer, best })
    }
}

impl Sliced for Whole<'_> {
    fn begin(&mut self, step: u64) -> Result<usize> {
        self.slices = self.lessons.slices(step);
        Ok(self.slices.len())
    }

    fn slice(&mut self, slice: usize) -> Result<(Bucket, f64)> {
        let rows = self.slices.iter().map(PackedBatch::taught).sum();
        let (batch, dropout) = (self.slices[slice].clone(), self.lessons.dropout());
        // A device replays what it knows: the memory that it writes to has to stay where it is.
        let (recordings, grads) = (&mut self.recordings, &mut self.grads);
        let loss = self.model.gradients_on(self.device, recordings, batch, (rows, dropout), grads)?;
        let grads = match self.device.is_cpu() {
            true => std::mem::replace(&mut self.grads, self.model.params().zeros_like()?),
            false => self.grads.copied()?,
        };
        Ok((grads.into_bucket()?, loss / rows as f64))
    }
}

impl Trainee for Whole<'_> {
    fn learn(&mut self, gang: &mut dyn Collective, step: u64, beat: &dyn Fn()) -> Result<(Tree, Word)> {
        slices(self, gang, step, beat)
    }

    fn parameters(&self) -> Vec<&Tensor> {
        self.model.params().tensors().collect()
    }

    fn apply(&mut self, _: &mut dyn Collective, total: Bucket) -> Result<()> {
        let grads = self.model.params().named(total)?;
        self.model.update(&grads, &mut self.optimizer)?;
        Ok(())
    }

    fn chunks(&self) -> usize {
        self.lessons.chunks()
    }

    fn validate(&mut self, cx: &Context, chunk: usize) -> Result<f64> {
        self.lessons.validate(cx, &self.model, chunk)
    }

    fn figure(&self, sums: &[f64]) -> Option<f64> {
        Some(self.lessons.figure(sums))
    }

    fn keep(&mut self) -> Result<()> {
        self.best = self.model.clone();
        Ok(())
    }

    fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let model = self.model.save()?;
        let files = [
            ("model.safetensors", model.weights),
            ("config.json", model.config),
            ("best.safetensors", self.best.save()?.weights),
            ("optimizer.safetensors", self.optimizer.save()?),
        ];
        Ok(files.map(|(name, bytes)| (name.to_owned(), bytes)).into())
    }

    fn restore(&mut self, from: &Snapshot) -> Result<()> {
        let (items, config) = (self.model.config().items, from.file("config.json")?);
        let model = LruRec::load(from.file("model.safetensors")?, config, items)?.on(self.device)?;
        let best = LruRec::load(from.file("best.safetensors")?, config, items)?.on(self.device)?;
        let optimizer = from.file("optimizer.safetensors")?;
        self.optimizer = AdamW::load(self.optimizer.config().clone(), optimizer, model.params())?;
        (self.model, self.best) = (model, best);
        Ok(())
    }

    fn loaded(&self) -> Result<Digest> {
        Ok(self.lessons.digest())
    }

    fn about(&self, step: u64) -> String {
        self.lessons.about(step)
    }

    fn output(&mut self, course: &Course, _: &dyn Fn()) -> Result<Output> {
        self.lessons.output(&self.best, course)
    }
}
