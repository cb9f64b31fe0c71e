//! The device side.

use super::Strand;
use crate::cuda::{Arg, Geometry, Source, Stream};
use crate::{Result, Tensor, embedding};

const OP: &str = "rows";
const KERNELS: Source = Source { name: OP, text: include_str!("kernel.cu") };

pub(super) fn concat(on: &Stream, parts: &[Tensor], shape: &[usize]) -> Result<Tensor> {
    let mut all = on.result(shape, parts[0].dtype())?;
    let mut begin = 0;
    for part in parts {
        on.copy(part, &mut all, begin)?;
        begin += part.len();
    }
    Ok(all)
}

/// All strands one after the other, and of those the rows in the order of the groups.
pub(super) fn weave(on: &Stream, strands: &[Strand<'_>], groups: usize) -> Result<Tensor> {
    let parts: Vec<Tensor> = strands.iter().map(|strand| strand.rows.clone()).collect();
    let rows = parts.iter().map(Tensor::rows).sum();
    let all = concat(on, &parts, &[rows, parts[0].cols()])?;
    let mut order = Vec::new();
    for group in 0..groups {
        let mut first = 0;
        for strand in strands {
            let begin = first + if strand.rows.rows() == strand.each { 0 } else { group * strand.each };
            order.extend((begin..begin + strand.each).map(|row| row as u32));
            first += strand.rows.rows();
        }
    }
    embedding::forward(&all, &order)
}

pub(super) fn add_repeated(on: &Stream, x: &mut Tensor, rows: &Tensor) -> Result<()> {
    let n = x.len();
    let args = [x.arg_mut()?, rows.arg()?, Arg::U64(n as u64), Arg::U64(rows.len() as u64)];
    // SAFETY: x has n elements, the rows as many as the period says.
    unsafe { on.launch(&KERNELS, "add_repeated", Geometry::elements(n), &args) }
}

pub(super) fn largest(on: &Stream, x: &Tensor) -> Result<Vec<u32>> {
    let n = x.rows();
    let columns = on.scratch(n * size_of::<u32>())?;
    let args = [x.arg()?, columns.arg(), Arg::count(OP, x.cols())?];
    // SAFETY: x has n rows, and there is a place for the column of each.
    unsafe { on.launch(&KERNELS, "largest", Geometry::blocks(n, 256), &args)? };
    columns.read(n)
}
