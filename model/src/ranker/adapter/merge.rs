//! A base and its low-rank updates as one checkpoint.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use kernels::{Dtype, nf4, nf4::Rounding};
use safetensors::View;
use serde_json::{Value, json};

use super::{Adapter, Pair, projection_of};
use crate::{
    Error, Result,
    checkpoint::{Checkpoint, TensorSource},
    weights,
};

/// Files of a HF folder that a merged checkpoint takes over.
const COMPANIONS: [&str; 9] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];

/// How a base and an adapter become one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Merge {
    /// Whether the linear layers are first packed to NF4 and decoded again: what QLoRA has trained beside.
    pub as_trained: bool,
    /// The float type of the result; that of the base if absent.
    pub dtype: Option<Dtype>,
}

/// What a merge has made.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The files of the folder.
    pub files: Vec<String>,
    /// Weights that an update was added to.
    pub updated: usize,
    /// Tensors in all.
    pub tensors: usize,
    /// Frobenius norms over all weights that have an update: of the weights, of the updates, and of what the updates lost or won
    /// when sums were rounded to the type of the checkpoint, to which the weights alone would have been rounded too.
    pub weight_norm: f64,
    /// See there.
    pub update_norm: f64,
    /// See there.
    pub rounding_norm: f64,
}

impl Merge {
    /// Writes `W + scale · B · A` for every weight that has an update, and the other tensors as they are, in the parts of the
    /// base. One tensor is held in memory at a time. A base in four bits is decoded, so the result is dense.
    ///
    /// # Errors
    /// [`Error::Adapter`] if an update has no weight in the base or another shape; [`Error::Io`] for a file that cannot be
    /// read or written; else those of [`Checkpoint::open`].
    pub fn write(self, base: &Path, adapter: &Adapter, to: &Path) -> Result<Merged> {
        let checkpoint = Checkpoint::open(base)?;
        let pairs: BTreeMap<String, Pair<'_>> = adapter.pairs().map(|p| (format!("{}.weight", p.weight), p)).collect();
        for (name, pair) in &pairs {
            let shape = [pair.b.rows(), pair.a.cols()];
            checkpoint.check(name, &shape).map_err(|e| Error::Adapter(format!("{e}; its update is {shape:?}")))?;
        }
        let (mut files, mut tensors, mut squares) = (Vec::new(), 0, Squares::default());
        let mut weight_map = BTreeMap::new();
        for (part, names) in checkpoint.parts() {
            let names: Vec<&str> = names.into_iter().filter(|name| !is_state(name, &checkpoint)).collect();
            weight_map.extend(names.iter().map(|name| ((*name).to_owned(), part.clone())));
            tensors += names.len();
            squares = squares.plus(self.write_part(&checkpoint, &names, &pairs, &to.join(&part))?);
            files.push(part);
        }
        if weight_map.values().collect::<BTreeSet<_>>().len() > 1 {
            let index = json!({"metadata": {}, "weight_map": weight_map});
            files.push(write(to, "model.safetensors.index.json", &pretty(&index))?);
        }
        files.push(write(to, "config.json", &pretty(&self.config(base)?))?);
        readable_like(&to.join("config.json"), weight_map.values().map(|part| to.join(part)))?;
        for name in COMPANIONS {
            let from = base.join(name);
            if from.is_file() {
                files.push(write(to, name, &read(&from)?)?);
            }
        }
        let [weight_norm, update_norm, rounding_norm] = squares.0.map(f64::sqrt);
        Ok(Merged { files, updated: pairs.len(), tensors, weight_norm, update_norm, rounding_norm })
    }

    /// Writes some tensors into one file, each made when its turn comes. Returns what was seen on the way.
    fn write_part(
        self,
        checkpoint: &Checkpoint,
        names: &[&str],
        pairs: &BTreeMap<String, Pair<'_>>,
        path: &Path,
    ) -> Result<Squares> {
        let (failure, squares) = (RefCell::new(None), Cell::new(Squares::default()));
        let tensors = names.iter().map(|name| {
            let (stored, shape) = checkpoint.form(name)?;
            let (pair, dtype) = (pairs.get(*name), self.dtype.unwrap_or(stored));
            Ok((
                *name,
                Lazy { merge: self, checkpoint, name, pair, dtype, shape, failure: &failure, squares: &squares },
            ))
        });
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let written = safetensors::serialize_to_file(tensors, Some(metadata), path);
        match (failure.into_inner(), written) {
            (Some(error), _) => Err(error),
            (None, Err(source)) => Err(Error::Safetensors { what: path.display().to_string(), source }),
            (None, Ok(())) => Ok(squares.into_inner()),
        }
    }

    /// The configuration of the base, without what said how it was packed.
    fn config(self, base: &Path) -> Result<Value> {
        let path = base.join("config.json");
        let mut config: Value =
            serde_json::from_slice(&read(&path)?).map_err(|e| Error::Config(format!("{}: {e}", path.display())))?;
        if let Some(config) = config.as_object_mut() {
            config.remove("quantization_config");
            if let Some(dtype) = self.dtype {
                let key = if config.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
                let name = match dtype {
                    Dtype::Bf16 => "bfloat16",
                    Dtype::F16 => "float16",
                    Dtype::F32 | Dtype::U8 => "float32",
                };
                config.insert(key.to_owned(), json!(name));
            }
        }
        Ok(config)
    }
}

/// Whether a tensor says how another one is packed.
fn is_state(name: &str, checkpoint: &Checkpoint) -> bool {
    name.match_indices('.').any(|(dot, _)| {
        checkpoint.contains(&name[..dot]) && checkpoint.nf4_form(&name[..dot]).is_ok_and(|form| form.is_some())
    })
}

/// A tensor that is made when it is written.
struct Lazy<'a> {
    merge: Merge,
    checkpoint: &'a Checkpoint,
    name: &'a str,
    pair: Option<&'a Pair<'a>>,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Why a tensor of the file could not be made.
    failure: &'a RefCell<Option<Error>>,
    squares: &'a Cell<Squares>,
}

/// Sums of squares: of weights, of their updates, of what rounding moved them by.
#[derive(Clone, Copy, Default)]
struct Squares([f64; 3]);

impl Squares {
    /// Of a weight, its update and the sum of both, the first and the last rounded too.
    fn of([weight, rounded_weight, update, rounded_sum]: [&[f32]; 4]) -> Self {
        let mut sums = [0.0; 3];
        for (((weight, rounded_weight), update), sum) in weight.iter().zip(rounded_weight).zip(update).zip(rounded_sum)
        {
            let moved = f64::from(*sum) - f64::from(*rounded_weight) - f64::from(*update);
            for (sum, value) in sums.iter_mut().zip([f64::from(*weight), f64::from(*update), moved]) {
                *sum += value * value;
            }
        }
        Self(sums)
    }

    fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
}

impl Lazy<'_> {
    fn bytes(&self) -> Result<Vec<u8>> {
        let mut weight = self.checkpoint.tensor(self.name)?;
        // All projections are packed while an adapter is trained, those without an update too.
        let is_projection = projection_of(self.name).is_some() && weight.shape().len() == 2;
        if self.merge.as_trained && is_projection && self.checkpoint.nf4_form(self.name)?.is_none() {
            weight = nf4::dequantize(&nf4::quantize(&weight, true)?, Rounding::Bf16)?;
        }
        let Some(pair) = self.pair else { return Ok(weights::cast(&weight, self.dtype)?.to_le_bytes()) };
        let (before, update) = (weight.to_f32(), pair.delta()?);
        let alone = weights::cast(&weight, self.dtype)?.to_f32();
        weight.add(&update)?;
        let rounded = weights::cast(&weight, self.dtype)?;
        let seen = Squares::of([&before, &alone, update.f32()?, &rounded.to_f32()]);
        self.squares.set(self.squares.get().plus(seen));
        Ok(rounded.to_le_bytes())
    }
}

impl View for Lazy<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        weights::dtype_of(self.dtype)
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.bytes().unwrap_or_else(|error| {
            self.failure.borrow_mut().get_or_insert(error);
            vec![0; self.data_len()]
        }))
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bytes()
    }
}

/// Gives files the rights of another: the writer of safetensors keeps its files private.
fn readable_like(model: &Path, files: impl Iterator<Item = PathBuf>) -> Result<()> {
    let io = |path: &Path, source| Error::Io { path: path.display().to_string(), source };
    let rights = std::fs::metadata(model).map_err(|source| io(model, source))?.permissions();
    for file in files {
        std::fs::set_permissions(&file, rights.clone()).map_err(|source| io(&file, source))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Io { path: path.display().to_string(), source })
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<String> {
    let path = folder.join(name);
    std::fs::write(&path, bytes).map_err(|source| Error::Io { path: path.display().to_string(), source })?;
    Ok(name.to_owned())
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}
