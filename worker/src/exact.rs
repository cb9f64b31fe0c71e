//! Figures that a file gives back to the bit: JSON numbers need not be read as they were written, words are.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// `Option<f64>`.
pub(crate) mod option {
    use super::*;

    #[allow(clippy::ref_option, reason = "serde passes fields by reference")]
    pub(crate) fn serialize<S: Serializer>(value: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(value.iter().map(f64::to_string))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        let words = Vec::<String>::deserialize(from)?;
        words.first().map(|word| word.parse().map_err(D::Error::custom)).transpose()
    }
}

/// `Vec<(u64, f64)>`.
pub(crate) mod curve {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(curve: &[(u64, f64)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(curve.iter().map(|(step, figure)| (step, figure.to_string())))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(u64, f64)>, D::Error> {
        let words = Vec::<(u64, String)>::deserialize(from)?;
        let figure = |(step, word): (u64, String)| Ok((step, word.parse().map_err(D::Error::custom)?));
        words.into_iter().map(figure).collect()
    }
}
