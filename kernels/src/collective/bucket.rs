//! What is summed: the gradients of all parameters, in one order.

use crate::{Dtype, Error, Result, Tensor, grad_norm};

const OP: &str = "collective::bucket";

/// Tensors of f32 that are summed together, the same ones in the same order at every member: gradients in the order of their
/// parameters' names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bucket {
    tensors: Vec<Tensor>,
}

impl Bucket {
    /// A bucket of tensors, all f32.
    ///
    /// # Errors
    /// [`Error::Dtype`] for the first that is not.
    pub fn new(tensors: Vec<Tensor>) -> Result<Self> {
        tensors.iter().try_for_each(|tensor| tensor.expect_dtype(OP, "tensor", Dtype::F32))?;
        Ok(Self { tensors })
    }

    /// The tensors.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensors, to be taken apart.
    #[must_use]
    pub fn into_tensors(self) -> Vec<Tensor> {
        self.tensors
    }

    /// The number of elements of all tensors.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.tensors.iter().map(Tensor::len).sum()
    }

    /// Whether every element is a finite number.
    ///
    /// # Errors
    /// If the tensors cannot be read from their device.
    pub fn is_finite(&self) -> Result<bool> {
        // The sum of the squares of numbers is one, in double precision; it is added where they lie.
        Ok(grad_norm::l2(&self.tensors)?.is_finite())
    }

    /// Adds another bucket, element by element, where the tensors lie.
    ///
    /// # Errors
    /// [`Error::Gang`] if it has more or fewer tensors; those of [`Tensor::add`].
    pub fn add(&mut self, other: &Self) -> Result<()> {
        if self.tensors.len() != other.tensors.len() {
            let what = format!("a bucket of {} tensors and one of {}", self.tensors.len(), other.tensors.len());
            return Err(Error::Gang(what));
        }
        self.tensors.iter_mut().zip(&other.tensors).try_for_each(|(own, other)| own.add(other))
    }

    /// All elements one after the other, on the host.
    pub(super) fn to_flat(&self) -> Result<Vec<f32>> {
        let mut flat = Vec::with_capacity(self.elements());
        for tensor in &self.tensors {
            flat.extend_from_slice(tensor.to_host()?.f32()?);
        }
        Ok(flat)
    }

    /// Tensors of the shapes of others, where those lie, with the elements of [`Bucket::to_flat`].
    pub(super) fn from_flat(mut flat: &[f32], like: &[&Tensor]) -> Result<Self> {
        let mut tensors = Vec::with_capacity(like.len());
        for tensor in like {
            let (head, tail) = flat.split_at(tensor.len());
            tensors.push(Tensor::from_f32(tensor.shape(), head.to_vec())?.beside(tensor)?);
            flat = tail;
        }
        Ok(Self { tensors })
    }
}
