//! Operations on every element by itself.

use mllm4rec_kernels::dropout::{self, Mask};
use mllm4rec_kernels::{Tensor, gelu, swiglu};

use crate::oracle::{Operand, Oracle, Outcome, constant, noise};

/// The last is longer than a task.
const SHAPES: [[usize; 2]; 4] = [[1, 1], [3, 5], [7, 131], [17, 1003]];

/// Values between -4 and 4, where the functions bend.
fn wide(seed: u64, shape: &[usize]) -> Outcome<Operand> {
    Operand::new(shape, noise(seed, shape.iter().product()).into_iter().map(|v| 4.0 * v).collect())
}

#[test]
fn exact_gelu() -> Outcome {
    for shape in SHAPES {
        let x = wide(1, &shape)?;
        let distribution = (((&*x.theirs * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5)?;
        let oracle = Oracle::new(shape, (&*x.theirs * distribution)?, 1)?;
        oracle.result(&gelu::forward(&x.ours)?)?;
        oracle.gradient("dx", &gelu::backward(&oracle.dy, &x.ours)?, &x)?;
    }
    Ok(())
}

#[test]
fn gated_unit() -> Outcome {
    for shape in SHAPES {
        let (gate, up) = (wide(1, &shape)?, wide(2, &shape)?);
        let sigmoid = (gate.theirs.neg()?.exp()? + 1.0)?.recip()?;
        let oracle = Oracle::new(shape, ((&*gate.theirs * sigmoid)? * &*up.theirs)?, 1)?;
        oracle.result(&swiglu::forward(&gate.ours, &up.ours)?)?;
        let (dgate, dup) = swiglu::backward(&oracle.dy, &gate.ours, &up.ours)?;
        oracle.gradient("dgate", &dgate, &gate)?;
        oracle.gradient("dup", &dup, &up)?;
    }
    Ok(())
}

/// The mask is read off a tensor of ones; its distribution is tested beside the operation.
#[test]
fn dropout_with_its_mask() -> Outcome {
    for ([n, d], rate) in SHAPES.into_iter().zip([0.0, 0.5, 0.1, 0.9]) {
        let mask = Mask { seed: 7, site: 3, rate };
        let keys: Vec<u64> = (0..n as u64).map(|row| row * 1_000_003).collect();
        let mut factors = Tensor::from_f32(&[n, d], vec![1.0; n * d])?;
        dropout::apply(&mut factors, &mask, &keys)?;

        let x = Operand::noise(1, &[n, d])?;
        let oracle = Oracle::new((n, d, rate), (&*x.theirs * constant(&[n, d], factors.f32()?)?)?, 1)?;
        let (mut y, mut dx) = (x.ours.clone(), oracle.dy.clone());
        dropout::apply(&mut y, &mask, &keys)?;
        dropout::apply(&mut dx, &mask, &keys)?;
        oracle.result(&y)?;
        oracle.gradient("dx", &dx, &x)?;
    }
    Ok(())
}
