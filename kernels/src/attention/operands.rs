//! What attention is given, and the checks of it.

use half::bf16;

use super::{OP, layout::Layout};
use crate::{Error, Result, Segments, Tensor};

/// Heads of the operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`, and query head `h` reads key-value head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
}

/// Which keys the rows of a sequence see, beside those of a prefix.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a> {
    /// Those of their own and of earlier rows of their sequence.
    Causal(&'a Segments),
    /// Those of all rows of their sequence.
    Full(&'a Segments),
    /// All keys of the sequence of the same number, of which there may be more, fewer or none.
    Cross {
        /// Where the queries of each sequence begin.
        queries: &'a Segments,
        /// Where the keys of each sequence begin; as many sequences.
        keys: &'a Segments,
    },
}

/// Keys and values that every row of every sequence sees before those of its sequence: a prompt that all share.
///
/// Whoever rotates keys by their positions counts those of the sequences from the end of the prefix.
#[derive(Clone, Copy, Debug)]
pub struct Prefix<'a> {
    /// `[p, kv_heads * head_dim]`; `p` may be zero.
    pub k: &'a Tensor,
    /// `[p, kv_heads * head_dim]`.
    pub v: &'a Tensor,
}

/// Queries, keys and values, and which of them meet.
///
/// ```
/// # use mllm4rec_kernels::{Result, Segments, Tensor, attention::{self, Mask, Operands, Shape}};
/// # fn main() -> Result<()> {
/// let (q, k, v) = (Tensor::zeros(&[5, 8]), Tensor::zeros(&[5, 4]), Tensor::zeros(&[5, 4]));
/// let segments = Segments::from_lengths([2, 3]);
/// let operands = Operands::new(&q, &k, &v, Mask::Causal(&segments));
/// let (out, saved) = attention::forward(&operands, &Shape { heads: 4, kv_heads: 2, head_dim: 2 })?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    /// `[n, heads * head_dim]`; this and all others are f32 or, for [`super::forward_bf16`], bf16.
    pub q: &'a Tensor,
    /// `[m, kv_heads * head_dim]`; `m` is `n` except under [`Mask::Cross`].
    pub k: &'a Tensor,
    /// `[m, kv_heads * head_dim]`.
    pub v: &'a Tensor,
    /// Which keys a row sees.
    pub mask: Mask<'a>,
    /// What all sequences see.
    pub prefix: Option<Prefix<'a>>,
}

/// What operands are made of.
pub(super) trait Value: Copy {
    /// The elements of an operand of this shape.
    fn values<'a>(tensor: &'a Tensor, what: &'static str, shape: &[usize]) -> Result<&'a [Self]>;
}

impl Value for f32 {
    fn values<'a>(tensor: &'a Tensor, what: &'static str, shape: &[usize]) -> Result<&'a [Self]> {
        tensor.expect_dims(OP, what, shape)?;
        tensor.expect_f32(OP, what)
    }
}

impl Value for bf16 {
    fn values<'a>(tensor: &'a Tensor, what: &'static str, shape: &[usize]) -> Result<&'a [Self]> {
        tensor.expect_dims(OP, what, shape)?;
        tensor.expect_bf16(OP, what)
    }
}

/// Operands that fit together.
pub(super) struct Checked<'a, T = f32> {
    pub(super) layout: Layout,
    pub(super) q: &'a [T],
    pub(super) keys: Source<'a, T>,
    pub(super) values: Source<'a, T>,
}

/// The keys, or the values, of all heads: rows of the prefix and rows of the sequences.
pub(super) struct Source<'a, T = f32> {
    pub(super) prefix: &'a [T],
    pub(super) own: &'a [T],
}

impl<'a> Operands<'a> {
    /// Operands without a prefix.
    #[must_use]
    pub fn new(q: &'a Tensor, k: &'a Tensor, v: &'a Tensor, mask: Mask<'a>) -> Self {
        Self { q, k, v, mask, prefix: None }
    }

    /// The same behind a prefix.
    #[must_use]
    pub fn with_prefix(self, k: &'a Tensor, v: &'a Tensor) -> Self {
        Self { prefix: Some(Prefix { k, v }), ..self }
    }

    pub(super) fn check<T: Value>(&self, shape: &Shape) -> Result<Checked<'a, T>> {
        let (query_width, key_width) = shape.widths()?;
        let (queries, keys, causal) = self.mask.segments()?;
        let q = T::values(self.q, "q", &[queries.rows(), query_width])?;
        let k = T::values(self.k, "k", &[keys.rows(), key_width])?;
        let v = T::values(self.v, "v", &[keys.rows(), key_width])?;
        let (prefix, prefix_k, prefix_v) = match self.prefix {
            Some(prefix) => prefix.check(key_width)?,
            None => (0, &[][..], &[][..]),
        };
        Ok(Checked {
            layout: Layout { shape: *shape, queries: queries.clone(), keys: keys.clone(), causal, prefix },
            q,
            keys: Source { prefix: prefix_k, own: k },
            values: Source { prefix: prefix_v, own: v },
        })
    }
}

impl<'a> Prefix<'a> {
    /// The number of rows, the keys and the values.
    fn check<T: Value>(&self, width: usize) -> Result<(usize, &'a [T], &'a [T])> {
        let rows = self.k.rows();
        let [k, v] = [(self.k, "prefix k"), (self.v, "prefix v")].map(|(t, what)| T::values(t, what, &[rows, width]));
        Ok((rows, k?, v?))
    }
}

impl<'a> Mask<'a> {
    /// Where queries and keys begin, and whether a row sees no later one.
    fn segments(self) -> Result<(&'a Segments, &'a Segments, bool)> {
        match self {
            Self::Causal(segments) => Ok((segments, segments, true)),
            Self::Full(segments) => Ok((segments, segments, false)),
            Self::Cross { queries, keys } if queries.len() == keys.len() => Ok((queries, keys, false)),
            Self::Cross { queries, keys } => {
                let what = format!("{} sequences of queries, but {} of keys", queries.len(), keys.len());
                Err(Error::Setting { op: OP, what })
            }
        }
    }
}

impl Shape {
    /// The number of query heads that read one key-value head.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// The width of the queries and that of the keys.
    fn widths(&self) -> Result<(usize, usize)> {
        let Self { heads, kv_heads, head_dim } = *self;
        let sound = heads > 0 && kv_heads > 0 && head_dim > 0 && heads.is_multiple_of(kv_heads);
        match heads.checked_mul(head_dim).filter(|_| sound) {
            Some(width) => Ok((width, kv_heads * head_dim)),
            None => {
                let sizes = format!("{heads} heads of {head_dim} features over {kv_heads} key-value heads");
                let what = format!("{sizes}; the latter must divide the former, and nothing may be zero or immense");
                Err(Error::Setting { op: OP, what })
            }
        }
    }
}
