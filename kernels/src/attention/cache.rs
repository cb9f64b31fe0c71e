//! Attention of one new row for every sequence over the rows before it: a decoder's step.

use super::{OP, Shape, cpu, cuda};
use crate::cuda::Stream;
use crate::{Dtype, Error, Result, Tensor};

/// Keys and values.
#[derive(Clone, Debug)]
enum Rows {
    Host(cpu::Rows),
    Device(cuda::Rows),
}

/// Keys and values of sequences that have grown to one length, with room to grow further.
#[derive(Clone, Debug)]
pub struct Cache {
    rows: Rows,
    sequences: usize,
    capacity: usize,
    len: usize,
    width: usize,
}

impl Cache {
    /// Room on the host for so many sequences of so many rows, f32 or bf16.
    ///
    /// # Errors
    /// [`Error::Shape`] if that is more than memory can address; [`Error::Setting`] for other dtypes.
    pub fn new(sequences: usize, capacity: usize, shape: &Shape, dtype: Dtype) -> Result<Self> {
        Self::on(None, sequences, capacity, shape, dtype)
    }

    /// Room in the memory where a tensor is, for rows of its dtype: the keys that are to be appended first, say.
    ///
    /// # Errors
    /// As [`Cache::new`]; [`Error::Memory`] if a device has no room.
    pub fn beside(tensor: &Tensor, sequences: usize, capacity: usize, shape: &Shape) -> Result<Self> {
        Self::on(tensor.stream(), sequences, capacity, shape, tensor.dtype())
    }

    fn on(on: Option<Stream>, sequences: usize, capacity: usize, shape: &Shape, dtype: Dtype) -> Result<Self> {
        let width = shape.kv_heads * shape.head_dim;
        let extents = [sequences, capacity, width];
        Tensor::addressable(OP, &extents)?;
        if dtype != Dtype::F32 && dtype != Dtype::Bf16 {
            return Err(Error::Setting { op: OP, what: format!("keys and values of {dtype:?}") });
        }
        let rows = match on {
            Some(on) => Rows::Device(cuda::Rows::new(&on, extents, dtype)?),
            None => Rows::Host(cpu::Rows::new(extents, dtype)),
        };
        Ok(Self { rows, sequences, capacity, len: 0, width })
    }

    /// The rows of every sequence.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the sequences have no rows yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of sequences.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// Adds rows to the end of every sequence.
    ///
    /// # Shapes
    /// - `k`, `v`: `[sequences * rows, kv_heads * head_dim]` of the cache's dtype, sequence after sequence
    ///
    /// # Errors
    /// [`Error::Shape`] if the rows do not fit, [`Error::Dtype`] if they are of another dtype, [`Error::Place`] if they
    /// are in other memory; [`Error::Setting`] if there is no room for them.
    pub fn append(&mut self, k: &Tensor, v: &Tensor) -> Result<()> {
        let rows = k.rows().checked_div(self.sequences).unwrap_or(0);
        if self.len + rows > self.capacity {
            let what = format!("{} rows and {rows} more do not fit into {}", self.len, self.capacity);
            return Err(Error::Setting { op: OP, what });
        }
        for (tensor, what) in [(k, "k"), (v, "v")] {
            tensor.expect_dims(OP, what, &[self.sequences * rows, self.width])?;
            tensor.expect_dtype(OP, what, self.dtype())?;
        }
        self.expect_beside(&[("k", k), ("v", v)])?;
        match &mut self.rows {
            Rows::Host(to) => to.append(k, v, self.len, rows)?,
            Rows::Device(to) => to.append(k, v, self.len)?,
        }
        self.len += rows;
        Ok(())
    }

    /// Keeps some sequences and forgets the others.
    ///
    /// # Errors
    /// [`Error::Index`] unless the numbers rise and are those of sequences.
    pub fn keep(&mut self, sequences: &[usize]) -> Result<()> {
        for (place, &from) in sequences.iter().enumerate() {
            let rises = place == 0 || sequences[place - 1] < from;
            if from >= self.sequences || !rises {
                return Err(Error::Index { op: OP, what: "sequence", index: from, len: self.sequences });
            }
        }
        match &mut self.rows {
            Rows::Host(rows) => rows.keep(sequences, self.len),
            Rows::Device(rows) => rows.keep(sequences)?,
        }
        self.sequences = sequences.len();
        Ok(())
    }

    fn dtype(&self) -> Dtype {
        match &self.rows {
            Rows::Host(rows) => rows.dtype(),
            Rows::Device(rows) => rows.dtype(),
        }
    }

    /// Checks that operands are in the memory where the cache is.
    fn expect_beside(&self, operands: &[(&'static str, &Tensor)]) -> Result<()> {
        let nothing = Tensor::zeros(&[0]);
        let own = match &self.rows {
            Rows::Host(_) => &nothing,
            Rows::Device(rows) => rows.keys(),
        };
        Stream::of(OP, &[&[("cache", own)], operands].concat()).map(drop)
    }
}

/// Attention of one row for every sequence over all rows of its cache, its own among them.
///
/// The result of a sequence depends on that sequence alone, to the last bit.
///
/// # Shapes
/// - `q`: `[sequences, heads * head_dim]` of the cache's dtype
/// - returns the same; zeros where the cache is empty. Everything in between is f32
///
/// # Gradient
/// None: training sees whole sequences at once, with [`super::forward`].
///
/// # Errors
/// [`Error::Shape`] if `q` does not fit, [`Error::Dtype`] if it is of another dtype, [`Error::Place`] if it is in other
/// memory than the cache; [`Error::Setting`] if the cache was made for other heads, or a device has no kernels for
/// them.
///
/// # Source
/// That of [`super::forward`].
pub fn step(q: &Tensor, cache: &Cache, shape: &Shape) -> Result<Tensor> {
    let (dim, group) = (shape.head_dim, shape.heads.checked_div(shape.kv_heads).unwrap_or(0));
    if dim == 0 || group * shape.kv_heads != shape.heads || shape.kv_heads * dim != cache.width {
        let what = format!("{shape:?} and a cache of rows of {} do not fit", cache.width);
        return Err(Error::Setting { op: OP, what });
    }
    q.expect_dims(OP, "q", &[cache.sequences, shape.heads * dim])?;
    q.expect_dtype(OP, "q", cache.dtype())?;
    cache.expect_beside(&[("q", q)])?;
    match &cache.rows {
        Rows::Host(rows) => rows.step(q, shape, cache.len),
        Rows::Device(rows) => rows.step(q, shape, cache.len),
    }
}
