//! Named parameters, their gradients and the optimiser that updates them.
//!
//! Names are kept sorted: gradient buckets, norms and checkpoints must not depend on the order of a hash table.

mod optimizer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use kernels::collective::Bucket;
use kernels::{Device, Tensor};

use crate::{Error, Result};
pub use optimizer::{AdamW, AdamWConfig};

/// Named tensors in the order of their names: the parameters of a model, or their gradients.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    tensors: BTreeMap<String, Tensor>,
}

impl Params {
    /// No parameters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// Takes a tensor out.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if there is none of that name.
    pub fn remove(&mut self, name: &str) -> Result<Tensor> {
        self.tensors.remove(name).ok_or_else(|| missing(name))
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if there is none.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| missing(name))
    }

    /// The tensor of that name, to be changed.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if there is none.
    pub fn get_mut(&mut self, name: &str) -> Result<&mut Tensor> {
        self.tensors.get_mut(name).ok_or_else(|| missing(name))
    }

    /// Several different tensors, to be changed at the same time: what the backward of one layer writes to.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] names the first that is absent or asked for twice.
    pub fn get_many_mut<const N: usize>(&mut self, names: [&str; N]) -> Result<[&mut Tensor; N]> {
        let mut found: [Option<&mut Tensor>; N] = [const { None }; N];
        for (name, tensor) in &mut self.tensors {
            if let Some(i) = names.iter().position(|n| n == name) {
                found[i] = Some(tensor);
            }
        }
        if let Some(i) = found.iter().position(Option::is_none) {
            return Err(missing(names[i]));
        }
        Ok(found.map(|tensor| tensor.expect("every place was just checked to be filled")))
    }

    /// Whether there is a tensor of that name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Names and tensors in the order of names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Names and tensors in the order of names, to be changed.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&str, &mut Tensor)> {
        self.tensors.iter_mut().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensors in the order of their names.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &Tensor> {
        self.tensors.values()
    }

    /// The number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The number of elements of all tensors.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.tensors.values().map(Tensor::len).sum()
    }

    /// The same in the memory of a device; what is there already is shared.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the device has no room.
    pub fn on(&self, device: &Device) -> Result<Self> {
        self.iter().map(|(name, tensor)| Ok((name.to_owned(), device.put(tensor)?))).collect()
    }

    /// The same, every tensor in the memory where that of its name is in `other`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] for a name that `other` lacks; [`Error::Kernel`] if a device has no room.
    pub fn beside(&self, other: &Self) -> Result<Self> {
        self.iter().map(|(name, tensor)| Ok((name.to_owned(), tensor.beside(other.get(name)?)?))).collect()
    }

    /// Whether every value is a finite number.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.tensors().all(|t| t.to_f32().iter().all(|x| x.is_finite()))
    }

    /// Zeros of the same names and shapes: where gradients are collected.
    ///
    /// # Errors
    /// [`Error::Kernel`] if their device has no room.
    pub fn zeros_like(&self) -> Result<Self> {
        self.iter().map(|(name, tensor)| Ok((name.to_owned(), tensor.zeros_like()?))).collect()
    }

    /// The same values in memory of their own, which later changes of these do not reach.
    ///
    /// # Errors
    /// [`Error::Kernel`] if their device has no room.
    pub fn copied(&self) -> Result<Self> {
        let mut copy = self.zeros_like()?;
        copy.tensors.values_mut().zip(self.tensors.values()).try_for_each(|(copy, own)| copy.add(own))?;
        Ok(copy)
    }

    /// Sets every element to zero.
    ///
    /// # Errors
    /// [`Error::Kernel`] unless everything is f32.
    pub fn fill_zero(&mut self) -> Result<()> {
        for tensor in self.tensors.values_mut() {
            tensor.fill_zero()?;
        }
        Ok(())
    }

    /// All elements one after the other in the order of names, on the host.
    ///
    /// # Errors
    /// [`Error::Kernel`] unless everything is f32.
    pub fn to_flat(&self) -> Result<Vec<f32>> {
        let mut flat = Vec::with_capacity(self.elements());
        for tensor in self.tensors.values() {
            flat.extend_from_slice(tensor.to_host()?.f32()?);
        }
        Ok(flat)
    }

    /// All tensors in the order of names: what a collective sums.
    ///
    /// # Errors
    /// [`Error::Kernel`] unless everything is f32.
    pub fn into_bucket(self) -> Result<Bucket> {
        Ok(Bucket::new(self.tensors.into_values().collect())?)
    }

    /// Tensors of the form of [`Params::into_bucket`] under these names.
    ///
    /// # Errors
    /// [`Error::Input`] if there are more or fewer.
    pub fn named(&self, bucket: Bucket) -> Result<Self> {
        let tensors = bucket.into_tensors();
        if tensors.len() != self.len() {
            return Err(Error::Input(format!("{} tensors for {} parameters", tensors.len(), self.len())));
        }
        Ok(self.tensors.keys().cloned().zip(tensors).collect())
    }

    /// Checks that names and shapes are those of `expected`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::UnknownTensor`] or [`Error::TensorShape`], for the first name that differs.
    pub fn expect_like(&self, expected: &Self) -> Result<()> {
        for (name, tensor) in expected.iter() {
            let found = self.get(name)?;
            if found.shape() != tensor.shape() {
                let (found, expected) = (found.shape().to_vec(), tensor.shape().to_vec());
                return Err(Error::TensorShape { name: name.to_owned(), found, expected });
            }
        }
        match self.iter().find(|(name, _)| !expected.contains(name)) {
            Some((name, _)) => Err(Error::UnknownTensor { name: name.to_owned() }),
            None => Ok(()),
        }
    }
}

impl FromIterator<(String, Tensor)> for Params {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Self { tensors: tensors.into_iter().collect() }
    }
}

impl IntoIterator for Params {
    type Item = (String, Tensor);
    type IntoIter = std::collections::btree_map::IntoIter<String, Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.into_iter()
    }
}

fn missing(name: &str) -> Error {
    Error::MissingTensor { name: name.to_owned() }
}
