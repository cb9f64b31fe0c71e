//! The weights of a HF folder, memory-mapped and read tensor by tensor.

mod nf4;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
};

use kernels::{Dtype, Tensor, nf4::Rounding};
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::SafeTensors;
use serde::Deserialize;

use crate::{Error, Result, params::Params, weights};
pub use nf4::StoredNf4;

/// The weights of a checkpoint in one part.
const WEIGHTS_FILE: &str = "model.safetensors";
/// Where the tensors of a checkpoint in several parts are.
const INDEX_FILE: &str = "model.safetensors.index.json";

/// Where a network takes its weights from.
pub trait TensorSource {
    /// The tensor of that name, as f32.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if there is none.
    fn tensor(&self, name: &str) -> Result<Tensor>;

    /// The weight of that name, if it is held in four bits.
    ///
    /// # Errors
    /// [`Error::Quantized`] if it is packed in another way.
    fn four_bits(&self, _name: &str) -> Result<Option<StoredNf4>> {
        Ok(None)
    }

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
    /// a broken index, or one that points out of the folder, to a file that is not there or to one without the tensor;
    /// [`Error::Pickle`] if the folder has nothing but pickle files.
    pub fn open(folder: &Path) -> Result<Self> {
        let index = folder.join(INDEX_FILE);
        let weight_map = if index.exists() { Some(read_index(&index)?) } else { None };
        if weight_map.is_none() && !folder.join(WEIGHTS_FILE).exists() {
            refuse_pickle(folder)?;
        }
        let names: BTreeSet<&str> = match &weight_map {
            Some(map) => map.values().map(String::as_str).collect(),
            None => BTreeSet::from([WEIGHTS_FILE]),
        };
        let (mut parts, mut places) = (Vec::new(), BTreeMap::new());
        for name in names {
            let path = folder.join(name);
            if weight_map.is_some() && !path.exists() {
                let what = format!(
                    "{} names {name}, which is not there: a part of the checkpoint is missing",
                    index.display()
                );
                return Err(Error::Config(what));
            }
            let map = map(&path)?;
            let file = open(&path, &map)?;
            let here =
                |tensor: &&str| weight_map.as_ref().is_none_or(|map| map.get(*tensor).is_some_and(|p| p == name));
            places.extend(file.names().into_iter().filter(here).map(|tensor| (tensor.to_owned(), parts.len())));
            parts.push((path, map));
        }
        if let Some((tensor, part)) = weight_map.iter().flatten().find(|(tensor, _)| !places.contains_key(*tensor)) {
            let what = format!("{} says that {part} holds `{tensor}`, but it does not", index.display());
            return Err(Error::Config(what));
        }
        Ok(Self { parts, places })
    }

    /// Checks, from the headers alone, that a tensor is there and has the shape that the configuration asks for.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`], [`Error::TensorType`].
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let (_, found) = self.form(name)?;
        if found == shape {
            return Ok(());
        }
        Err(Error::TensorShape { name: name.to_owned(), found, expected: shape.to_vec() })
    }

    /// The tensor of that name as it is stored.
    fn stored(&self, name: &str) -> Result<Tensor> {
        let missing = || Error::MissingTensor { name: name.to_owned() };
        let (path, map) = &self.parts[*self.places.get(name).ok_or_else(missing)?];
        let view = open(path, map)?.tensor(name).map_err(|_| missing())?;
        let tensor = weights::to_tensor(name, &view)?;
        forget(map, view.data());
        Ok(tensor)
    }

    /// The files and the tensors in each, in the order of their names.
    pub fn parts(&self) -> impl Iterator<Item = (String, Vec<&str>)> {
        self.parts.iter().enumerate().map(|(part, (path, _))| {
            let names =
                self.places.iter().filter(|(_, place)| **place == part).map(|(name, _)| name.as_str()).collect();
            (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), names)
        })
    }

    /// Type and shape of the values of a tensor; of a packed one those that it stands for.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorType`] or [`Error::Quantized`].
    pub fn form(&self, name: &str) -> Result<(Dtype, Vec<usize>)> {
        let missing = || Error::MissingTensor { name: name.to_owned() };
        if let Some((rounding, shape)) = self.nf4_form(name)? {
            let dtype = match rounding {
                Rounding::F32 => Dtype::F32,
                Rounding::Bf16 => Dtype::Bf16,
                Rounding::F16 => Dtype::F16,
            };
            return Ok((dtype, shape));
        }
        let (path, map) = &self.parts[*self.places.get(name).ok_or_else(missing)?];
        let file = open(path, map)?;
        let view = file.tensor(name).map_err(|_| missing())?;
        Ok((weights::to_dtype(name, view.dtype())?, view.shape().to_vec()))
    }

    /// Whether there is a tensor of that name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }
}

impl TensorSource for Checkpoint {
    fn tensor(&self, name: &str) -> Result<Tensor> {
        if let Some(packed) = self.nf4(name)? {
            return Ok(kernels::nf4::dequantize(&packed.weight, packed.rounding)?);
        }
        Ok(self.stored(name)?.cast(Dtype::F32)?)
    }

    fn four_bits(&self, name: &str) -> Result<Option<StoredNf4>> {
        self.nf4(name)
    }
}

/// The part of every tensor, all of them files of the folder.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read(path).map_err(|source| io(path, source))?;
    let index: Index = serde_json::from_slice(&text).map_err(|e| Error::Config(format!("{}: {e}", path.display())))?;
    for name in index.weight_map.values() {
        if Path::new(name).file_name().is_none_or(|file| file != name.as_str()) {
            return Err(Error::Config(format!("the index names `{name}`, which is not a file of the folder")));
        }
    }
    Ok(index.weight_map)
}

/// A pickle file runs whatever program its author has put into it: none is ever read.
fn refuse_pickle(folder: &Path) -> Result<()> {
    let pickle = |path: &PathBuf| {
        let ending =
            path.extension().is_some_and(|e| ["bin", "pt", "pth", "ckpt", "pkl"].iter().any(|known| e == *known));
        ending && path.file_name().is_none_or(|name| name != "training_args.bin")
    };
    let files = std::fs::read_dir(folder).map_err(|source| io(folder, source))?;
    match files.flatten().map(|entry| entry.path()).filter(pickle).min() {
        Some(path) => Err(Error::Pickle { path: path.display().to_string() }),
        None => Ok(()),
    }
}

/// Tells the system that a tensor has been copied: what is read once shall not fill the memory.
fn forget(map: &Mmap, data: &[u8]) {
    let offset = data.as_ptr() as usize - map.as_ptr() as usize;
    // SAFETY: the mapping is of a file and never written to, so pages that are dropped are read again when they are asked for.
    let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, data.len()) };
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
