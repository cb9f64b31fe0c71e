//! Rows of a table by id. What is not finite is copied, or added, like any other value.

mod bands;
mod cpu;
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::cuda::Stream;
use crate::{Dtype, Error, Result, Tensor};

/// Looks up one row per id.
///
/// # Shapes
/// - `table`: `[V, D]` f32 or bf16
/// - `ids`: `n` row numbers
/// - returns `[n, D]` of the dtype of the table
///
/// # Gradient
/// [`backward`].
///
/// # Errors
/// [`Error::Index`] for an id outside of `0..V`; [`Error::Dtype`] unless the table is of one of these dtypes.
pub fn forward(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    const OP: &str = "embedding::forward";
    table.expect_floats(OP, "table")?;
    check_ids(OP, ids, table.rows())?;
    if let Some(on) = table.stream() {
        return cuda::forward(&on, table, ids);
    }
    let d = table.cols();
    if table.dtype() == Dtype::Bf16 {
        let shape = [ids.len(), d];
        let rows = table.bf16()?;
        return Ok(Tensor::bf16_of(Tensor::addressable(OP, &shape)?, |y| cpu::gather(rows, ids, d, y)));
    }
    let mut y = Tensor::result(OP, &[ids.len(), d])?;
    cpu::gather(table.f32()?, ids, d, y.f32_mut()?);
    Ok(y)
}

/// Adds the gradient of [`forward`] with respect to the table: `d_table[id] += Σ dy` over the rows with that id.
///
/// The rows of one id are added in order, so the bits do not depend on threads. On a device that goes for up to 32 rows of an
/// id; of more, every 32 are added first.
///
/// # Shapes
/// - `dy`: `[n, D]` f32
/// - `ids`: the `n` ids of the forward
/// - `d_table`: `[V, D]` f32, added to
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit; [`Error::Index`] for an id outside of `0..V`.
pub fn backward(dy: &Tensor, ids: &[u32], d_table: &mut Tensor) -> Result<()> {
    const OP: &str = "embedding::backward";
    let d = d_table.cols();
    d_table.expect_dtype(OP, "d_table", Dtype::F32)?;
    dy.expect_shape(OP, "dy", &[ids.len(), d])?;
    check_ids(OP, ids, d_table.rows())?;
    if let Some(on) = Stream::of(OP, &[("d_table", d_table), ("dy", dy)])? {
        return cuda::backward(&on, dy, ids, d_table);
    }
    cpu::scatter_add(dy.f32()?, ids, d, d_table.f32_mut()?);
    Ok(())
}

fn check_ids(op: &'static str, ids: &[u32], len: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= len) {
        Some(&id) => Err(Error::Index { op, what: "id", index: id as usize, len }),
        None => Ok(()),
    }
}
