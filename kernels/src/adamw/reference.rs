//! The update of one element. The fast version calls this too; tests compare it with double precision.

use super::Factors;

/// Returns the new parameter and moments.
#[inline(always)]
pub(super) fn element(p: f32, grad: f32, m: f32, v: f32, f: &Factors) -> (f32, f32, f32) {
    let g = grad * f.grad_scale;
    let m = (g - m).mul_add(f.one_minus_beta1, m);
    let v = (g * f.one_minus_beta2).mul_add(g, v * f.beta2);
    let denominator = v.sqrt().mul_add(f.root_correction, f.eps);
    let p = (m / denominator).mul_add(-f.step_size, p * f.keep);
    (p, m, v)
}
