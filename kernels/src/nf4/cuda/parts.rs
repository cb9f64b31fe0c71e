//! What a weight on a device has beside its codes.

use super::super::{CODE, Magnitudes, Nf4Weight, dynamic_code};
use super::OP;
use crate::cuda::{Arg, Stream};
use crate::{Result, Tensor};

/// The magnitudes on a device, and the values of the two codes.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Parts {
    /// One magnitude a block or, under double quantisation, one scale for every 256 of them: f32.
    values: Tensor,
    /// The codes of the magnitudes under double quantisation: one u8 a block.
    codes: Option<Tensor>,
    /// The mean of the magnitudes under double quantisation.
    offset: f32,
    /// The 16 values of the code, behind them the 256 of the dynamic code: f32.
    books: Tensor,
}

impl Parts {
    /// Brings magnitudes to a device.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] if there are more blocks than kernels count.
    pub(in super::super) fn new(magnitudes: &Magnitudes, on: &Stream) -> Result<Self> {
        let put = |values: Vec<f32>| Tensor::from_f32(&[values.len()], values)?.to_device(on);
        Arg::count(OP, magnitudes.blocks())?;
        let books = put([&CODE[..], &dynamic_code()[..]].concat())?;
        Ok(match magnitudes {
            Magnitudes::Plain(values) => Self { values: put(values.clone())?, codes: None, offset: 0.0, books },
            Magnitudes::Double { codes, scales, offset } => {
                let codes = Tensor::from_u8(&[codes.len()], codes.clone())?.to_device(on)?;
                Self { values: put(scales.clone())?, codes: Some(codes), offset: *offset, books }
            }
        })
    }

    /// Brings them back.
    pub(in super::super) fn to_host(&self) -> Result<Magnitudes> {
        let values = self.values.to_host()?.f32()?.to_vec();
        Ok(match &self.codes {
            None => Magnitudes::Plain(values),
            Some(codes) => {
                Magnitudes::Double { codes: codes.to_host()?.u8()?.to_vec(), scales: values, offset: self.offset }
            }
        })
    }

    /// The memory that the magnitudes take, as on the host.
    pub(in super::super) fn bytes(&self) -> usize {
        4 * self.values.len() + self.codes.as_ref().map_or(0, |codes| codes.len() + 4)
    }
}

/// What every kernel takes of a weight: codes, magnitudes, codes of magnitudes, books, offset.
pub(super) fn args(weight: &Nf4Weight) -> Result<[Arg; 5]> {
    let parts = weight.parts()?;
    let codes = parts.codes.as_ref().map_or(Ok(Arg::NULL), Tensor::arg)?;
    Ok([weight.place().arg()?, parts.values.arg()?, codes, parts.books.arg()?, Arg::F32(parts.offset)])
}

/// The same and the two extents.
pub(super) fn args_of_matrix(weight: &Nf4Weight) -> Result<[Arg; 7]> {
    let [d_out, d_in] = weight.dimensions()?;
    let [codes, values, magnitude_codes, books, offset] = args(weight)?;
    Ok([codes, values, magnitude_codes, books, offset, Arg::count(OP, d_out)?, Arg::count(OP, d_in)?])
}
