//! Linear layers: dense, with a low-rank update, with a four-bit weight.

use mllm4rec_kernels::lora::{Base, Update};
use mllm4rec_kernels::nf4::{self, Rounding};
use mllm4rec_kernels::{gemm, lora};

use crate::oracle::{Operand, Oracle, Outcome, constant};

#[test]
fn linear() -> Outcome {
    for (n, d_in, d_out) in [(1, 1, 1), (3, 5, 7), (13, 257, 33), (131, 64, 65), (97, 300, 130)] {
        let x = Operand::noise(1, &[n, d_in])?;
        let w = Operand::noise(2, &[d_out, d_in])?;
        let b = Operand::noise(3, &[d_out])?;
        let y = x.theirs.matmul(&w.theirs.t()?)?.broadcast_add(&b.theirs)?;
        let oracle = Oracle::new((n, d_in, d_out), y, n.max(d_in).max(d_out))?;

        oracle.result(&gemm::linear(&x.ours, &w.ours, Some(&b.ours))?)?;
        let mut in_two_steps = gemm::linear(&x.ours, &w.ours, None)?;
        gemm::add_bias(&mut in_two_steps, &b.ours)?;
        oracle.result(&in_two_steps)?;

        let (mut dw, mut db) = (w.ones()?, b.ones()?);
        oracle.gradient("dx", &gemm::linear_backward_input(&oracle.dy, &w.ours)?, &x)?;
        gemm::linear_backward_weight(&oracle.dy, &x.ours, &mut dw, Some(&mut db))?;
        oracle.added("dw", &dw, &w)?;
        oracle.added("db", &db, &b)?;
    }
    Ok(())
}

#[test]
fn low_rank_update() -> Outcome {
    for (n, d_in, rank, d_out) in [(1, 1, 1, 1), (7, 33, 3, 65), (67, 130, 8, 31)] {
        let x = Operand::noise(1, &[n, d_in])?;
        let (a, b) = (Operand::noise(2, &[rank, d_in])?, Operand::noise(3, &[d_out, rank])?);
        let base = Operand::noise(4, &[n, d_out])?;
        let scale = 1.75;
        let inner = x.theirs.matmul(&a.theirs.t()?)?;
        let y = (base.theirs.as_tensor() + (inner.matmul(&b.theirs.t()?)? * scale)?)?;
        let oracle = Oracle::new((n, d_in, rank, d_out), y, n.max(d_in).max(d_out))?;

        let mut y = base.ours.clone();
        let inner = lora::forward(&x.ours, &a.ours, &b.ours, scale as f32, &mut y)?;
        oracle.result(&y)?;
        let (mut da, mut db) = (a.ones()?, b.ones()?);
        let dx = lora::backward(&oracle.dy, &x.ours, &inner, &a.ours, &b.ours, scale as f32, &mut da, &mut db)?;
        oracle.gradient("dx", &dx, &x)?;
        oracle.added("da", &da, &a)?;
        oracle.added("db", &db, &b)?;
    }
    Ok(())
}

#[test]
fn linear_with_low_rank_update() -> Outcome {
    for (n, d_in, rank, d_out) in [(1, 1, 1, 1), (7, 33, 3, 65), (67, 130, 8, 31)] {
        let x = Operand::noise(1, &[n, d_in])?;
        let (a, b) = (Operand::noise(2, &[rank, d_in])?, Operand::noise(3, &[d_out, rank])?);
        let (w, bias) = (Operand::noise(4, &[d_out, d_in])?, Operand::noise(5, &[d_out])?);
        let scale = 1.75;
        let inner = x.theirs.matmul(&a.theirs.t()?)?;
        let y = x.theirs.matmul(&w.theirs.t()?)?.broadcast_add(&bias.theirs)?;
        let y = (y + (inner.matmul(&b.theirs.t()?)? * scale)?)?;
        let oracle = Oracle::new((n, d_in, rank, d_out), y, n.max(d_in).max(d_out))?;

        let (base, update) = (Base::Dense(&w.ours), Update { a: &a.ours, b: &b.ours, scale: scale as f32 });
        let (y, inner) = lora::linear(&x.ours, &x.ours, base, Some(&bias.ours), &update)?;
        oracle.result(&y)?;
        let (mut da, mut db) = (a.ones()?, b.ones()?);
        let d_inner = lora::backward_factors(&oracle.dy, &x.ours, &inner, &update, &mut da, &mut db)?;
        let dx = lora::linear_backward_input(&oracle.dy, &d_inner, base, &update, None)?;
        oracle.gradient("dx", &dx, &x)?;
        oracle.added("da", &da, &a)?;
        oracle.added("db", &db, &b)?;
    }
    Ok(())
}

#[test]
fn four_bit_weight() -> Outcome {
    // The last one has more rows than a tile of decoded weights.
    for (n, d_in, d_out, double) in [(1, 1, 1, false), (5, 33, 7, false), (3, 65, 130, true), (2, 4096, 67, true)] {
        for rounding in [Rounding::F32, Rounding::Bf16, Rounding::F16] {
            let x = Operand::noise(1, &[n, d_in])?;
            let weight = nf4::quantize(&Operand::noise(2, &[d_out, d_in])?.ours, double)?;
            let decoded = constant(weight.shape(), nf4::dequantize(&weight, rounding)?.f32()?)?;
            let y = x.theirs.matmul(&decoded.t()?)?;
            let oracle = Oracle::new((n, d_in, d_out, double, rounding), y, d_in.max(d_out))?;
            oracle.result(&nf4::linear(&x.ours, &weight, rounding)?)?;
            oracle.gradient("dx", &nf4::linear_backward_input(&oracle.dy, &weight, rounding)?, &x)?;
        }
    }
    Ok(())
}
