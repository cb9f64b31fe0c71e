//! Operations that look something up for every row: an embedding by id, a rotation by position.

use candle_core::{Device, IndexOp, Tensor};
use mllm4rec_kernels::embedding;
use mllm4rec_kernels::rope::{self, Config, Scaling, Tables};

use crate::oracle::{Operand, Oracle, Outcome, constant};

#[test]
fn embedding_rows() -> Outcome {
    // The last table is longer than a task; ids repeat, and some are never used.
    for (rows, d, n) in [(1, 1, 1), (5, 3, 17), (1030, 17, 97)] {
        let ids: Vec<u32> = (0..n).map(|i| (i * i * 31 % rows) as u32).collect();
        let table = Operand::noise(1, &[rows, d])?;
        let y = table.theirs.index_select(&Tensor::new(ids.as_slice(), &Device::Cpu)?, 0)?;
        let oracle = Oracle::new((rows, d, n), y, n)?;
        oracle.result(&embedding::forward(&table.ours, &ids)?)?;
        let mut d_table = table.ones()?;
        embedding::backward(&oracle.dy, &ids, &mut d_table)?;
        oracle.added("d_table", &d_table, &table)?;
    }
    Ok(())
}

#[test]
fn rotation() -> Outcome {
    for (n, heads, head_dim) in [(1, 1, 2), (5, 3, 6), (67, 2, 34)] {
        let config = Config { head_dim, theta: 10_000.0, scaling: Scaling::None };
        let positions: Vec<u32> = (0..n as u32).map(|i| i * 7 % 90).collect();
        let x = Operand::noise(1, &[n, heads * head_dim])?;
        let oracle = Oracle::new((n, heads, head_dim), rotated(&x.theirs, &positions, heads, &config)?, 2)?;

        let tables = Tables::new(&config, 90)?;
        let (mut y, mut dx) = (x.ours.clone(), oracle.dy.clone());
        rope::apply(&mut y, &positions, &tables, heads)?;
        rope::apply_inverse(&mut dx, &positions, &tables, heads)?;
        oracle.result(&y)?;
        oracle.gradient("dx", &dx, &x)?;
    }
    Ok(())
}

/// The rotation by its definition. Angles are rounded to single precision, as the checkpoints' are.
fn rotated(x: &Tensor, positions: &[u32], heads: usize, config: &Config) -> candle_core::Result<Tensor> {
    let (n, half) = (positions.len(), config.head_dim / 2);
    let frequency = |i: usize| config.theta.powf(-2.0 * i as f64 / config.head_dim as f64) as f32;
    let angles: Vec<f32> = positions.iter().flat_map(|&p| (0..half).map(move |i| p as f32 * frequency(i))).collect();
    let angles = constant(&[n, 1, half], &angles)?;
    let (cos, sin) = (angles.cos()?, angles.sin()?);
    let x = x.reshape((n, heads, 2, half))?;
    let (re, im) = (x.i((.., .., 0))?, x.i((.., .., 1))?); // [n, heads, half]
    let turned_re = (re.broadcast_mul(&cos)? - im.broadcast_mul(&sin)?)?;
    let turned_im = (re.broadcast_mul(&sin)? + im.broadcast_mul(&cos)?)?;
    Tensor::stack(&[turned_re, turned_im], 2)?.reshape((n, heads * config.head_dim))
}
