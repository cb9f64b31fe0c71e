//! What attention is given, and the checks of it.

use half::bf16;

use super::{OP, layout::Layout};
use crate::cuda::Stream;
use crate::{Dtype, Error, Result, Segments, Tensor};

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

/// What operands on the host are made of.
pub(super) trait Value: Copy {
    /// The elements of an operand.
    fn of(tensor: &Tensor) -> Result<&[Self]>;
}

impl Value for f32 {
    fn of(tensor: &Tensor) -> Result<&[Self]> {
        tensor.f32()
    }
}

impl Value for bf16 {
    fn of(tensor: &Tensor) -> Result<&[Self]> {
        tensor.bf16()
    }
}

/// Operands of the host that fit together.
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

    /// Checks that all fit together and are of one dtype, and says where everything lies.
    pub(super) fn check(&self, shape: &Shape, dtype: Dtype) -> Result<Layout> {
        let (query_width, key_width) = shape.widths()?;
        let (queries, keys, causal) = self.mask.segments()?;
        let expect = |tensor: &Tensor, what, shape: [usize; 2]| {
            tensor.expect_dims(OP, what, &shape)?;
            tensor.expect_dtype(OP, what, dtype)
        };
        expect(self.q, "q", [queries.rows(), query_width])?;
        expect(self.k, "k", [keys.rows(), key_width])?;
        expect(self.v, "v", [keys.rows(), key_width])?;
        let prefix = self.prefix.map_or(0, |prefix| prefix.k.rows());
        if let Some(Prefix { k, v }) = self.prefix {
            expect(k, "prefix k", [prefix, key_width])?;
            expect(v, "prefix v", [prefix, key_width])?;
        }
        Ok(Layout { shape: *shape, queries: queries.clone(), keys: keys.clone(), causal, prefix })
    }

    /// The device on which these and others are; none if they are the host's.
    pub(super) fn place(&self, others: &[(&'static str, &Tensor)]) -> Result<Option<Stream>> {
        let mut all = vec![("q", self.q), ("k", self.k), ("v", self.v)];
        if let Some(Prefix { k, v }) = self.prefix {
            all.extend([("prefix k", k), ("prefix v", v)]);
        }
        all.extend(others);
        Stream::of(OP, &all)
    }

    /// The values of checked operands on the host.
    pub(super) fn on_host<T: Value>(&self, layout: Layout) -> Result<Checked<'a, T>> {
        let prefix = |tensor: fn(Prefix<'a>) -> &'a Tensor| self.prefix.map_or(Ok(&[][..]), |p| T::of(tensor(p)));
        Ok(Checked {
            layout,
            q: T::of(self.q)?,
            keys: Source { prefix: prefix(|prefix| prefix.k)?, own: T::of(self.k)? },
            values: Source { prefix: prefix(|prefix| prefix.v)?, own: T::of(self.v)? },
        })
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
