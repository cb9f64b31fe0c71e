//! Normalisations.

use candle_core::D;
use mllm4rec_kernels::{layer_norm, rms_norm};

use crate::oracle::{Operand, Oracle, Outcome};

const SHAPES: [(usize, usize); 5] = [(1, 1), (3, 5), (65, 17), (131, 64), (2, 1003)];
const EPS: f32 = 1e-5;

#[test]
fn layer() -> Outcome {
    for (n, d) in SHAPES {
        let x = Operand::noise(1, &[n, d])?;
        let (w, b) = (Operand::noise(2, &[d])?, Operand::noise(3, &[d])?);
        let centred = x.theirs.broadcast_sub(&x.theirs.mean_keepdim(D::Minus1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + f64::from(EPS))?.sqrt()?;
        let y = centred.broadcast_div(&deviation)?.broadcast_mul(&w.theirs)?.broadcast_add(&b.theirs)?;
        let oracle = Oracle::new((n, d), y, n.max(d))?;

        let (y, saved) = layer_norm::forward(&x.ours, &w.ours, &b.ours, EPS)?;
        oracle.result(&y)?;
        let (mut dw, mut db) = (w.ones()?, b.ones()?);
        let dx = layer_norm::backward(&oracle.dy, &x.ours, &saved, &w.ours, &mut dw, &mut db)?;
        oracle.gradient("dx", &dx, &x)?;
        oracle.added("dw", &dw, &w)?;
        oracle.added("db", &db, &b)?;
    }
    Ok(())
}

#[test]
fn root_mean_square() -> Outcome {
    for (n, d) in SHAPES {
        let (x, w) = (Operand::noise(1, &[n, d])?, Operand::noise(2, &[d])?);
        let size = (x.theirs.sqr()?.mean_keepdim(D::Minus1)? + f64::from(EPS))?.sqrt()?;
        let y = x.theirs.broadcast_div(&size)?.broadcast_mul(&w.theirs)?;
        let oracle = Oracle::new((n, d), y, n.max(d))?;

        let (y, saved) = rms_norm::forward(&x.ours, &w.ours, EPS)?;
        oracle.result(&y)?;
        let mut dw = w.ones()?;
        oracle.gradient("dx", &rms_norm::backward(&oracle.dy, &x.ours, &saved, &w.ours, Some(&mut dw))?, &x)?;
        oracle.added("dw", &dw, &w)?;
    }
    Ok(())
}
