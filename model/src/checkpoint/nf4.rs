//! Weights that bitsandbytes has quantised: packed codes with their `quant_state` beside them.

use kernels::nf4::{BLOCK, CODE, Magnitudes, NESTED_BLOCK, Nf4Weight, Rounding, dynamic_code};
use serde::Deserialize;

use super::Checkpoint;
use crate::{Error, Result};

/// The suffix of the tensor that says how a weight is packed.
const STATE: &str = "quant_state.bitsandbytes__nf4";

/// A weight in four bits, and how its checkpoint means its values to be rounded.
#[derive(Clone, Debug)]
pub struct StoredNf4 {
    /// The packed weight.
    pub weight: Nf4Weight,
    /// What the values were before they were packed.
    pub rounding: Rounding,
}

/// `quant_state.bitsandbytes__nf4`: a JSON text in a tensor of bytes.
#[derive(Deserialize)]
struct State {
    quant_type: String,
    blocksize: usize,
    dtype: String,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f32>,
}

impl State {
    fn rounding(&self, name: &str) -> Result<Rounding> {
        match self.dtype.as_str() {
            "float32" => Ok(Rounding::F32),
            "bfloat16" => Ok(Rounding::Bf16),
            "float16" => Ok(Rounding::F16),
            other => {
                let what = format!("it stands for values of type {other}");
                Err(Error::Quantized { name: name.to_owned(), what })
            }
        }
    }
}

impl Checkpoint {
    /// The weight of that name in the packed form that bitsandbytes writes; none if it is not packed.
    ///
    /// # Errors
    /// [`Error::Quantized`] for a packing that is not read: FP4, eight bits, other blocks, another code.
    pub fn nf4(&self, name: &str) -> Result<Option<StoredNf4>> {
        let wrong = |what: String| Error::Quantized { name: name.to_owned(), what };
        let Some(state) = self.nf4_state(name)? else { return Ok(None) };
        let rounding = state.rounding(name)?;
        let part = |suffix: &str| self.stored(&format!("{name}.{suffix}"));
        let bytes = |suffix: &str| Ok::<_, Error>(part(suffix)?.u8()?.to_vec());
        let floats = |suffix: &str| Ok::<_, Error>(part(suffix)?.f32()?.to_vec());
        if floats("quant_map")? != CODE {
            return Err(wrong("its quant_map is not NF4's".to_owned()));
        }
        let magnitudes = match state.nested_offset {
            Some(offset) => {
                if floats("nested_quant_map")? != dynamic_code() {
                    return Err(wrong("its nested_quant_map is not bitsandbytes' dynamic code".to_owned()));
                }
                Magnitudes::Double { codes: bytes("absmax")?, scales: floats("nested_absmax")?, offset }
            }
            None => Magnitudes::Plain(floats("absmax")?),
        };
        let weight = Nf4Weight::from_parts(&state.shape, self.stored(name)?.u8()?.to_vec(), magnitudes)?;
        Ok(Some(StoredNf4 { weight, rounding }))
    }

    /// The values that a packed weight stands for, from the headers and its state alone; none if it is not packed.
    ///
    /// # Errors
    /// As [`Checkpoint::nf4`].
    pub fn nf4_form(&self, name: &str) -> Result<Option<(Rounding, Vec<usize>)>> {
        let Some(state) = self.nf4_state(name)? else { return Ok(None) };
        Ok(Some((state.rounding(name)?, state.shape)))
    }

    fn nf4_state(&self, name: &str) -> Result<Option<State>> {
        let wrong = |what: String| Error::Quantized { name: name.to_owned(), what };
        if self.contains(&format!("{name}.quant_state.bitsandbytes__fp4")) {
            return Err(wrong("it is packed as FP4".to_owned()));
        }
        let place = format!("{name}.{STATE}");
        if !self.contains(&place) {
            return match self.contains(&format!("{}.SCB", name.trim_end_matches(".weight"))) {
                true => Err(wrong("it is packed in eight bits".to_owned())),
                false => Ok(None),
            };
        }
        let text = self.stored(&place)?;
        let state: State = serde_json::from_slice(text.u8()?).map_err(|e| wrong(format!("its quant_state: {e}")))?;
        let blocks = (state.blocksize, state.nested_blocksize.unwrap_or(NESTED_BLOCK));
        if state.quant_type != "nf4" || blocks != (BLOCK, NESTED_BLOCK) {
            let (kind, (block, nested)) = (&state.quant_type, blocks);
            return Err(wrong(format!("it is packed as {kind} in blocks of {block} and {nested}")));
        }
        Ok(Some(state))
    }
}
