//! The best classes of every row, and the place of a given class, without the `n × V` scores.
//!
//! A score that is not a number counts as −∞: it never displaces a number, and ties with other such scores by id.
//!
//! A score is a chain of sums in an order that depends on nothing, so a device finds the bits that the host does. Of many rows
//! and classes it first takes candidates by scores in half precision, and proves for every row that these suffice.

mod cpu;
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::cuda::Stream;
use crate::{Dtype, Error, Result, Tensor};

/// A class and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The class.
    pub id: u32,
    /// Its score: `x · w[id] + b[id]`.
    pub score: f32,
}

/// The `k` classes with the highest scores of every row, best first; equal scores in the order of ids.
///
/// Rows with fewer than `k` classes to choose from get fewer. Excluded ids beyond the classes exclude nothing.
///
/// # Shapes
/// - `x`: `[n, D]` f32
/// - `weight`: `[V, D]` f32
/// - `bias`: `[V]` f32
/// - `first_class`: classes below it are never chosen, for example 1 to leave out padding
/// - `exclude`: for every row the classes that are not chosen, sorted
///
/// # Gradient
/// None.
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit, or if `D` is 0; [`Error::Setting`] if an exclusion is not sorted;
/// [`Error::Dtype`] unless everything is f32.
pub fn top_k(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    first_class: u32,
    exclude: &[&[u32]],
    k: usize,
) -> Result<Vec<Vec<Scored>>> {
    const OP: &str = "top_k::top_k";
    let operands = Operands { x, weight, bias, exclude, first_class };
    match operands.check(OP)? {
        Some(on) => cuda::top_k(&on, &operands, k),
        None => Ok(cpu::top_k(&operands.on_host()?, k)),
    }
}

/// The rank of one class of every row among all classes that could be chosen: 1 + those that score higher + those that
/// score the same and have a smaller id. The target itself counts even where it is excluded.
///
/// The scores are the same bits as those of [`top_k`].
///
/// # Shapes
/// As [`top_k`]; `targets` has `n` classes.
///
/// # Errors
/// As [`top_k`]; [`Error::Index`] for a target of `V` or more, [`Error::Setting`] for one below `first_class`.
pub fn ranks(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    first_class: u32,
    exclude: &[&[u32]],
    targets: &[u32],
) -> Result<Vec<u32>> {
    const OP: &str = "top_k::ranks";
    let operands = Operands { x, weight, bias, exclude, first_class };
    let on = operands.check(OP)?;
    if targets.len() != x.rows() {
        return Err(Error::shape(OP, "targets", &[targets.len()], format!("[{}]", x.rows())));
    }
    if let Some(&target) = targets.iter().find(|&&t| t as usize >= weight.rows()) {
        return Err(Error::Index { op: OP, what: "target", index: target as usize, len: weight.rows() });
    }
    if let Some(target) = targets.iter().find(|&&t| t < first_class) {
        let what = format!("the target {target} is before {first_class}, the first class that can be chosen");
        return Err(Error::Setting { op: OP, what });
    }
    match on {
        Some(on) => cuda::ranks(&on, &operands, targets),
        None => Ok(cpu::ranks(&operands.on_host()?, targets)),
    }
}

fn worst_if_nan(score: f32) -> f32 {
    if score.is_nan() { f32::NEG_INFINITY } else { score }
}

/// What the scores are made of, and who is out of the question.
struct Operands<'a> {
    x: &'a Tensor,
    weight: &'a Tensor,
    bias: Option<&'a Tensor>,
    exclude: &'a [&'a [u32]],
    first_class: u32,
}

impl<'a> Operands<'a> {
    /// Checks them, and says on which device they are.
    fn check(&self, op: &'static str) -> Result<Option<Stream>> {
        let Self { x, weight, bias, exclude, .. } = *self;
        let (n, classes, d) = (x.rows(), weight.rows(), x.cols());
        x.expect_dtype(op, "x", Dtype::F32)?;
        if d == 0 {
            return Err(Error::shape(op, "x", x.shape(), "at least one column"));
        }
        weight.expect_shape(op, "weight", &[classes, d])?;
        if let Some(bias) = bias {
            bias.expect_shape(op, "bias", &[classes])?;
        }
        if exclude.len() != n {
            return Err(Error::shape(op, "exclude", &[exclude.len()], format!("[{n}]")));
        }
        if let Some(row) = exclude.iter().position(|ids| !ids.is_sorted()) {
            return Err(Error::Setting { op, what: format!("the excluded classes of row {row} are not sorted") });
        }
        let places: Vec<_> = [("x", x), ("weight", weight)].into_iter().chain(bias.map(|b| ("bias", b))).collect();
        Stream::of(op, &places)
    }

    /// The number of classes from the first on that can be chosen.
    fn choosable(&self) -> usize {
        self.weight.rows().saturating_sub(self.first_class as usize)
    }

    /// Their values, on the host.
    fn on_host(&self) -> Result<Problem<'a>> {
        Ok(Problem {
            x: self.x.f32()?,
            weight: self.weight.f32()?,
            bias: self.bias.map(Tensor::f32).transpose()?,
            exclude: self.exclude,
            first_class: self.first_class as usize,
            n: self.x.rows(),
            classes: self.weight.rows(),
            d: self.x.cols(),
        })
    }
}

/// Checked operands.
struct Problem<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    exclude: &'a [&'a [u32]],
    first_class: usize,
    n: usize,
    classes: usize,
    d: usize,
}
