//! The weights of a HF folder, memory-mapped and read tensor by tensor.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
};

use kernels::Tensor;
use memmap2::Mmap;
use safetensors::SafeTensors;
use serde::Deserialize;

use crate::{Error, Result, params::Params, weights};

/// Where a network takes its weights from.
pub trait TensorSource {
    /// The tensor of that name, as f32.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if there is none.
    fn tensor(&self, name: &str) -> Result<Tensor>;

    /// The tensor of that name, checked against the shape that the configuration asks for.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] or [`Error::TensorShape`].
    fn shaped(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = self.tensor(name)?;
        if tensor.shape() == shape {
            return Ok(tensor);
        }
        Err(Error::TensorShape { name: name.to_owned(), found: tensor.shape().to_vec(), expected: shape.to_vec() })
    }
}

impl TensorSource for Params {
    fn tensor(&self, name: &str) -> Result<Tensor> {
        self.get(name).cloned()
    }
}

/// A HF folder: `model.safetensors`, or several parts with `model.safetensors.index.json`.
pub struct Checkpoint {
    parts: Vec<(PathBuf, Mmap)>,
    /// Tensor name to the part that holds it.
    places: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Maps the files of a folder.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file that cannot be read; [`Error::Safetensors`] for a broken one; [`Error::Config`] for
    /// a broken index or one that points out of the folder.
    pub fn open(folder: &Path) -> Result<Self> {
        let index = folder.join("model.safetensors.index.json");
        let names: BTreeSet<String> = if index.exists() {
            let text = std::fs::read(&index).map_err(|source| io(&index, source))?;
            let index: Index =
                serde_json::from_slice(&text).map_err(|e| Error::Config(format!("{}: {e}", index.display())))?;
            index.weight_map.into_values().collect()
        } else {
            BTreeSet::from(["model.safetensors".to_owned()])
        };
        let (mut parts, mut places) = (Vec::new(), BTreeMap::new());
        for name in names {
            if Path::new(&name).components().count() != 1 || name.contains("..") {
                return Err(Error::Config(format!("the index names `{name}`, which is not a file of the folder")));
            }
            let path = folder.join(name);
            let map = map(&path)?;
            let file = open(&path, &map)?;
            places.extend(file.names().into_iter().map(|tensor| (tensor.to_owned(), parts.len())));
            parts.push((path, map));
        }
        Ok(Self { parts, places })
    }

    /// Checks, from the headers alone, that a tensor is there and has the shape that the configuration asks for.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`], [`Error::TensorType`].
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let missing = || Error::MissingTensor { name: name.to_owned() };
        let (path, map) = &self.parts[*self.places.get(name).ok_or_else(missing)?];
        let file = open(path, map)?;
        let view = file.tensor(name).map_err(|_| missing())?;
        if view.shape() != shape {
            let (found, expected) = (view.shape().to_vec(), shape.to_vec());
            return Err(Error::TensorShape { name: name.to_owned(), found, expected });
        }
        weights::check_type(name, view.dtype())
    }

    /// Whether there is a tensor of that name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }
}

impl TensorSource for Checkpoint {
    fn tensor(&self, name: &str) -> Result<Tensor> {
        let missing = || Error::MissingTensor { name: name.to_owned() };
        let (path, map) = &self.parts[*self.places.get(name).ok_or_else(missing)?];
        let view = open(path, map)?.tensor(name).map_err(|_| missing())?;
        weights::cast(&weights::to_tensor(name, &view)?, kernels::Dtype::F32)
    }
}

fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|source| io(path, source))?;
    // SAFETY: the file is only read. If somebody shortens it meanwhile the process is ended by the operating system;
    // checkpoints are not edited in place.
    unsafe { Mmap::map(&file) }.map_err(|source| io(path, source))
}

fn open<'a>(path: &Path, map: &'a Mmap) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(map).map_err(|source| Error::Safetensors { what: path.display().to_string(), source })
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.display().to_string(), source }
}
