//! Whether a device computes what it should: a look at it before it gets work.

use crate::collective::nccl;
use crate::{Device, Error, Result, Tensor, gemm};

/// Extents of the product: enough for all of a card to work, and little for a CPU.
const ROWS: usize = 512;
const COLS: usize = 384;
const DEPTH: usize = 768;
/// The operands repeat with this period, both with the same: so their products do not cancel out.
const PERIOD: usize = 11;

/// Multiplies matrices and adds them to themselves, and on a card sums over NCCL with itself where that is there: all with results
/// that are known. It takes far less than a second once the libraries are loaded.
///
/// # Errors
/// [`Error::Device`] or [`Error::Gang`] if something else comes out, with what and where; those of the device and of NCCL.
pub fn check(device: &Device) -> Result<()> {
    let product = device.run(|| product(device))?;
    compare(&device.name(), product.to_host()?.f32()?)?;
    nccl::check(device)
}

/// Whole numbers so small that every sum of their products is exact, in any order and in any number format of tensor cores.
fn left(row: usize, k: usize) -> i16 {
    ((3 * row + 5 * k) % PERIOD) as i16 - 5
}

fn right(col: usize, k: usize) -> i16 {
    ((9 * col + 2 * k) % PERIOD) as i16 - 5
}

/// Twice the product of [`left`] and [`right`].
fn product(device: &Device) -> Result<Tensor> {
    let matrix = |rows: usize, value: fn(usize, usize) -> i16| {
        let values = (0..rows * DEPTH).map(|i| f32::from(value(i / DEPTH, i % DEPTH))).collect();
        device.put(&Tensor::from_f32(&[rows, DEPTH], values)?)
    };
    let mut product = gemm::linear(&matrix(ROWS, left)?, &matrix(COLS, right)?, None)?;
    let once = product.clone();
    product.add(&once)?;
    Ok(product)
}

fn compare(device: &str, found: &[f32]) -> Result<()> {
    let sum = |row, col| (0..DEPTH).map(|k| i32::from(left(row, k)) * i32::from(right(col, k))).sum::<i32>();
    let known: Vec<f32> = (0..PERIOD * PERIOD).map(|i| 2.0 * sum(i / PERIOD, i % PERIOD) as f32).collect();
    for (i, found) in found.iter().enumerate() {
        let (row, col) = (i / COLS, i % COLS);
        let wanted = known[row % PERIOD * PERIOD + col % PERIOD];
        if *found != wanted {
            return Err(Error::Device(format!(
                "{device} computes wrong sums: row {row}, column {col} of a product is {found} in the place of {wanted}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn devices_that_compute_as_they_should_pass() {
        check(&Device::cpu(2).unwrap()).unwrap();
        check(&Device::under_test().unwrap()).unwrap();
    }

    #[test]
    fn wrong_sums_are_told_with_their_place() {
        let device = Device::cpu(1).unwrap();
        let mut values = product(&device).unwrap().to_f32();
        values[5 * COLS + 7] += 2.0;
        let said = compare("the device", &values).unwrap_err().to_string();
        assert!(said.contains("the device computes wrong sums: row 5, column 7"), "{said}");
        // The known results are not all alike.
        assert!(values[0] != values[1] && values[0] != values[COLS]);
    }

    #[test]
    fn a_lost_device_does_not_pass_even_if_it_is_emulated() {
        assert!(check(&Device::mortal(0).unwrap()).unwrap_err().is_lost());
    }
}
