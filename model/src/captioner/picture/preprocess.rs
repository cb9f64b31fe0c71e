//! What a checkpoint wants its pictures to look like.

use kernels::patches::Normalisation;
use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Result};

/// Pillow's number for bicubic, the only filter there is here.
const BICUBIC: u64 = 3;
/// A vision network with more pixels a side than this is a mistake in the file.
const LARGEST_SIDE: u64 = 4096;

/// The settings of `preprocessor_config.json`, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// Pixels a side.
    pub size: usize,
    /// How bytes become numbers.
    pub normalisation: Normalisation,
}

impl Default for Preprocess {
    /// What the BLIP image processor does without a file: 384 pixels, mean and deviation of CLIP's training pictures.
    fn default() -> Self {
        let normalisation = Normalisation {
            rescale: 1.0 / 255.0,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        };
        Self { size: 384, normalisation }
    }
}

/// The keys that matter; what is not here is the default of the BLIP image processor.
#[derive(Deserialize)]
struct Raw {
    size: Option<Value>,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
    rescale_factor: Option<f64>,
    resample: Option<Value>,
    do_resize: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    do_convert_rgb: Option<bool>,
    do_center_crop: Option<bool>,
    do_pad: Option<bool>,
}

impl Preprocess {
    /// Reads `preprocessor_config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] if it is no JSON, or asks for a step that is not done here; the key is named.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| refuse(format!("{e}")))?;
        raw.check_steps()?;
        let default = Self::default();
        let mean = raw.image_mean.unwrap_or(default.normalisation.mean);
        let std = raw.image_std.unwrap_or(default.normalisation.std);
        if !mean.iter().chain(&std).all(|v| v.is_finite()) || std.iter().any(|&v| v <= 0.0) {
            return Err(refuse(format!(
                "image_mean {mean:?} and image_std {std:?} must be numbers, the latter above 0"
            )));
        }
        let rescale = raw.rescale_factor.map_or(default.normalisation.rescale, |v| v as f32);
        if !(rescale.is_finite() && rescale > 0.0) {
            return Err(refuse(format!("rescale_factor {rescale} must be above 0")));
        }
        let size = raw.size.as_ref().map_or(Ok(default.size), side)?;
        Ok(Self { size, normalisation: Normalisation { rescale, mean, std } })
    }
}

impl Raw {
    /// Refuses a file that leaves out a step or adds one.
    fn check_steps(&self) -> Result<()> {
        let done = [
            ("do_resize", self.do_resize),
            ("do_rescale", self.do_rescale),
            ("do_normalize", self.do_normalize),
            ("do_convert_rgb", self.do_convert_rgb),
        ];
        if let Some((key, _)) = done.iter().find(|(_, value)| *value == Some(false)) {
            return Err(refuse(format!("{key} = false is not supported: set it to true or leave it out")));
        }
        let left_out = [("do_center_crop", self.do_center_crop), ("do_pad", self.do_pad)];
        if let Some((key, _)) = left_out.iter().find(|(_, value)| *value == Some(true)) {
            return Err(refuse(format!("{key} = true is not supported: set it to false or leave it out")));
        }
        match &self.resample {
            Some(filter) if filter.as_u64() != Some(BICUBIC) => {
                Err(refuse(format!("resample = {filter} is not supported: only {BICUBIC} (bicubic) is")))
            }
            _ => Ok(()),
        }
    }
}

/// The side of a square: `{"height": 224, "width": 224}` or, as older files have it, `224`.
fn side(size: &Value) -> Result<usize> {
    let square = match size {
        Value::Object(keys) => keys.get("height").filter(|height| keys.get("width") == Some(height)),
        number => Some(number),
    };
    let side = square.and_then(Value::as_u64).filter(|side| (1..=LARGEST_SIDE).contains(side));
    side.map(|side| side as usize).ok_or_else(|| {
        refuse(format!("size = {size} is not supported: height and width must be equal, from 1 to {LARGEST_SIDE}"))
    })
}

fn refuse(what: String) -> Error {
    Error::Config(format!("preprocessor_config.json: {what}"))
}
