//! The device side. Sequences are cut into tiles of rows; a block takes one tile of one head, and a launch covers the
//! tiles of all sequences.

mod backward;
mod cache;
mod forward;
mod work;

pub(super) use backward::{Results, backward};
pub(super) use cache::Rows;
pub(super) use forward::{forward, forward_bf16, forward_bf16_saved};

use super::{OP, Operands, layout::Layout};
use crate::cuda::Arg;
use crate::{Error, Result, Tensor};

/// Widths of heads that kernels are made for; narrower heads are filled up with zeros.
const WIDTHS: [usize; 5] = [32, 64, 96, 128, WIDEST];
const WIDEST: usize = 256;

/// One of them.
#[derive(Clone, Copy)]
struct Width(usize);

impl Width {
    /// That of the kernels for some heads.
    ///
    /// # Errors
    /// [`Error::Setting`] if the heads are wider than all.
    fn of(layout: &Layout) -> Result<Self> {
        let features = layout.shape.head_dim;
        let width = WIDTHS.into_iter().find(|&width| width >= features);
        width.map(Self).ok_or_else(|| too_wide(features))
    }

    /// That of such kernels that is for it.
    fn kernel(self, of_all: &Kernels) -> &'static str {
        let place = WIDTHS.iter().position(|&width| width == self.0);
        of_all[place.expect("it is one of them, as `of` made it")]
    }
}

/// The names of kernels that differ in the width of heads alone, in the order of [`WIDTHS`].
type Kernels = [&'static str; WIDTHS.len()];

/// The [`Kernels`] whose names begin so.
macro_rules! of_all_widths {
    ($name:literal) => {
        [
            concat!($name, "_32"),
            concat!($name, "_64"),
            concat!($name, "_96"),
            concat!($name, "_128"),
            concat!($name, "_256"),
        ]
    };
}
use of_all_widths;

fn too_wide(features: usize) -> Error {
    Error::Setting { op: OP, what: format!("heads of {features} features, a device takes up to {WIDEST}") }
}

/// Queries, keys, values, and keys and values of the prefix, as kernels take them.
fn operands(operands: &Operands<'_>) -> Result<[Arg; 5]> {
    let prefix = |t: Option<&Tensor>| t.map_or(Ok(Arg::NULL), Tensor::arg);
    let [prefix_k, prefix_v] = [prefix(operands.prefix.map(|p| p.k))?, prefix(operands.prefix.map(|p| p.v))?];
    Ok([operands.q.arg()?, operands.k.arg()?, operands.v.arg()?, prefix_k, prefix_v])
}

/// Heads, key-value heads, features, rows of the prefix, and whether the mask is causal, as kernels take them.
fn settings(layout: &Layout) -> Result<[Arg; 5]> {
    let Layout { shape, causal, prefix, .. } = layout;
    // Kernels count these with 32 bits too.
    for n in [shape.heads * shape.head_dim, layout.queries.rows(), prefix + layout.keys.rows()] {
        Arg::count(OP, n)?;
    }
    let count = |n| Arg::count(OP, n);
    let causal = Arg::U32(u32::from(*causal));
    Ok([count(shape.heads)?, count(shape.kv_heads)?, count(shape.head_dim)?, count(*prefix)?, causal])
}
