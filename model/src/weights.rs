//! Tensors as safetensors bytes.

#[cfg(test)]
mod tests;

pub use kernels::Dtype;
use kernels::Tensor;
use safetensors::{SafeTensors, tensor::TensorView};

use crate::{Error, Result, params::Params};

/// Reads every tensor as it is stored: F32, BF16, F16 or U8. `what` names the bytes in errors.
///
/// # Errors
/// [`Error::Safetensors`] if the bytes are no safetensors file; [`Error::TensorType`] for another type of tensor.
pub fn from_bytes(what: &str, bytes: &[u8]) -> Result<Params> {
    let file =
        SafeTensors::deserialize(bytes).map_err(|source| Error::Safetensors { what: what.to_owned(), source })?;
    file.iter().map(|(name, view)| Ok((name.to_owned(), to_tensor(name, &view)?))).collect()
}

/// Reads every tensor and converts it to f32, which is exact.
///
/// # Errors
/// As [`from_bytes`].
pub fn from_bytes_f32(what: &str, bytes: &[u8]) -> Result<Params> {
    from_bytes(what, bytes)?
        .into_iter()
        .map(|(name, tensor)| {
            Ok((name, if tensor.dtype() == Dtype::F32 { tensor } else { cast(&tensor, Dtype::F32)? }))
        })
        .collect()
}

/// Writes every tensor as it is, in the order of names: the same tensors give the same bytes.
///
/// # Errors
/// [`Error::Safetensors`] if the tensors cannot be written.
pub fn to_bytes(params: &Params) -> Result<Vec<u8>> {
    let bytes = |(name, t): (_, &Tensor)| Ok((name, t.dtype(), t.shape().to_vec(), t.to_host()?.to_le_bytes()));
    let data: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> = params.iter().map(bytes).collect::<Result<_>>()?;
    let error = |source| Error::Safetensors { what: "weights".to_owned(), source };
    let views = data
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((*name, TensorView::new(dtype_of(*dtype), shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(error)?;
    safetensors::serialize(views, None).map_err(error)
}

/// The same values in another float type, rounded to nearest even.
///
/// # Errors
/// [`Error::Kernel`] if the target is not a float type.
pub fn cast(tensor: &Tensor, dtype: Dtype) -> Result<Tensor> {
    Ok(tensor.to_host()?.cast(dtype)?)
}

/// The name of a type in safetensors files.
pub(crate) fn dtype_of(dtype: Dtype) -> safetensors::Dtype {
    match dtype {
        Dtype::F32 => safetensors::Dtype::F32,
        Dtype::Bf16 => safetensors::Dtype::BF16,
        Dtype::F16 => safetensors::Dtype::F16,
        Dtype::U8 => safetensors::Dtype::U8,
    }
}

/// Copies one stored tensor.
///
/// # Errors
/// [`Error::TensorType`] for a type other than F32, BF16, F16 and U8.
pub fn to_tensor(name: &str, view: &TensorView<'_>) -> Result<Tensor> {
    Ok(Tensor::from_le_bytes(view.shape(), to_dtype(name, view.dtype())?, view.data())?)
}

/// The type of a stored tensor.
///
/// # Errors
/// [`Error::TensorType`] for a type that [`to_tensor`] does not read.
pub fn to_dtype(name: &str, dtype: safetensors::Dtype) -> Result<Dtype> {
    match dtype {
        safetensors::Dtype::F32 => Ok(Dtype::F32),
        safetensors::Dtype::BF16 => Ok(Dtype::Bf16),
        safetensors::Dtype::F16 => Ok(Dtype::F16),
        safetensors::Dtype::U8 => Ok(Dtype::U8),
        other => Err(unread(name, other)),
    }
}

fn unread(name: &str, dtype: safetensors::Dtype) -> Error {
    Error::TensorType { name: name.to_owned(), found: format!("{dtype:?}") }
}
