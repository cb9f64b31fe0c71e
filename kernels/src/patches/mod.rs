//! Pictures to patches: the rows that a vision transformer begins with.
//!
//! A patch is a square of pixels; its row holds all of red, then green, then blue, each line by line, as the kernel of
//! the convolution does that other code has in this place. So that convolution is a [linear](crate::gemm::linear) layer.

mod cpu;
mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::cuda::Stream;
use crate::{Dtype, Error, Result, Tensor};

/// How a byte becomes a number: `(byte · rescale − mean) / std`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    /// Brings a byte to 0..1.
    pub rescale: f32,
    /// Of red, green and blue.
    pub mean: [f32; 3],
    /// Of red, green and blue.
    pub std: [f32; 3],
}

impl Normalisation {
    /// The number for every byte of a channel.
    fn table(&self, channel: usize) -> [f32; 256] {
        let (mean, std) = (self.mean[channel], self.std[channel]);
        std::array::from_fn(|byte| (byte as f32 * self.rescale - mean) / std)
    }
}

/// Normalises decoded pictures and cuts them.
///
/// # Shapes
/// - `pictures`: `[n, height, width, 3]` u8, multiples of `side`
/// - returns `[n * patches, 3 * side * side]` f32, the patches of a picture line by line
///
/// # Gradient
/// None: pixels are not learned.
///
/// # Errors
/// [`Error::Shape`] for other shapes; [`Error::Dtype`] unless the pictures are bytes.
pub fn normalised(pictures: &Tensor, side: usize, normalisation: &Normalisation) -> Result<Tensor> {
    const OP: &str = "patches::normalised";
    let &[n, height, width, 3] = pictures.shape() else {
        return Err(Error::shape(OP, "pictures", pictures.shape(), "[n, height, width, 3]"));
    };
    let grid = Grid::new(OP, pictures, [height, width], side)?;
    pictures.expect_dtype(OP, "pictures", Dtype::U8)?;
    if let Some(on) = Stream::of(OP, &[("pictures", pictures)])? {
        return cuda::normalised(&on, pictures, &grid, normalisation);
    }
    let mut rows = Tensor::dirty(&[n * grid.patches(), grid.row()]);
    cpu::normalised(
        pictures.u8()?,
        &grid,
        &std::array::from_fn(|channel| normalisation.table(channel)),
        rows.f32_mut()?,
    );
    Ok(rows)
}

/// Cuts pictures that are normalised already.
///
/// # Shapes
/// - `pictures`: `[n, 3, height, width]` f32, multiples of `side`
/// - returns `[n * patches, 3 * side * side]` f32, as [`normalised`]
///
/// # Gradient
/// None: pixels are not learned.
///
/// # Errors
/// [`Error::Shape`] for other shapes; [`Error::Dtype`] unless the pictures are f32.
pub fn cut(pictures: &Tensor, side: usize) -> Result<Tensor> {
    const OP: &str = "patches::cut";
    let &[n, 3, height, width] = pictures.shape() else {
        return Err(Error::shape(OP, "pictures", pictures.shape(), "[n, 3, height, width]"));
    };
    let grid = Grid::new(OP, pictures, [height, width], side)?;
    pictures.expect_dtype(OP, "pictures", Dtype::F32)?;
    if let Some(on) = Stream::of(OP, &[("pictures", pictures)])? {
        return cuda::cut(&on, pictures, &grid);
    }
    let mut rows = Tensor::dirty(&[n * grid.patches(), grid.row()]);
    cpu::cut(pictures.f32()?, &grid, rows.f32_mut()?);
    Ok(rows)
}

/// How a picture falls into patches.
#[derive(Clone, Copy)]
struct Grid {
    down: usize,
    across: usize,
    /// Pixels on each side of a patch; not zero, and not so many that their numbers overflow.
    side: usize,
}

impl Grid {
    fn new(op: &'static str, pictures: &Tensor, [height, width]: [usize; 2], side: usize) -> Result<Self> {
        let row = side.checked_mul(side).and_then(|pixels| pixels.checked_mul(3));
        if side == 0 || row.is_none() || !height.is_multiple_of(side) || !width.is_multiple_of(side) {
            let expected = format!("multiples of patches of {side} pixels");
            return Err(Error::shape(op, "pictures", pictures.shape(), expected));
        }
        Ok(Self { down: height / side, across: width / side, side })
    }

    fn patches(&self) -> usize {
        self.down * self.across
    }

    /// Numbers of a patch.
    fn row(&self) -> usize {
        3 * self.side * self.side
    }

    fn width(&self) -> usize {
        self.across * self.side
    }

    fn height(&self) -> usize {
        self.down * self.side
    }
}
