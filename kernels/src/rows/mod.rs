//! Whole rows: put together, added again and again, searched for their largest value.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use crate::cuda::Stream;
use crate::{Dtype, Error, Result, Tensor};

/// Puts the rows of several tensors one after the other.
///
/// # Shapes
/// - `parts`: `[n_i, d]`, any number of leading dimensions, all of one dtype and in one place
/// - returns `[Σ n_i, d]`
///
/// # Gradient
/// None: the places where tensors are put together are not trained through.
///
/// # Errors
/// [`Error::Setting`] if there is no part; [`Error::Shape`] or [`Error::Dtype`] if one is not like the first.
pub fn concat(parts: &[Tensor]) -> Result<Tensor> {
    const OP: &str = "rows::concat";
    let Some(first) = parts.first() else {
        return Err(Error::Setting { op: OP, what: "there is nothing to put together".to_owned() });
    };
    for part in parts {
        part.expect_dims(OP, "part", &[part.rows(), first.cols()])?;
        part.expect_dtype(OP, "part", first.dtype())?;
    }
    let places: Vec<_> = parts.iter().map(|part| ("part", part)).collect();
    let shape = [parts.iter().map(Tensor::rows).sum(), first.cols()];
    match Stream::of(OP, &places)? {
        Some(on) => cuda::concat(&on, parts, &shape),
        None => cpu::concat(parts, &shape),
    }
}

/// Rows of which every group of a result takes some.
#[derive(Clone, Copy, Debug)]
pub struct Strand<'a> {
    /// The rows of all groups, group after group, or those of one, which all groups take.
    pub rows: &'a Tensor,
    /// The rows of a group.
    pub each: usize,
}

/// Makes groups of the rows of several tensors: first those of the first strand, then those of the second, and so on.
///
/// # Shapes
/// - `strands[i].rows`: `[groups * each, d]` or `[each, d]` f32, with `each > 0`
/// - returns `[groups * Σ each, d]`
///
/// # Gradient
/// None, as of [`concat`].
///
/// # Errors
/// [`Error::Setting`] if a strand has no rows for a group; [`Error::Shape`] if one is not as wide as the first or has
/// another number of groups; [`Error::Dtype`] unless all are f32.
pub fn weave(strands: &[Strand<'_>], groups: usize) -> Result<Tensor> {
    const OP: &str = "rows::weave";
    let Some(first) = strands.first().filter(|_| strands.iter().all(|strand| strand.each > 0)) else {
        return Err(Error::Setting { op: OP, what: "every group takes at least one row of every strand".to_owned() });
    };
    let d = first.rows.cols();
    for strand in strands {
        let rows = if strand.rows.rows() == strand.each { strand.each } else { groups * strand.each };
        strand.rows.expect_shape(OP, "strand", &[rows, d])?;
    }
    let places: Vec<_> = strands.iter().map(|strand| ("strand", strand.rows)).collect();
    let each: usize = strands.iter().map(|strand| strand.each).sum();
    let shape = [groups * each, d];
    match Stream::of(OP, &places)? {
        Some(on) => cuda::weave(&on, strands, groups),
        None => cpu::weave(strands, &shape),
    }
}

/// Adds the same rows to every group of as many: `x[i] += rows[i mod r]`.
///
/// # Shapes
/// - `x`: `[n * r, d]` f32, added to
/// - `rows`: `[r, d]` f32
///
/// # Gradient
/// That of `x` itself; the rows receive the sum over the groups.
///
/// # Errors
/// [`Error::Shape`] if the rows of `x` are no multiple of `r` or the widths differ; [`Error::Dtype`] unless both are f32.
pub fn add_repeated(x: &mut Tensor, rows: &Tensor) -> Result<()> {
    const OP: &str = "rows::add_repeated";
    x.expect_dtype(OP, "x", Dtype::F32)?;
    rows.expect_shape(OP, "rows", &[rows.rows(), x.cols()])?;
    if x.rows().checked_rem(rows.rows()).unwrap_or(x.rows()) != 0 {
        return Err(Error::shape(OP, "x", x.shape(), format!("[n * {}, {}]", rows.rows(), rows.cols())));
    }
    match Stream::of(OP, &[("x", x), ("rows", rows)])? {
        Some(on) => cuda::add_repeated(&on, x, rows),
        None => {
            cpu::add_repeated(x.f32_mut()?, rows.f32()?);
            Ok(())
        }
    }
}

/// The column of every row's largest value; of equal ones the first, and the first of all if there are only NaN.
///
/// # Shapes
/// - `x`: `[n, d]` f32 with `d > 0`
/// - returns `n` columns
///
/// # Gradient
/// None.
///
/// # Errors
/// [`Error::Shape`] if rows are empty; [`Error::Dtype`] unless `x` is f32.
pub fn largest(x: &Tensor) -> Result<Vec<u32>> {
    const OP: &str = "rows::largest";
    x.expect_dtype(OP, "x", Dtype::F32)?;
    if x.cols() == 0 && x.rows() > 0 {
        return Err(Error::shape(OP, "x", x.shape(), "[n, at least 1]"));
    }
    match Stream::of(OP, &[("x", x)])? {
        Some(on) => cuda::largest(&on, x),
        None => Ok(cpu::largest(x.f32()?, x.cols())),
    }
}
