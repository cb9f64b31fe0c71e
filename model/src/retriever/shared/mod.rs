//! A retriever whose items are shared out over the members of a gang: for catalogues whose gradients are too many to be sent.
//!
//! Full cross-entropy has a gradient for every item, and a step over ten million items would move gigabytes. Here an item's
//! row is learnt where it lies: the catalogue is cut into *parts*, and every part is worked on by one member. What goes around
//! is of the size of a batch, whatever the catalogue: rows of the items that the step names, hidden states, a sum of
//! exponentials for each row and part, and the gradients of hidden states.
//!
//! Parts are of the catalogue and not of the gang, and are added in their order: any number of members learns the same, to the bit.
//!
//! Every member holds all parts, those of others as they were when everybody last gave what he had, and remembers what was said
//! about the steps since then. From both it can make the others' parts itself ([`SharedLruRec::settle`]), so no step is lost
//! with a member that dies.

mod exchange;
mod part;
mod settling;
mod step;
#[cfg(test)]
mod tests;

use kernels::{Tensor, rows};

use super::{LruRec, LruRecConfig, names};
use crate::params::{AdamW, AdamWConfig, Params};
use crate::{Error, Result, weights};
pub use exchange::Learnt;
use exchange::Pending;
use part::Part;
use step::Step;

/// The names of files of [`SharedLruRec::save`].
const BODY: &str = "body.safetensors";
const BODY_OPTIMIZER: &str = "body.optimizer.safetensors";

/// A retriever in training, its items in parts.
pub struct SharedLruRec {
    config: LruRecConfig,
    /// All but the items.
    body: Params,
    /// That of the body: it counts the steps.
    optimizer: AdamW,
    parts: Vec<Part>,
    /// The step that is not applied yet.
    pending: Option<Pending>,
    /// The steps that parts of others lack.
    heard: Vec<Step>,
}

impl SharedLruRec {
    /// Cuts a retriever that has not learnt anything.
    ///
    /// # Errors
    /// [`Error::Config`] for no parts; [`Error::Kernel`] if a device has no room.
    pub fn new(model: &LruRec, parts: usize, optimizer: &AdamWConfig) -> Result<Self> {
        if parts == 0 {
            return Err(Error::Config("a catalogue has one part at least".to_owned()));
        }
        let mut body = model.params.clone();
        let items = [body.remove(names::TOKEN)?, body.remove(names::OUTPUT_BIAS)?];
        let cut = |part: usize| part * model.config.classes() / parts;
        let parts = (0..parts).map(|part| Part::cut(&items, cut(part)..cut(part + 1), optimizer));
        Ok(Self {
            config: model.config.clone(),
            body,
            optimizer: AdamW::new(optimizer.clone()),
            parts: parts.collect::<Result<_>>()?,
            pending: None,
            heard: Vec::new(),
        })
    }

    /// The retriever in one piece.
    ///
    /// # Errors
    /// [`Error::Input`] if a part is not what its last step made of it, see [`SharedLruRec::settle`].
    pub fn whole(&self) -> Result<LruRec> {
        self.expect_complete()?;
        let joined = |name: &str| {
            let columns = |part: &Part| {
                let tensor = part.params().get(name)?.clone();
                let items = tensor.shape()[0];
                let shape = [items, tensor.len() / items];
                Ok(tensor.reshaped(&shape)?)
            };
            let filled = self.parts.iter().filter(|part| !part.is_empty());
            Ok::<_, Error>(rows::concat(&filled.map(columns).collect::<Result<Vec<_>>>()?)?)
        };
        let mut params = self.body.clone();
        params.insert(names::TOKEN, joined(names::TOKEN)?);
        params.insert(names::OUTPUT_BIAS, joined(names::OUTPUT_BIAS)?.reshaped(&[self.config.classes()])?);
        LruRec::with_params(self.config.clone(), params)
    }

    /// Checks that no part lacks a step.
    fn expect_complete(&self) -> Result<()> {
        let steps = self.optimizer.steps();
        match self.parts.iter().find(|part| part.steps() != steps) {
            Some(part) => Err(Error::Input(format!("items are at step {}, the rest at step {steps}", part.steps()))),
            None => Ok(()),
        }
    }

    /// Bytes that are remembered for parts of others, and bytes of all parts: once there are too many of the former it is time
    /// for [`SharedLruRec::settle`], which moves the latter.
    #[must_use]
    pub fn remembered_bytes(&self) -> (usize, usize) {
        (self.heard.iter().map(Step::bytes).sum(), self.parts.iter().map(Part::bytes).sum())
    }

    /// The files that hold the state of this training, moments included; the same state gives the same bytes.
    ///
    /// # Errors
    /// As [`SharedLruRec::whole`].
    pub fn save(&self) -> Result<Vec<(String, Vec<u8>)>> {
        self.expect_complete()?;
        let mut files = vec![
            (BODY.to_owned(), weights::to_bytes(&self.body)?),
            (BODY_OPTIMIZER.to_owned(), self.optimizer.save()?),
        ];
        for (number, part) in self.parts.iter().enumerate() {
            files.extend(part_names(number).into_iter().zip(part.save()?));
        }
        Ok(files)
    }

    /// Goes back to what [`SharedLruRec::save`] gave, or stays as it is where that fails.
    ///
    /// # Errors
    /// What `file` says of a file that is not there; [`Error`] for one of another training.
    pub fn restore<'a, E: From<Error>>(&mut self, file: impl Fn(&str) -> Result<&'a [u8], E>) -> Result<(), E> {
        let body = load_like(&self.body, "the retriever's weights", file(BODY)?)?;
        let optimizer = AdamW::load(self.optimizer.config().clone(), file(BODY_OPTIMIZER)?, &body)?;
        let loaded = |(number, part): (usize, &Part)| {
            let [weights, optimizer] = part_names(number);
            Ok(part.loaded(&[file(&weights)?, file(&optimizer)?])?)
        };
        let parts = self.parts.iter().enumerate().map(loaded).collect::<Result<_, E>>()?;
        (self.body, self.optimizer, self.parts) = (body, optimizer, parts);
        (self.pending, self.heard) = (None, Vec::new());
        Ok(())
    }
}

/// The names of a part's files: weights and optimiser.
fn part_names(number: usize) -> [String; 2] {
    ["safetensors", "optimizer.safetensors"].map(|kind| format!("items-{number:04}.{kind}"))
}

/// Tensors of the names and shapes of others, and beside them.
fn load_like(like: &Params, what: &str, bytes: &[u8]) -> Result<Params> {
    let found = weights::from_bytes_f32(what, bytes)?;
    found.expect_like(like)?;
    found.beside(like)
}

/// Numbers as bytes.
fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Numbers of so many members, one after the other.
fn from_bytes(all: &[Vec<u8>], expected: usize) -> Result<Vec<f32>> {
    let values: Vec<f32> =
        all.iter().flat_map(|bytes| bytes.as_chunks().0).map(|four| f32::from_le_bytes(*four)).collect();
    if values.len() != expected || all.iter().any(|bytes| bytes.len() % size_of::<f32>() != 0) {
        let what = format!("members say {} numbers where {expected} are due", values.len());
        return Err(kernels::Error::Gang(what).into());
    }
    Ok(values)
}

/// Numbers as rows of so many, in the memory where another tensor is.
fn rows_of(values: Vec<f32>, width: usize, beside: &Tensor) -> Result<Tensor> {
    Ok(Tensor::from_f32(&[values.len() / width.max(1), width], values)?.beside(beside)?)
}
