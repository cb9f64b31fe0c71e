//! A retriever whose items are shared out over the members, because their gradients are too many to be sent.

use std::cell::OnceCell;

use data::artifact::Digest;
use kernels::collective::{Bucket, Collective, Tree};
use kernels::{Device, Tensor};
use model::retriever::{LruRec, SharedLruRec, optimizer_config};

use super::lessons::Lessons;
use crate::Result;
use crate::context::{Context, Output};
use crate::early_stopping::Course;
use crate::gang::Word;
use crate::snapshot::Snapshot;
use crate::training::Trainee;

/// Bytes that a member remembers of steps before it asks for what others have learnt in them: half of what it then gets, and so
/// much at least.
const LEAST: usize = 64 << 20;

/// LRURec in training.
pub(super) struct Shared<'a> {
    lessons: Lessons<'a>,
    device: &'a Device,
    model: SharedLruRec,
    /// In one piece, once somebody wants it of the present step.
    whole: OnceCell<LruRec>,
    best: LruRec,
}

impl<'a> Shared<'a> {
    pub(super) fn new(lessons: Lessons<'a>, device: &'a Device) -> Result<Self> {
        let (best, s) = (lessons.fresh()?.on(device)?, lessons.settings);
        let optimizer = optimizer_config(s.learning_rate as f32, s.weight_decay as f32);
        let model = SharedLruRec::new(&best, s.slices as usize, &optimizer)?;
        Ok(Self { lessons, device, model, whole: OnceCell::new(), best })
    }

    fn whole(&self) -> Result<&LruRec> {
        if self.whole.get().is_none() {
            let whole = self.model.whole()?;
            self.whole.get_or_init(|| whole);
        }
        Ok(self.whole.get().expect("it is there by now"))
    }
}

impl Trainee for Shared<'_> {
    fn learn(&mut self, gang: &mut dyn Collective, step: u64, beat: &dyn Fn()) -> Result<(Tree, Word)> {
        let (slices, dropout) = (self.lessons.slices(step), self.lessons.dropout());
        let learnt = self.model.learn(gang, &slices, dropout, beat)?;
        let figures = learnt.losses.iter().map(|loss| loss.to_bits()).collect();
        let (trouble, spoilt) = (learnt.trouble.unwrap_or_default(), learnt.spoilt);
        Ok((learnt.tree, Word { step, figures, trouble, spoilt, ..Word::default() }))
    }

    fn parameters(&self) -> Vec<&Tensor> {
        self.model.parameters()
    }

    fn apply(&mut self, gang: &mut dyn Collective, total: Bucket) -> Result<()> {
        self.whole.take();
        Ok(self.model.apply(gang, total)?)
    }

    fn is_full(&self) -> bool {
        let (remembered, all) = self.model.remembered_bytes();
        remembered > LEAST.max(all / 2)
    }

    fn settle(&mut self, gang: &mut dyn Collective, holders: &[usize], goes_on: &dyn Fn() -> bool) -> Result<()> {
        Ok(self.model.settle(gang, holders, goes_on)?)
    }

    fn chunks(&self) -> usize {
        self.lessons.chunks()
    }

    fn validate(&mut self, cx: &Context, chunk: usize) -> Result<f64> {
        self.lessons.validate(cx, self.whole()?, chunk)
    }

    fn figure(&self, sums: &[f64]) -> Option<f64> {
        Some(self.lessons.figure(sums))
    }

    fn keep(&mut self) -> Result<()> {
        self.whole()?;
        if let Some(whole) = self.whole.take() {
            self.best = whole;
        }
        Ok(())
    }

    fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let (best, mut files) = (self.best.save()?, self.model.save()?);
        files.push(("best.safetensors".to_owned(), best.weights));
        files.push(("config.json".to_owned(), best.config));
        Ok(files)
    }

    fn restore(&mut self, from: &Snapshot) -> Result<()> {
        let (items, config) = (self.best.config().items, from.file("config.json")?);
        let best = LruRec::load(from.file("best.safetensors")?, config, items)?.on(self.device)?;
        self.model.restore(|name| from.file(name).map(|bytes| &bytes[..]))?;
        self.best = best;
        self.whole.take();
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
