//! A step, as members make it together: what each computes, and what they tell each other in between.
//!
//! ```text
//! parts   rows of the named items            ─► to all
//! slices  hidden states                      ─► to all
//! parts   sums of exponentials               ─► to all
//! parts   gradients of the hidden states     ─► summed
//! slices  gradients of body and named items  ─► summed by the caller
//! parts   squares of their gradients         ─► to all: everybody learns
//! ```

use std::ops::Range;

use kernels::collective::{Bucket, Collective, Tree, slices_of};
use kernels::grad_norm::{self, Clipping};
use kernels::{Tensor, embedding};

use super::part::Part;
use super::step::{Labels, Step, merged, named, places};
use super::{SharedLruRec, from_bytes, rows_of, to_bytes};
use crate::params::Params;
use crate::retriever::network::{self, Activations};
use crate::retriever::{Dropout, PackedBatch, names};
use crate::{Error, Result};

/// What a member brings from its slices of a step.
pub struct Learnt {
    /// The gradients of the body and of the rows of named items: to be summed with the others' and given to
    /// [`SharedLruRec::apply`].
    pub tree: Tree,
    /// The loss of each own slice, divided by the rows of the step.
    pub losses: Vec<f64>,
    /// What this member has made that is no number, if nobody before it has.
    pub trouble: Option<String>,
    /// Whether something is no number, whoever has made it.
    pub spoilt: bool,
}

/// A step whose gradients are there, but for those that the caller sums.
pub(super) struct Pending {
    step: Step,
    /// The gradients of own parts.
    grads: Vec<Params>,
    /// The body, and the rows of the named items in the place of all.
    compact: Params,
}

impl SharedLruRec {
    /// The parts that a rank works on.
    pub(super) fn own_parts(&self, gang: &dyn Collective) -> Range<usize> {
        slices_of(gang.rank(), gang.world(), self.parts.len())
    }

    /// Tensors with the shapes of what is summed, behind [`SharedLruRec::learn`].
    #[must_use]
    pub fn parameters(&self) -> Vec<&Tensor> {
        self.pending.iter().flat_map(|pending| pending.compact.tensors()).collect()
    }

    /// Makes the gradients of a step together with the others of a gang, who all bring the same slices; `beat` is called
    /// behind each piece of work. Nothing is learnt before [`SharedLruRec::apply`].
    ///
    /// # Errors
    /// [`Error::Input`] for slices without labels, or items beyond the catalogue; [`Error::Kernel`] if a member is gone:
    /// nothing has changed then.
    pub fn learn(
        &mut self,
        gang: &mut dyn Collective,
        batches: &[PackedBatch],
        dropout: Dropout,
        beat: &dyn Fn(),
    ) -> Result<Learnt> {
        self.check(batches)?;
        let blame = Blame::default();
        let mut exchange = Exchange { model: self, gang, batches, named: named(batches), dropout, beat, blame };
        let (token, bias) = exchange.named_items()?;
        let mut compact = self.body.clone();
        compact.insert(names::TOKEN, token);
        let token = compact.get(names::TOKEN)?;

        let slices = exchange.forward(&compact)?;
        let hidden = exchange.hidden_states(&slices, token)?;
        let lse = exchange.log_sum_exp(&hidden)?;
        let step = exchange.step(hidden, lse);
        let labels = Labels::of(&step, token, &bias)?;
        let (mut d_hidden, grads) = exchange.backward_parts(&step)?;
        d_hidden.add(&labels.gradient()?.beside(&d_hidden)?)?;
        let losses = slices.iter().map(|slice| labels.loss(slice.rows.clone())).collect();
        let tree = exchange.backward(&compact, &slices, &d_hidden)?;

        let Blame { spoilt, trouble } = exchange.blame;
        self.pending = Some(Pending { step, grads, compact });
        Ok(Learnt { tree, losses, trouble, spoilt })
    }

    /// Learns from the sum of what all have brought.
    ///
    /// # Errors
    /// [`Error::Input`] if there is nothing to learn from; [`Error::Kernel`] if a member is gone, or if gradients are no
    /// numbers: nothing has changed then.
    pub fn apply(&mut self, gang: &mut dyn Collective, total: Bucket) -> Result<()> {
        let pending = self.pending.take().ok_or_else(|| Error::Input("there is no step to learn from".to_owned()))?;
        let Pending { mut step, mut grads, compact } = pending;
        let mut of_body = compact.named(total)?;
        step.inputs = of_body.remove(names::TOKEN)?.to_f32();
        let own = self.own_parts(gang);
        let mut of_parts = Vec::new();
        for (part, grads) in self.parts[own.clone()].iter().zip(&mut grads) {
            part.add_inputs(&step, grads)?;
            of_parts.push(squares(grads)?);
        }
        let squares = sum_of_squares(gang, squares(&of_body)?, &of_parts)?;
        step.clipping = Clipping::known(squares.sqrt(), self.optimizer.config().max_grad_norm);

        self.optimizer.update_clipped(&mut self.body, &of_body, &step.clipping)?;
        for (part, grads) in self.parts[own].iter_mut().zip(&grads) {
            part.update(grads, &step.clipping)?;
        }
        if gang.world() > 1 {
            step.hidden = step.hidden.to_host()?; // it may be long until somebody asks
            self.heard.push(step);
        }
        Ok(())
    }

    fn check(&self, batches: &[PackedBatch]) -> Result<()> {
        for batch in batches {
            if batch.labels.len() != batch.rows() || batch.taught() != batch.rows() {
                let what = format!("{} labels for {} rows of training", batch.labels.len(), batch.rows());
                return Err(Error::Input(what));
            }
            let classes = self.config.classes();
            if let Some(item) = batch.ids.iter().chain(&batch.labels).find(|item| **item as usize >= classes) {
                return Err(Error::Input(format!("item {item} of a catalogue of {}", self.config.items)));
            }
        }
        match batches.iter().any(|batch| batch.rows() > 0) {
            true => Ok(()),
            false => Err(Error::Input("a step without rows".to_owned())),
        }
    }
}

/// Who has made the first thing that is no number: what others make of such things is not their fault.
#[derive(Default)]
struct Blame {
    spoilt: bool,
    trouble: Option<String>,
}

impl Blame {
    fn hears(&mut self, values: &[f32]) {
        self.spoilt |= !values.iter().all(|value| value.is_finite());
    }

    fn makes(&mut self, what: &str, are_numbers: bool) {
        if !self.spoilt && !are_numbers {
            (self.spoilt, self.trouble) = (true, Some(format!("{what} are no numbers")));
        }
    }
}

/// One slice of a step.
struct Slice {
    batch: PackedBatch,
    hidden: Tensor,
    activations: Activations,
    /// Its rows among those of all slices.
    rows: Range<usize>,
}

/// A step on its way.
struct Exchange<'a> {
    model: &'a SharedLruRec,
    gang: &'a mut dyn Collective,
    batches: &'a [PackedBatch],
    named: Vec<u32>,
    dropout: Dropout,
    beat: &'a dyn Fn(),
    blame: Blame,
}

impl<'a> Exchange<'a> {
    /// The parts of this member.
    fn own(&self) -> &'a [Part] {
        &self.model.parts[self.model.own_parts(self.gang)]
    }

    /// Tells what this member has made, and hears so many numbers of all, by rank.
    fn tell(&mut self, what: &str, own: &[f32], expected: usize) -> Result<Vec<f32>> {
        self.blame.makes(what, own.iter().all(|value| value.is_finite()));
        let all = from_bytes(&self.gang.all_gather(to_bytes(own))?, expected)?;
        self.blame.hears(&all);
        Ok(all)
    }

    /// Embeddings and biases of the named items, each from who works on it.
    fn named_items(&mut self) -> Result<(Tensor, Vec<f32>)> {
        let mut own = Vec::new();
        for part in self.own() {
            own.extend(part.rows(&self.named[part.among(&self.named)])?);
        }
        let width = self.model.config.hidden;
        let rows = self.tell("rows of items", &own, self.named.len() * (width + 1))?;
        let (mut tokens, mut biases) = (Vec::with_capacity(self.named.len() * width), Vec::new());
        for row in rows.chunks_exact(width + 1) {
            tokens.extend_from_slice(&row[..width]);
            biases.push(row[width]);
        }
        Ok((rows_of(tokens, width, self.model.body.get(names::EMBEDDING_NORM[0])?)?, biases))
    }

    /// The slices of this member.
    fn forward(&self, compact: &Params) -> Result<Vec<Slice>> {
        let own = slices_of(self.gang.rank(), self.gang.world(), self.batches.len());
        let mut first = self.batches[..own.start].iter().map(PackedBatch::rows).sum();
        let slice = |batch: &PackedBatch| {
            let mut batch = batch.clone();
            batch.ids = places(&batch.ids, &self.named);
            let (hidden, activations) = network::forward(compact, self.model.config.layers, &batch, self.dropout)?;
            (self.beat)();
            let rows = first..first + batch.rows();
            first = rows.end;
            Ok(Slice { batch, hidden, activations, rows })
        };
        self.batches[own].iter().map(slice).collect()
    }

    /// The hidden states of all slices, beside another tensor.
    fn hidden_states(&mut self, slices: &[Slice], beside: &Tensor) -> Result<Tensor> {
        let own: Vec<f32> = slices.iter().flat_map(|slice| slice.hidden.to_f32()).collect();
        let (rows, width): (usize, _) = (self.batches.iter().map(PackedBatch::rows).sum(), self.model.config.hidden);
        rows_of(self.tell("hidden states", &own, rows * width)?, width, beside)
    }

    /// The log of the sum of exponentials of every row, over all items.
    fn log_sum_exp(&mut self, hidden: &Tensor) -> Result<Vec<f32>> {
        let mut own = Vec::new();
        for part in self.own() {
            own.extend(part.log_sum_exp(hidden)?);
            (self.beat)();
        }
        let all = self.tell("sums of exponentials", &own, self.model.parts.len() * hidden.rows())?;
        Ok(merged(&all, hidden.rows()))
    }

    /// What is known by now.
    fn step(&self, hidden: Tensor, lse: Vec<f32>) -> Step {
        Step {
            number: self.model.optimizer.steps() + 1,
            named: self.named.clone(),
            labels: self.batches.iter().flat_map(|batch| places(&batch.labels, &self.named)).collect(),
            hidden,
            lse,
            inputs: Vec::new(),
            clipping: Clipping::known(0.0, None),
        }
    }

    /// The gradient of the hidden states from all items, labels apart, and the gradients of own parts by way of the output.
    fn backward_parts(&mut self, step: &Step) -> Result<(Tensor, Vec<Params>)> {
        let (mut tree, mut all) = (Tree::new(self.model.parts.len()), Vec::new());
        for (number, part) in self.model.own_parts(self.gang).zip(self.own()) {
            let (d_hidden, grads) = part.gradients(step)?;
            let bucket = Bucket::new(vec![d_hidden])?;
            self.blame.makes("gradients of items", bucket.is_finite()?);
            tree.push(number, bucket)?;
            all.push(grads);
            (self.beat)();
        }
        let total = self.gang.all_reduce(tree, &[&step.hidden])?.into_tensors().remove(0);
        self.blame.hears(&total.to_f32());
        Ok((total, all))
    }

    /// The gradients of own slices.
    fn backward(&mut self, compact: &Params, slices: &[Slice], d_hidden: &Tensor) -> Result<Tree> {
        let mut tree = Tree::new(self.batches.len());
        let own = slices_of(self.gang.rank(), self.gang.world(), self.batches.len());
        for (number, slice) in own.zip(slices) {
            let rows: Vec<u32> = slice.rows.clone().map(|row| row as u32).collect();
            let d_hidden = embedding::forward(d_hidden, &rows)?;
            let mut grads = compact.zeros_like()?;
            network::backward(compact, &slice.batch, self.dropout, &slice.activations, d_hidden, &mut grads)?;
            let bucket = grads.into_bucket()?;
            self.blame.makes("gradients of a slice", bucket.is_finite()?);
            tree.push(number, bucket)?;
            (self.beat)();
        }
        Ok(tree)
    }
}

/// The sum of the squares of gradients.
fn squares(grads: &Params) -> Result<f64> {
    Ok(grad_norm::l2(grads.tensors())?.powi(2))
}

/// The sum of the squares of all gradients, those of parts in their order; the same for everybody.
fn sum_of_squares(gang: &mut dyn Collective, of_body: f64, of_own_parts: &[f64]) -> Result<f64> {
    let all = gang.all_gather(of_own_parts.iter().flat_map(|squares| squares.to_le_bytes()).collect())?.concat();
    let sum = all.as_chunks().0.iter().fold(of_body, |sum, part| sum + f64::from_le_bytes(*part));
    match sum.is_finite() {
        true => Ok(sum),
        false => Err(kernels::Error::Gang("the gradients of items are no numbers".to_owned()).into()),
    }
}
