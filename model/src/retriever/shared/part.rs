//! Some items of a catalogue, with all that they learn by.

use std::ops::Range;

use kernels::grad_norm::Clipping;
use kernels::{Tensor, embedding, linear_cross_entropy};

use super::step::Step;
use super::{load_like, rows_of};
use crate::params::{AdamW, AdamWConfig, Params};
use crate::retriever::names;
use crate::{Result, weights};

/// Neighbouring items.
pub(super) struct Part {
    classes: Range<usize>,
    /// Embeddings and biases of these classes alone.
    params: Params,
    /// It counts the steps that these have learnt from.
    optimizer: AdamW,
}

impl Part {
    /// Copies some rows of `[embeddings, biases]`.
    pub(super) fn cut([token, bias]: &[Tensor; 2], classes: Range<usize>, optimizer: &AdamWConfig) -> Result<Self> {
        let ids: Vec<u32> = classes.clone().map(|class| class as u32).collect();
        let biases = bias.to_host()?.f32()?[classes.clone()].to_vec();
        let mut params = Params::new();
        params.insert(names::TOKEN, embedding::forward(token, &ids)?);
        params.insert(names::OUTPUT_BIAS, Tensor::from_f32(&[classes.len()], biases)?.beside(bias)?);
        Ok(Self { classes, params, optimizer: AdamW::new(optimizer.clone()) })
    }

    pub(super) fn params(&self) -> &Params {
        &self.params
    }

    #[cfg(test)]
    pub(super) fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    #[cfg(test)]
    pub(super) fn classes(&self) -> &Range<usize> {
        &self.classes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// Bytes of parameters and moments.
    pub(super) fn bytes(&self) -> usize {
        3 * size_of::<f32>() * self.params.elements()
    }

    /// The steps that these items have learnt from.
    pub(super) fn steps(&self) -> u64 {
        self.optimizer.steps()
    }

    /// Where the items of this part are among sorted ones.
    pub(super) fn among(&self, sorted: &[u32]) -> Range<usize> {
        let place = |class: usize| sorted.partition_point(|item| (*item as usize) < class);
        place(self.classes.start)..place(self.classes.end)
    }

    /// The rows of this part that items of it have.
    fn own_rows(&self, items: &[u32]) -> Vec<u32> {
        items.iter().map(|item| item - self.classes.start as u32).collect()
    }

    /// Embeddings of some items, each with its bias behind it, on the host.
    pub(super) fn rows(&self, items: &[u32]) -> Result<Vec<f32>> {
        let (rows, bias) = (self.own_rows(items), self.params.get(names::OUTPUT_BIAS)?);
        let biases = match bias.f32() {
            Ok(all) => rows.iter().map(|row| all[*row as usize]).collect(),
            // On a device the same memory serves as a column.
            Err(_) => embedding::forward(&bias.clone().reshaped(&[self.classes.len(), 1])?, &rows)?.to_f32(),
        };
        let token = embedding::forward(self.params.get(names::TOKEN)?, &rows)?.to_f32();
        let width = token.len() / rows.len().max(1);
        let with_bias = |(token, bias): (&[f32], f32)| token.iter().copied().chain([bias]).collect::<Vec<_>>();
        Ok(token.chunks(width.max(1)).zip(biases).flat_map(with_bias).collect())
    }

    /// The log of the sum of exponentials of these items, for every row.
    pub(super) fn log_sum_exp(&self, hidden: &Tensor) -> Result<Vec<f32>> {
        if self.is_empty() {
            return Ok(vec![f32::MIN; hidden.rows()]);
        }
        let [token, bias] = [self.params.get(names::TOKEN)?, self.params.get(names::OUTPUT_BIAS)?];
        Ok(linear_cross_entropy::log_sum_exp(hidden, token, Some(bias))?.to_f32())
    }

    /// What these items give the gradient of the hidden states, labels apart, and their own gradients by way of the output.
    pub(super) fn gradients(&self, step: &Step) -> Result<(Tensor, Params)> {
        let mut grads = self.params.zeros_like()?;
        let [token, bias] = [self.params.get(names::TOKEN)?, self.params.get(names::OUTPUT_BIAS)?];
        let hidden = step.hidden.beside(token)?;
        if self.is_empty() {
            return Ok((hidden.zeros_like()?, grads));
        }
        let [d_bias, d_token] = grads.get_many_mut([names::OUTPUT_BIAS, names::TOKEN])?;
        let to = linear_cross_entropy::Grads { dw: Some(d_token), db: Some(d_bias) };
        let scale = vec![step.scale(); step.rows()];
        let d_hidden = linear_cross_entropy::log_sum_exp_backward(&hidden, token, Some(bias), &step.lse, &scale, to)?;
        self.add_labels(step, &hidden, &mut grads)?;
        Ok((d_hidden, grads))
    }

    /// Every row takes its share from the item that it should have named.
    fn add_labels(&self, step: &Step, hidden: &Tensor, grads: &mut Params) -> Result<()> {
        let (rows, items) = step.labelled(&self.among(&step.named));
        let (places, scale) = (self.own_rows(&items), step.scale());
        let of_rows = embedding::forward(hidden, &rows)?.to_f32().into_iter().map(|x| -scale * x).collect();
        embedding::backward(&rows_of(of_rows, hidden.cols(), hidden)?, &places, grads.get_mut(names::TOKEN)?)?;
        // A bias is a row of one.
        let mut d_bias = grads.remove(names::OUTPUT_BIAS)?.reshaped(&[self.classes.len(), 1])?;
        embedding::backward(&rows_of(vec![-scale; places.len()], 1, hidden)?, &places, &mut d_bias)?;
        grads.insert(names::OUTPUT_BIAS, d_bias.reshaped(&[self.classes.len()])?);
        Ok(())
    }

    /// Adds the gradients of items by way of the input.
    pub(super) fn add_inputs(&self, step: &Step, grads: &mut Params) -> Result<()> {
        let among = self.among(&step.named);
        let width = step.hidden.cols();
        let values = step.inputs[among.start * width..among.end * width].to_vec();
        let places = self.own_rows(&step.named[among]);
        let d_token = grads.get_mut(names::TOKEN)?;
        Ok(embedding::backward(&rows_of(values, width, d_token)?, &places, d_token)?)
    }

    pub(super) fn update(&mut self, grads: &Params, clipping: &Clipping) -> Result<()> {
        self.optimizer.update_clipped(&mut self.params, grads, clipping)
    }

    /// All of a step that others have made.
    pub(super) fn learn(&mut self, step: &Step) -> Result<()> {
        let (_, mut grads) = self.gradients(step)?;
        self.add_inputs(step, &mut grads)?;
        self.update(&grads, &step.clipping)
    }

    /// Weights and optimiser.
    pub(super) fn save(&self) -> Result<[Vec<u8>; 2]> {
        Ok([weights::to_bytes(&self.params)?, self.optimizer.save()?])
    }

    /// The same items as [`Part::save`] gave them.
    pub(super) fn loaded(&self, [weights, optimizer]: &[impl AsRef<[u8]>; 2]) -> Result<Self> {
        let params = load_like(&self.params, "the retriever's items", weights.as_ref())?;
        let optimizer = AdamW::load(self.optimizer.config().clone(), optimizer.as_ref(), &params)?;
        Ok(Self { classes: self.classes.clone(), params, optimizer })
    }
}
