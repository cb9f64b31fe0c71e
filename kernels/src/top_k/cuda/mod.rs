//! The device side: scores stay in registers, and only those that may be among the best reach a list.

mod exact;
mod rough;

#[cfg(test)]
pub(super) use self::rough::{Plan, top_k as by_rough_scores};
use super::{Operands, Scored};
use crate::Result;
use crate::cuda::{Arg, Array, Geometry, Stream};

const OP: &str = "top_k";
/// Rows of a block of a warp each, as in the kernels.
const WARPS: usize = 4;

/// The `k` best of every row.
pub(super) fn top_k(on: &Stream, operands: &Operands<'_>, k: usize) -> Result<Vec<Vec<Scored>>> {
    let k = k.min(operands.choosable());
    if k == 0 {
        return Ok(vec![Vec::new(); operands.x.rows()]);
    }
    let shape = [operands.x.rows(), operands.weight.rows(), operands.x.cols()];
    match rough::Plan::new(shape, k, on.most_shared()) {
        Some(plan) => Ok(rough::top_k(on, operands, k, plan)?.0),
        None => exact::Search::new(on, operands, None)?.top_k(k),
    }
}

/// The ranks of the targets.
pub(super) fn ranks(on: &Stream, operands: &Operands<'_>, targets: &[u32]) -> Result<Vec<u32>> {
    exact::Search::new(on, operands, None)?.ranks(targets)
}

/// Classes cut into ranges of a width, each of which blocks go through on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ranges {
    pub(super) width: usize,
    pub(super) count: usize,
}

impl Ranges {
    /// Of so many classes ranges of at least `narrowest`, which is a power of two, and at most as many as a warp has lanes:
    /// that many lists can be merged.
    pub(super) fn new(classes: usize, narrowest: usize) -> Self {
        let width = classes.div_ceil(32).max(1).next_multiple_of(narrowest);
        Self { width, count: classes.div_ceil(width) }
    }

    /// No more than so many.
    pub(super) fn of_at_most(count: usize, len: usize) -> Self {
        let width = len.div_ceil(count).max(1);
        Self { width, count: len.div_ceil(width) }
    }
}

/// For every row the classes that are left out: those of a row lie between two offsets.
struct Excluded {
    offsets: Array,
    ids: Array,
}

impl Excluded {
    fn new<'a>(on: &Stream, lists: impl Iterator<Item = &'a [u32]> + Clone) -> Result<Self> {
        let mut offsets = vec![0u32];
        for list in lists.clone() {
            let end = offsets.last().copied().unwrap_or_default() as usize + list.len();
            let Arg::U32(end) = Arg::count(OP, end)? else { continue };
            offsets.push(end);
        }
        let ids: Vec<u32> = lists.flatten().copied().collect();
        Ok(Self { offsets: on.upload(&offsets)?, ids: on.upload(&ids)? })
    }
}

/// A class with its score as kernels compare them: see `keys.cuh`. Nothing is 0.
fn scored(key: u64) -> Option<Scored> {
    const SIGN: u32 = 1 << 31;
    let [score, id] = [(key >> 32) as u32, !(key as u32)];
    let bits = if score & SIGN == 0 { !score } else { score ^ SIGN };
    (key > 0).then(|| Scored { id, score: f32::from_bits(bits) })
}

/// The lists of rows of `k` keys each.
fn lists(keys: &[u64], k: usize) -> impl Iterator<Item = Vec<Scored>> + '_ {
    keys.chunks_exact(k).map(|row| row.iter().copied().map_while(scored).collect())
}

/// The best of several sorted lists of every row, and the last of them.
///
/// # Safety
/// With counts `[ranges, wanted, stride, first]` the lists are `[ranges, n, wanted]`, of no more than 32 ranges; the best are
/// `[n, stride]`, of which `wanted` from `first` on are written; there is a last for every row.
unsafe fn merge(on: &Stream, lists: &Array, results: [&Array; 2], n: usize, counts: [usize; 4]) -> Result<()> {
    let [ranges, wanted, stride, first] = counts.map(|count| Arg::count(OP, count));
    let [best, last] = results.map(Array::arg);
    let args = [lists.arg(), best, last, Arg::count(OP, n)?, ranges?, wanted?, stride?, first?];
    // SAFETY: the caller's promise.
    unsafe { on.launch(&exact::KERNELS, "merge", warps(n), &args) }
}

/// A warp for every row.
fn warps(n: usize) -> Geometry {
    Geometry::blocks(n.div_ceil(WARPS), 32 * WARPS as u32)
}

/// The place of an element of so many bytes.
fn at(array: Arg, index: usize, bytes: usize) -> Arg {
    Arg::Address(array.address().offset(index * bytes))
}
