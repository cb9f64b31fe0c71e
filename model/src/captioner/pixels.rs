//! What the vision tower looks at.

use std::ops::Range;

use kernels::{
    Tensor,
    patches::{self, Normalisation},
};

use crate::{Error, Result};

/// Pictures of the size that the vision tower takes.
#[derive(Clone, Copy, Debug)]
pub enum Pixels<'a> {
    /// As they were decoded, `[pictures, side, side, 3]` u8, and how bytes become numbers.
    Bytes(&'a Tensor, &'a Normalisation),
    /// `[pictures, 3, side, side]` f32.
    Normalised(&'a Tensor),
}

impl<'a> From<&'a Tensor> for Pixels<'a> {
    fn from(normalised: &'a Tensor) -> Self {
        Self::Normalised(normalised)
    }
}

impl Pixels<'_> {
    fn tensor(&self) -> &Tensor {
        match self {
            Self::Bytes(tensor, _) | Self::Normalised(tensor) => tensor,
        }
    }

    /// The number of pictures, all with `side` pixels on each side.
    pub(super) fn count(&self, side: usize) -> Result<usize> {
        let shape = self.tensor().shape();
        let [pictures, height, width] = match (self, shape) {
            (Self::Bytes(..), &[n, height, width, 3]) | (Self::Normalised(_), &[n, 3, height, width]) => {
                [n, height, width]
            }
            (Self::Bytes(..), _) => {
                return Err(Error::Input(format!("pixels have shape {shape:?}, expected [n, {side}, {side}, 3]")));
            }
            (Self::Normalised(_), _) => {
                return Err(Error::Input(format!("pixels have shape {shape:?}, expected [n, 3, {side}, {side}]")));
            }
        };
        if (height, width) != (side, side) {
            return Err(Error::Input(format!(
                "pictures of {width} x {height} pixels, the model takes {side} x {side}"
            )));
        }
        Ok(pictures)
    }

    /// The patches of some pictures, `[pictures * patches, 3 * side * side]` f32, in the memory where another tensor is.
    pub(super) fn patches(&self, pictures: Range<usize>, side: usize, place: &Tensor) -> Result<Tensor> {
        let all = self.tensor();
        let mut shape = all.shape().to_vec();
        let each: usize = shape[1..].iter().product();
        shape[0] = pictures.len();
        let range = pictures.start * each..pictures.end * each;
        Ok(match self {
            Self::Bytes(_, normalisation) => {
                let some = Tensor::from_u8(&shape, all.u8()?[range].to_vec())?;
                patches::normalised(&some.beside(place)?, side, normalisation)?
            }
            Self::Normalised(_) => {
                let some = Tensor::from_f32(&shape, all.f32()?[range].to_vec())?;
                patches::cut(&some.beside(place)?, side)?
            }
        })
    }
}
