//! A weight in four bits, in the memory of the host or of a device.

use super::cuda::Parts;
use super::{BLOCK, NESTED_BLOCK, dynamic_code};
use crate::cuda::Stream;
use crate::{Device, Error, Result, Tensor, tensor::elements};

/// The largest magnitudes of the blocks.
#[derive(Clone, Debug, PartialEq)]
pub enum Magnitudes {
    /// One 32-bit float a block.
    Plain(Vec<f32>),
    /// Double quantisation: `magnitude = dynamic_code[codes[block]] * scales[block / 256] + offset`.
    Double {
        /// One code a block.
        codes: Vec<u8>,
        /// One scale for every 256 blocks.
        scales: Vec<f32>,
        /// The mean of all magnitudes.
        offset: f32,
    },
}

impl Magnitudes {
    pub(super) fn blocks(&self) -> usize {
        match self {
            Self::Plain(values) => values.len(),
            Self::Double { codes, .. } => codes.len(),
        }
    }

    /// The memory that they take.
    fn bytes(&self) -> usize {
        match self {
            Self::Plain(values) => 4 * values.len(),
            Self::Double { codes, scales, .. } => codes.len() + 4 * scales.len() + 4,
        }
    }

    /// The magnitude of one block.
    #[inline(always)]
    pub(super) fn get(&self, block: usize) -> f32 {
        match self {
            Self::Plain(values) => values[block],
            Self::Double { codes, scales, offset } => {
                doubly_quantised(codes[block], scales[block / NESTED_BLOCK], *offset, dynamic_code())
            }
        }
    }

    /// The magnitudes of neighbouring blocks. A function of its own: with the instructions of its callers it would become
    /// gathers, which take longer.
    #[inline(never)]
    pub(super) fn read(&self, first: usize, values: &mut [f32]) {
        match self {
            Self::Plain(all) => values.copy_from_slice(&all[first..first + values.len()]),
            Self::Double { codes, scales, offset } => {
                let (dynamic, mut block, mut values) = (dynamic_code(), first, values);
                // As many at a time as share a scale.
                while !values.is_empty() {
                    let here = (NESTED_BLOCK - block % NESTED_BLOCK).min(values.len());
                    let (now, later) = values.split_at_mut(here);
                    let scale = scales[block / NESTED_BLOCK];
                    for (value, &code) in now.iter_mut().zip(&codes[block..block + here]) {
                        *value = doubly_quantised(code, scale, *offset, dynamic);
                    }
                    (block, values) = (block + here, later);
                }
            }
        }
    }
}

/// The product comes first, then the sum, each rounded: the bits are bitsandbytes'.
#[inline(always)]
fn doubly_quantised(code: u8, scale: f32, offset: f32, dynamic: &[f32; 256]) -> f32 {
    dynamic[usize::from(code)] * scale + offset
}

/// A weight in four bits.
///
/// Operations run where it is; what they multiply it with must be there too. Two weights are equal if they are in the same
/// kind of memory and have the same parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Nf4Weight {
    shape: Vec<usize>,
    codes: Tensor,
    magnitudes: Stored,
}

/// The magnitudes, in the memory of the codes.
#[derive(Clone, Debug, PartialEq)]
enum Stored {
    Host(Magnitudes),
    Device(Parts),
}

impl Nf4Weight {
    /// A weight from stored parts, on the host.
    ///
    /// # Shapes
    /// - `codes`: two values a byte, the earlier one in the high nibble; an odd last nibble is ignored
    /// - `magnitudes`: one for every 64 values, the last block may be short
    ///
    /// # Errors
    /// [`Error::Shape`] if a part is too short or too long for the shape. Magnitudes are not looked into: one that is not
    /// finite makes NaN or infinities of its block.
    pub fn from_parts(shape: &[usize], codes: Vec<u8>, magnitudes: Magnitudes) -> Result<Self> {
        let n =
            elements(shape).ok_or_else(|| Error::shape("nf4", "weight", shape, "no more than memory can address"))?;
        if codes.len() != n.div_ceil(2) {
            return Err(Error::shape("nf4", "codes", &[codes.len()], format!("[{}]", n.div_ceil(2))));
        }
        let blocks = n.div_ceil(BLOCK);
        if magnitudes.blocks() != blocks {
            return Err(Error::shape("nf4", "magnitudes", &[magnitudes.blocks()], format!("[{blocks}]")));
        }
        if let Magnitudes::Double { scales, .. } = &magnitudes
            && scales.len() != blocks.div_ceil(NESTED_BLOCK)
        {
            let expected = format!("[{}]", blocks.div_ceil(NESTED_BLOCK));
            return Err(Error::shape("nf4", "nested scales", &[scales.len()], expected));
        }
        let codes = Tensor::from_u8(&[codes.len()], codes)?;
        Ok(Self { shape: shape.to_vec(), codes, magnitudes: Stored::Host(magnitudes) })
    }

    /// The weight in the memory of a device; one that is there already is shared.
    ///
    /// # Errors
    /// [`Error::Memory`] if there is no room; [`Error::Place`] for a weight of another device.
    pub fn on(&self, device: &Device) -> Result<Self> {
        device.stream().map_or_else(|| self.to_host(), |stream| self.to_device(stream))
    }

    pub(super) fn to_device(&self, on: &Stream) -> Result<Self> {
        let codes = self.codes.to_device(on)?;
        let magnitudes = match &self.magnitudes {
            Stored::Host(magnitudes) => Stored::Device(Parts::new(magnitudes, on)?),
            Stored::Device(parts) => Stored::Device(parts.clone()),
        };
        Ok(Self { shape: self.shape.clone(), codes, magnitudes })
    }

    /// The weight on the host; one that is there already is copied.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn to_host(&self) -> Result<Self> {
        let codes = self.codes.to_host()?;
        let magnitudes = match &self.magnitudes {
            Stored::Host(magnitudes) => magnitudes.clone(),
            Stored::Device(parts) => parts.to_host()?,
        };
        Ok(Self { shape: self.shape.clone(), codes, magnitudes: Stored::Host(magnitudes) })
    }

    /// The shape of the weight that the codes stand for.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Two codes a byte.
    ///
    /// # Panics
    /// If the weight is on a device: [`Nf4Weight::to_host`] brings it back.
    #[must_use]
    pub fn codes(&self) -> &[u8] {
        self.codes.u8().expect("the weight is on the host")
    }

    /// The magnitudes of the blocks.
    ///
    /// # Panics
    /// As [`Nf4Weight::codes`].
    #[must_use]
    pub fn magnitudes(&self) -> &Magnitudes {
        match &self.magnitudes {
            Stored::Host(magnitudes) => magnitudes,
            Stored::Device(_) => panic!("the weight is on a device: its magnitudes are read from a copy on the host"),
        }
    }

    /// The memory that the parts take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.codes.len()
            + match &self.magnitudes {
                Stored::Host(magnitudes) => magnitudes.bytes(),
                Stored::Device(parts) => parts.bytes(),
            }
    }

    /// The two extents of a matrix.
    pub(crate) fn dimensions(&self) -> Result<[usize; 2]> {
        match self.shape[..] {
            [d_out, d_in] => Ok([d_out, d_in]),
            _ => Err(Error::shape("nf4", "weight", &self.shape, "[d_out, d_in]")),
        }
    }

    /// The codes, wherever they are: they tell the place of the weight.
    pub(crate) fn place(&self) -> &Tensor {
        &self.codes
    }

    /// The magnitudes on a device.
    pub(super) fn parts(&self) -> Result<&Parts> {
        match &self.magnitudes {
            Stored::Device(parts) => Ok(parts),
            Stored::Host(_) => {
                Err(Error::Device("a four-bit weight on a device has its magnitudes on the host".to_owned()))
            }
        }
    }
}
