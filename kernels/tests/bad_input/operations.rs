//! The table of all operations with the operands that they take.

use mllm4rec_kernels::adamw::{self, Hyper, Moments};
use mllm4rec_kernels::attention::{self, Mask, Operands, PrefixGradient};
use mllm4rec_kernels::dropout;
use mllm4rec_kernels::gemm::{Epilogue, PackedWeight};
use mllm4rec_kernels::linear_cross_entropy as cross_entropy;
use mllm4rec_kernels::lora::{Base, Update};
use mllm4rec_kernels::nf4::{self, Rounding};
use mllm4rec_kernels::{Dtype, Result, Tensor};
use mllm4rec_kernels::{
    embedding, fp8, gelu, gemm, grad_norm, layer_norm, lora, lru_scan, patches, rms_norm, rope, swiglu, top_k,
};

use crate::sizes::{Sizes, noise};

/// Operands by name.
type Shapes = Vec<(&'static str, Vec<usize>)>;

/// An operation, how its operands look, and a call that returns what it computed or added to.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) operands: fn(Sizes) -> Shapes,
    pub(crate) call: fn(Sizes, &mut [Tensor]) -> Result<Vec<Tensor>>,
}

impl Operation {
    /// The module, with which its errors begin.
    pub(crate) fn module(&self) -> &'static str {
        self.name.split("::").next().unwrap_or_default()
    }

    /// Operands that fit.
    pub(crate) fn good(&self, sizes: Sizes) -> Vec<Tensor> {
        (self.operands)(sizes).iter().map(|(_, shape)| noise(shape)).collect()
    }

    /// Calls the operation with one operand replaced.
    pub(crate) fn with(&self, sizes: Sizes, operand: usize, replaced: Tensor) -> Result<Vec<Tensor>> {
        let mut operands = self.good(sizes);
        operands[operand] = replaced;
        (self.call)(sizes, &mut operands)
    }
}

/// Floats as an operation of bfloat16 takes them; what is of another type stays so.
fn narrow(tensor: &mut Tensor) -> Tensor {
    if tensor.dtype() == Dtype::F32 { tensor.to_bf16() } else { tensor.clone() }
}

/// An operation as `name, |sizes| operand: [shape], … => call`, where the operands are `&mut Tensor`.
macro_rules! operation {
    ($name:literal, |$s:ident| $($operand:ident: [$($extent:expr),*]),+ => $call:expr) => {
        Operation {
            name: $name,
            #[allow(unused_variables)]
            operands: |$s| vec![$((stringify!($operand), vec![$($extent),*])),+],
            #[allow(unused_variables)]
            call: |$s, operands| {
                let [$($operand),+] = operands else { unreachable!("as many operands as the table lists") };
                $call
            },
        }
    };
}

const ROUNDING: Rounding = Rounding::F32;
const HYPER: Hyper = Hyper { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-9, weight_decay: 0.01 };

/// Every operation that takes tensors.
#[rustfmt::skip]
pub(crate) fn all() -> Vec<Operation> {
    vec![
        operation!("tensor::add", |s| tensor: [s.n, s.d], other: [s.n, s.d] => {
            tensor.add(other)?;
            Ok(vec![tensor.clone()])
        }),
        operation!("gemm::linear", |s| x: [s.n, s.d], weight: [s.m, s.d], bias: [s.m] => {
            Ok(vec![gemm::linear(x, weight, Some(bias))?])
        }),
        operation!("gemm::linear_packed", |s| x: [s.n, s.d], bias: [s.m] => {
            let epilogue = Epilogue { bias: Some(bias), ..Epilogue::default() };
            Ok(vec![gemm::linear_packed(x, &PackedWeight::new(&noise(&[s.m, s.d]))?, &epilogue)?])
        }),
        operation!("gemm::linear_packed, bfloat16", |s| x: [s.n, s.d], bias: [s.m] => {
            let epilogue = Epilogue { bias: Some(bias), ..Epilogue::default() };
            Ok(vec![gemm::linear_packed(x, &PackedWeight::new(&noise(&[s.m, s.d]).to_bf16())?, &epilogue)?])
        }),
        operation!("gemm::linear_packed_rounded", |s| x: [s.n, s.d], bias: [s.m] => {
            let epilogue = Epilogue { bias: Some(bias), ..Epilogue::default() };
            Ok(vec![gemm::linear_packed_rounded(x, &PackedWeight::new(&noise(&[s.m, s.d]))?, &epilogue)?])
        }),
        operation!("gemm::add_bias", |s| y: [s.n, s.m], bias: [s.m] => {
            gemm::add_bias(y, bias)?;
            Ok(vec![y.clone()])
        }),
        operation!("gemm::linear_backward_input", |s| dy: [s.n, s.m], weight: [s.m, s.d] => {
            Ok(vec![gemm::linear_backward_input(dy, weight)?])
        }),
        operation!("gemm::linear_backward_weight", |s|
            dy: [s.n, s.m], x: [s.n, s.d], d_weight: [s.m, s.d], d_bias: [s.m] =>
        {
            gemm::linear_backward_weight(dy, x, d_weight, Some(d_bias))?;
            Ok(vec![d_weight.clone(), d_bias.clone()])
        }),
        operation!("lora::forward", |s| x: [s.n, s.d], a: [s.r, s.d], b: [s.m, s.r], y: [s.n, s.m] => {
            let inner = lora::forward(x, a, b, 0.5, y)?;
            Ok(vec![inner, y.clone()])
        }),
        operation!("lora::backward", |s|
            dy: [s.n, s.m], x: [s.n, s.d], inner: [s.n, s.r], a: [s.r, s.d], b: [s.m, s.r], da: [s.r, s.d], db: [s.m, s.r] =>
        {
            let dx = lora::backward(dy, x, inner, a, b, 0.5, da, db)?;
            Ok(vec![dx, da.clone(), db.clone()])
        }),
        operation!("lora::linear", |s|
            x: [s.n, s.d], input: [s.n, s.d], weight: [s.m, s.d], bias: [s.m], a: [s.r, s.d], b: [s.m, s.r] =>
        {
            let (y, inner) = lora::linear(x, input, Base::Dense(weight), Some(bias), &Update { a, b, scale: 0.5 })?;
            Ok(vec![y, inner])
        }),
        operation!("lora::backward_factors", |s|
            dy: [s.n, s.m], input: [s.n, s.d], inner: [s.n, s.r], a: [s.r, s.d], b: [s.m, s.r], da: [s.r, s.d], db: [s.m, s.r] =>
        {
            let d_inner = lora::backward_factors(dy, input, inner, &Update { a, b, scale: 0.5 }, da, db)?;
            Ok(vec![d_inner, da.clone(), db.clone()])
        }),
        operation!("lora::linear_backward_input", |s|
            dy: [s.n, s.m], d_inner: [s.n, s.r], weight: [s.m, s.d], a: [s.r, s.d], b: [s.m, s.r] =>
        {
            let update = Update { a, b, scale: 0.5 };
            Ok(vec![lora::linear_backward_input(dy, d_inner, Base::Dense(weight), &update, None)?])
        }),
        operation!("fp8::linear", |s| x: [s.n, s.d], bias: [s.m] => {
            Ok(vec![fp8::linear(x, &s.eight_bits()?, Some(bias))?])
        }),
        operation!("nf4::linear", |s| x: [s.n, s.d] => {
            Ok(vec![nf4::linear(x, &s.four_bits()?, ROUNDING)?])
        }),
        operation!("nf4::linear_backward_input", |s| dy: [s.n, s.m] => {
            Ok(vec![nf4::linear_backward_input(dy, &s.four_bits()?, ROUNDING)?])
        }),
        operation!("layer_norm::forward", |s| x: [s.n, s.d], weight: [s.d], bias: [s.d] => {
            Ok(vec![layer_norm::forward(x, weight, bias, 1e-5)?.0])
        }),
        operation!("layer_norm::forward_rounded", |s| x: [s.n, s.d], weight: [s.d], bias: [s.d] => {
            Ok(vec![layer_norm::forward_rounded(x, weight, bias, 1e-5)?])
        }),
        operation!("layer_norm::backward", |s|
            dy: [s.n, s.d], x: [s.n, s.d], weight: [s.d], d_weight: [s.d], d_bias: [s.d] =>
        {
            let (_, saved) = layer_norm::forward(&noise(&[s.n, s.d]), &noise(&[s.d]), &noise(&[s.d]), 1e-5)?;
            let dx = layer_norm::backward(dy, x, &saved, weight, d_weight, d_bias)?;
            Ok(vec![dx, d_weight.clone(), d_bias.clone()])
        }),
        operation!("rms_norm::forward", |s| x: [s.n, s.d], w: [s.d] => Ok(vec![rms_norm::forward(x, w, 1e-5)?.0])),
        operation!("rms_norm::backward", |s| dy: [s.n, s.d], x: [s.n, s.d], w: [s.d], dw: [s.d] => {
            let (_, saved) = rms_norm::forward(&noise(&[s.n, s.d]), &noise(&[s.d]), 1e-5)?;
            let dx = rms_norm::backward(dy, x, &saved, w, Some(dw))?;
            Ok(vec![dx, dw.clone()])
        }),
        operation!("patches::cut", |s| pictures: [s.n, 3, 2, 4] => Ok(vec![patches::cut(pictures, 2)?])),
        operation!("gelu::forward", |s| x: [s.n, s.d] => Ok(vec![gelu::forward(x)?])),
        operation!("gelu::backward", |s| dy: [s.n, s.d], x: [s.n, s.d] => Ok(vec![gelu::backward(dy, x)?])),
        operation!("swiglu::forward", |s| gate: [s.n, s.d], up: [s.n, s.d] => Ok(vec![swiglu::forward(gate, up)?])),
        operation!("swiglu::backward", |s| dy: [s.n, s.d], gate: [s.n, s.d], up: [s.n, s.d] => {
            let (dgate, dup) = swiglu::backward(dy, gate, up)?;
            Ok(vec![dgate, dup])
        }),
        operation!("dropout::apply", |s| x: [s.n, s.d] => {
            dropout::apply(x, &dropout::Mask { seed: 3, site: 1, rate: 0.25 }, &s.keys())?;
            Ok(vec![x.clone()])
        }),
        operation!("embedding::forward", |s| table: [s.m, s.d] => Ok(vec![embedding::forward(table, &s.ids())?])),
        operation!("embedding::backward", |s| dy: [s.n, s.d], d_table: [s.m, s.d] => {
            embedding::backward(dy, &s.ids(), d_table)?;
            Ok(vec![d_table.clone()])
        }),
        operation!("rope::apply", |s| x: [s.n, 2 * 2 * s.r] => {
            rope::apply(x, &s.ids(), &s.rotation()?, 2)?;
            Ok(vec![x.clone()])
        }),
        operation!("attention::forward", |s| q: [s.n, 4 * s.r], k: [s.n, 2 * s.r], v: [s.n, 2 * s.r] => {
            Ok(vec![attention::forward(&Operands::new(q, k, v, Mask::Causal(&s.segments())), &s.heads())?.0])
        }),
        operation!("attention::forward_bf16", |s| q: [s.n, 4 * s.r], k: [s.n, 2 * s.r], v: [s.n, 2 * s.r] => {
            let (segments, [q, k, v]) = (s.segments(), [q, k, v].map(narrow));
            Ok(vec![attention::forward_bf16(&Operands::new(&q, &k, &v, Mask::Causal(&segments)), &s.heads())?])
        }),
        operation!("attention::backward", |s|
            d_out: [s.n, 4 * s.r], q: [s.n, 4 * s.r], k: [s.n, 2 * s.r], v: [s.n, 2 * s.r], out: [s.n, 4 * s.r] =>
        {
            let (wide, narrow, segments) = (noise(&[s.n, 4 * s.r]), noise(&[s.n, 2 * s.r]), s.segments());
            let good = Operands::new(&wide, &narrow, &narrow, Mask::Causal(&segments));
            let (_, saved) = attention::forward(&good, &s.heads())?;
            let operands = Operands::new(q, k, v, good.mask);
            let (dq, dk, dv) = attention::backward(d_out, &operands, out, &saved, &s.heads(), None)?;
            Ok(vec![dq, dk, dv])
        }),
        operation!("attention::forward, across", |s|
            q: [s.n, 4 * s.r], k: [s.m, 2 * s.r], v: [s.m, 2 * s.r], prefix_k: [s.d, 2 * s.r], prefix_v: [s.d, 2 * s.r] =>
        {
            let mask = Mask::Cross { queries: &s.segments(), keys: &s.key_segments() };
            let operands = Operands::new(q, k, v, mask).with_prefix(prefix_k, prefix_v);
            Ok(vec![attention::forward(&operands, &s.heads())?.0])
        }),
        operation!("attention::backward, across", |s|
            d_out: [s.n, 4 * s.r], q: [s.n, 4 * s.r], k: [s.m, 2 * s.r], v: [s.m, 2 * s.r], prefix_k: [s.d, 2 * s.r],
            prefix_v: [s.d, 2 * s.r], out: [s.n, 4 * s.r], prefix_dk: [s.d, 2 * s.r], prefix_dv: [s.d, 2 * s.r] =>
        {
            let mask = Mask::Cross { queries: &s.segments(), keys: &s.key_segments() };
            let (wide, narrow, prefix) = (noise(&[s.n, 4 * s.r]), noise(&[s.m, 2 * s.r]), noise(&[s.d, 2 * s.r]));
            let good = Operands::new(&wide, &narrow, &narrow, mask).with_prefix(&prefix, &prefix);
            let (_, saved) = attention::forward(&good, &s.heads())?;
            let operands = Operands::new(q, k, v, mask).with_prefix(prefix_k, prefix_v);
            let d_prefix = PrefixGradient { dk: prefix_dk, dv: prefix_dv };
            let (dq, dk, dv) = attention::backward(d_out, &operands, out, &saved, &s.heads(), Some(d_prefix))?;
            Ok(vec![dq, dk, dv, prefix_dk.clone(), prefix_dv.clone()])
        }),
        operation!("lru_scan::forward", |s|
            x: [s.n, s.d], params_log: [3, s.r], in_re: [s.r, s.d], in_im: [s.r, s.d], in_bias_re: [s.r],
            in_bias_im: [s.r], out_re: [s.d, s.r], out_im: [s.d, s.r], out_bias_re: [s.d] =>
        {
            let weights = [params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re].map(|t| t.clone());
            Ok(vec![lru_scan::forward(x, &recurrence(&weights), &s.segments())?.0])
        }),
        operation!("lru_scan::backward", |s|
            dy: [s.n, s.d], x: [s.n, s.d], params_log: [3, s.r], in_re: [s.r, s.d], in_im: [s.r, s.d],
            in_bias_re: [s.r], in_bias_im: [s.r], out_re: [s.d, s.r], out_im: [s.d, s.r], out_bias_re: [s.d] =>
        {
            let weights = [params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re].map(|t| t.clone());
            let (good, mut sums) = (s.recurrence(), s.recurrence());
            let (_, saved) = lru_scan::forward(&noise(&[s.n, s.d]), &recurrence(&good), &s.segments())?;
            let dx = lru_scan::backward(dy, x, &saved, &recurrence(&weights), &s.segments(), &mut gradients(&mut sums))?;
            sums.insert(0, dx);
            Ok(sums)
        }),
        operation!("lru_scan::backward", |s|
            grads_params_log: [3, s.r], grads_in_re: [s.r, s.d], grads_in_im: [s.r, s.d], grads_in_bias_re: [s.r],
            grads_in_bias_im: [s.r], grads_out_re: [s.d, s.r], grads_out_im: [s.d, s.r], grads_out_bias_re: [s.d] =>
        {
            let mut sums = [
                grads_params_log, grads_in_re, grads_in_im, grads_in_bias_re,
                grads_in_bias_im, grads_out_re, grads_out_im, grads_out_bias_re,
            ].map(|t| t.clone());
            let (good, x) = (s.recurrence(), noise(&[s.n, s.d]));
            let (_, saved) = lru_scan::forward(&x, &recurrence(&good), &s.segments())?;
            lru_scan::backward(&x, &x, &saved, &recurrence(&good), &s.segments(), &mut gradients(&mut sums))?;
            Ok(sums.to_vec())
        }),
        operation!("linear_cross_entropy::forward", |s| x: [s.n, s.d], weight: [s.m, s.d], bias: [s.m] => {
            Ok(vec![cross_entropy::forward(x, weight, Some(bias), &s.ids())?.reshaped(&[s.n, 1])?])
        }),
        operation!("linear_cross_entropy::forward_backward", |s|
            x: [s.n, s.d], weight: [s.m, s.d], bias: [s.m], dw: [s.m, s.d], db: [s.m] =>
        {
            let grads = cross_entropy::Grads { dw: Some(dw), db: Some(db) };
            let found =
                cross_entropy::forward_backward(x, weight, Some(bias), &s.ids(), &vec![0.5; s.n], grads)?;
            Ok(vec![found.losses.reshaped(&[s.n, 1])?, found.dx, dw.clone(), db.clone()])
        }),
        operation!("top_k::top_k", |s| x: [s.n, s.d], weight: [s.m, s.d], bias: [s.m] => {
            let found = top_k::top_k(x, weight, Some(bias), 0, &vec![&[][..]; s.n], s.m)?;
            let scores = found.iter().flatten().map(|scored| scored.score).collect();
            Ok(vec![Tensor::from_f32(&[s.n, s.m], scores)?])
        }),
        operation!("top_k::ranks", |s| x: [s.n, s.d], weight: [s.m, s.d], bias: [s.m] => {
            let found = top_k::ranks(x, weight, Some(bias), 0, &vec![&[][..]; s.n], &s.ids())?;
            Ok(vec![Tensor::from_f32(&[s.n, 1], found.into_iter().map(|rank| rank as f32).collect())?])
        }),
        operation!("grad_norm::l2", |s| gradient: [s.n, s.d] => {
            Ok(vec![Tensor::from_f32(&[1], vec![grad_norm::l2([&*gradient])? as f32])?])
        }),
        operation!("adamw::step", |s| param: [s.n, s.d], grad: [s.n, s.d], m: [s.n, s.d], v: [s.n, s.d] => {
            let mut state = Moments { m: m.clone(), v: v.clone() };
            adamw::step(param, grad, &mut state, &HYPER, 1, 1.0)?;
            Ok(vec![param.clone(), state.m, state.v])
        }),
    ]
}

/// The parameters of [`Sizes::recurrence`].
pub(crate) fn recurrence(weights: &[Tensor]) -> lru_scan::Weights<'_> {
    let [params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re] = weights else {
        unreachable!("there are eight weights")
    };
    lru_scan::Weights { params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re }
}

/// Where their gradients are added.
pub(crate) fn gradients(sums: &mut [Tensor]) -> lru_scan::Grads<'_> {
    let [params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re] = sums else {
        unreachable!("there are eight weights")
    };
    lru_scan::Grads { params_log, in_re, in_im, in_bias_re, in_bias_im, out_re, out_im, out_bias_re }
}
