//! One layer: attention and the gated block, each behind a norm and beside a residual.

use std::borrow::Cow;

use kernels::{
    Segments, Tensor,
    attention::{self, Mask},
    embedding, rms_norm, rope, swiglu,
};

use super::{
    config::LlamaConfig,
    linear::{Linear, Saved as SavedLinear},
    lora::Projection,
    pass::{Keys, Pass},
    recompute::Keep,
    shared_prefix::SharedPrefix,
    store::Weights,
};
use crate::{Precision, Result, params::Params, precision::widened};

/// Names of the weights of a layer.
#[derive(Debug)]
pub(crate) struct Layer {
    number: usize,
    input_norm: String,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    post_norm: String,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// What all layers of a run share.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) config: &'a LlamaConfig,
    pub(crate) precision: Precision,
    pub(crate) weights: &'a Weights,
    pub(crate) tables: &'a rope::Tables,
    pub(crate) pass: &'a Pass,
    /// What every sequence of the pass comes behind.
    pub(crate) prefix: Option<&'a SharedPrefix>,
}

/// Rows that are carried on after attention; the last layer needs few.
pub(crate) struct Selected<'a> {
    pub(crate) rows: &'a [u32],
    pub(crate) keys: Keys<'a>,
    /// One row for each sequence, its last, which sees all others: no other queries are made then.
    pub(crate) last: Option<Segments>,
}

/// The activations of a layer that are kept for the backward pass; what is not there is computed again. Rows behind attention
/// are the selected ones. What only products and attention read is of the run's precision, all else f32.
pub(crate) struct Saved {
    h: Tensor, // [n, hidden], f32
    projected: Option<Projected>,
    attended: Option<Attended>,
    mixed: Option<Mixed>,
    opened: Option<Opened>,
    down: SavedLinear,
}

/// What attention reads.
struct Projected {
    q: Tensor, // [n, heads * head_dim], rotated
    k: Tensor, // [n, kv_heads * head_dim], rotated
    v: Tensor, // [n, kv_heads * head_dim]
    linears: [SavedLinear; 3],
}

/// What attention gives.
struct Attended {
    out: Tensor, // [n, heads * head_dim]
    denominators: attention::Saved,
}

/// Behind attention and its residual.
struct Mixed {
    h1: Tensor, // [selected, hidden], f32
    o: SavedLinear,
}

/// The inside of the gated block; the product of the two is never kept.
struct Opened {
    gate: Tensor, // [selected, intermediate]
    up: Tensor,   // [selected, intermediate]
    linears: [SavedLinear; 2],
}

impl Saved {
    /// The keys, rotated, and the values of all rows, if they were kept.
    pub(crate) fn into_keys_and_values(self) -> Option<(Tensor, Tensor)> {
        self.projected.map(|projected| (projected.k, projected.v))
    }
}

impl Layer {
    pub(crate) fn new(layer: usize, c: &LlamaConfig) -> Self {
        let (hidden, inner) = (c.hidden_size, c.intermediate_size);
        let (queries, keys) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let linear = |projection, d_in, d_out, bias| Linear::new(layer, projection, d_in, d_out, bias);
        Self {
            number: layer,
            input_norm: format!("model.layers.{layer}.input_layernorm.weight"),
            q: linear(Projection::Q, hidden, queries, c.qkv_bias),
            k: linear(Projection::K, hidden, keys, c.qkv_bias),
            v: linear(Projection::V, hidden, keys, c.qkv_bias),
            o: linear(Projection::O, queries, hidden, c.out_bias),
            post_norm: format!("model.layers.{layer}.post_attention_layernorm.weight"),
            gate: linear(Projection::Gate, hidden, inner, c.mlp_bias),
            up: linear(Projection::Up, hidden, inner, c.mlp_bias),
            down: linear(Projection::Down, inner, hidden, c.mlp_bias),
        }
    }

    pub(crate) fn linears(&self) -> [&Linear; 7] {
        [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down]
    }

    /// `h [n, hidden]` to `[n, hidden]`, or to the selected rows.
    pub(crate) fn forward(
        &self,
        run: Run<'_>,
        h: Tensor,
        selected: Option<&Selected<'_>>,
        keep: Keep,
    ) -> Result<(Tensor, Saved)> {
        let (a, _) = self.normed(run, &h)?;
        let projected = self.project(run, &a, selected)?;
        drop(a);
        let attended = self.attend(run, &projected, selected)?;
        let projected = (keep <= Keep::Projections).then_some(projected);
        let (mixed, b) = self.mix(run, &h, &attended, selected)?;
        let attended = (keep <= Keep::Attention).then_some(attended);
        let opened = self.open(run, &b, selected)?;
        drop(b);
        let gated = swiglu::forward(&opened.gate, &opened.up)?;
        let opened = (keep <= Keep::All).then_some(opened);
        let (added, down) = self.down.forward(run.weights, &gated, keys(run, selected))?;
        let mut h2 = widened(added)?;
        h2.add(&mixed.h1)?;
        let mixed = (keep <= Keep::Attention).then_some(mixed);
        Ok((h2, Saved { h, projected, attended, mixed, opened, down }))
    }

    /// The normed input and the scales of its rows.
    fn normed(&self, run: Run<'_>, h: &Tensor) -> Result<(Tensor, rms_norm::Saved)> {
        run.precision.rms_norm(h, run.weights.dense(&self.input_norm)?, run.config.rms_norm_eps)
    }

    /// Rotated queries and keys, and values.
    fn project(&self, run: Run<'_>, a: &Tensor, selected: Option<&Selected<'_>>) -> Result<Projected> {
        let (w, c, pass) = (run.weights, run.config, run.pass);
        let (mut q, saved_q, positions) = match selected.filter(|s| s.last.is_some()) {
            Some(s) => {
                let (q, saved) = self.q.forward(w, &embedding::forward(a, s.rows)?, s.keys)?;
                (q, saved, Cow::Owned(pass.positions_of(s.rows)))
            }
            None => {
                let (q, saved) = self.q.forward(w, a, pass.keys())?;
                (q, saved, Cow::Borrowed(&pass.positions))
            }
        };
        let (mut k, saved_k) = self.k.forward(w, a, pass.keys())?;
        let (v, saved_v) = self.v.forward(w, a, pass.keys())?;
        rope::apply(&mut q, &positions, run.tables, c.heads)?;
        rope::apply(&mut k, &pass.positions, run.tables, c.kv_heads)?;
        Ok(Projected { q, k, v, linears: [saved_q, saved_k, saved_v] })
    }

    fn attend(&self, run: Run<'_>, projected: &Projected, selected: Option<&Selected<'_>>) -> Result<Attended> {
        let Projected { q, k, v, .. } = projected;
        let mask = match selected.and_then(|s| s.last.as_ref()) {
            Some(queries) => Mask::Cross { queries, keys: &run.pass.segments },
            None => Mask::Causal(&run.pass.segments),
        };
        let mut operands = attention::Operands::new(q, k, v, mask);
        if let Some((k, v)) = run.prefix.map(|prefix| prefix.of(self.number)) {
            operands = operands.with_prefix(k, v);
        }
        let (out, denominators) = run.precision.attention_saved(&operands, &run.config.attention())?;
        Ok(Attended { out, denominators })
    }

    /// The residual stream behind attention, and the same normed.
    fn mix(
        &self,
        run: Run<'_>,
        h: &Tensor,
        attended: &Attended,
        selected: Option<&Selected<'_>>,
    ) -> Result<(Mixed, Tensor)> {
        let rows = chosen(&attended.out, selected)?;
        let (added, o) = self.o.forward(run.weights, rows.as_ref().unwrap_or(&attended.out), keys(run, selected))?;
        let mut h1 = widened(added)?;
        let kept = selected.map(|s| embedding::forward(h, s.rows)).transpose()?;
        let gain = run.weights.dense(&self.post_norm)?;
        let h = kept.as_ref().unwrap_or(h);
        let b = run.precision.add_then_rms_norm(&mut h1, h, gain, run.config.rms_norm_eps)?;
        Ok((Mixed { h1, o }, b))
    }

    fn open(&self, run: Run<'_>, b: &Tensor, selected: Option<&Selected<'_>>) -> Result<Opened> {
        let (gate, saved_gate) = self.gate.forward(run.weights, b, keys(run, selected))?;
        let (up, saved_up) = self.up.forward(run.weights, b, keys(run, selected))?;
        Ok(Opened { gate, up, linears: [saved_gate, saved_up] })
    }

    /// Adds the gradients of what is trained; returns that of `h` if asked for. Gradients of the residual stream are f32.
    pub(crate) fn backward(
        &self,
        run: Run<'_>,
        d_h2: Tensor,
        mut saved: Saved,
        selected: Option<&Selected<'_>>,
        grads: &mut Params,
        need_dh: bool,
    ) -> Result<Option<Tensor>> {
        // What was not kept is made again by the same operations: the same bits.
        let (a, input_scale) = self.normed(run, &saved.h)?;
        let projected = saved.projected.take().map_or_else(|| self.project(run, &a, selected), Ok)?;
        let attended = saved.attended.take().map_or_else(|| self.attend(run, &projected, selected), Ok)?;
        let mixed = match saved.mixed.take() {
            Some(mixed) => mixed,
            None => self.mix(run, &saved.h, &attended, selected)?.0,
        };
        let d_h1 = self.backward_gated(run, d_h2, &mixed.h1, saved.opened.take(), &saved.down, selected, grads)?;

        let (w, c, pass) = (run.weights, run.config, run.pass);
        let rows = if self.o.reads_input(w, grads) { chosen(&attended.out, selected)? } else { None };
        let rows = rows.as_ref().unwrap_or(&attended.out);
        let d_out = run.precision.operand(&d_h1)?;
        let d_mixed = self.o.backward(w, &d_out, Some(rows), &mixed.o, keys(run, selected), grads, true)?.expect(ASKED);
        drop(d_out);
        let (d_attended, mut dh) = match selected {
            Some(s) => (spread(&d_mixed, s.rows, &attended.out)?, spread(&d_h1, s.rows, &saved.h)?),
            None => (d_mixed, d_h1),
        };

        let Projected { q, k, v, linears } = &projected;
        let operands = attention::Operands::new(q, k, v, Mask::Causal(&pass.segments));
        let (mut dq, mut dk, dv) = run.precision.attention_backward(
            &d_attended,
            &operands,
            &attended.out,
            &attended.denominators,
            &c.attention(),
        )?;
        rope::apply_inverse(&mut dq, &pass.positions, run.tables, c.heads)?;
        rope::apply_inverse(&mut dk, &pass.positions, run.tables, c.kv_heads)?;

        // Where nothing below is trained, the projections give their own gradients and no more.
        let need_da = need_dh || grads.contains(&self.input_norm);
        let mut da: Option<Tensor> = None;
        for (linear, d, saved) in
            [(&self.q, &dq, &linears[0]), (&self.k, &dk, &linears[1]), (&self.v, &dv, &linears[2])]
        {
            let part = linear.backward(w, d, Some(&a), saved, pass.keys(), grads, need_da)?;
            match (&mut da, part) {
                (Some(da), Some(part)) => da.add(&part)?,
                (None, part) => da = part.map(widened).transpose()?,
                (Some(_), None) => {}
            }
        }
        let Some(da) = da else { return Ok(None) };
        let gain = w.dense(&self.input_norm)?;
        let d_gain = grads.get_mut(&self.input_norm).ok();
        dh.add(&rms_norm::backward(&da, &saved.h, &input_scale, gain, d_gain)?)?;
        Ok(need_dh.then_some(dh))
    }

    /// From the gradient behind the gated block to the one before it.
    #[allow(clippy::too_many_arguments)]
    fn backward_gated(
        &self,
        run: Run<'_>,
        mut d_h2: Tensor,
        h1: &Tensor,
        opened: Option<Opened>,
        down: &SavedLinear,
        selected: Option<&Selected<'_>>,
        grads: &mut Params,
    ) -> Result<Tensor> {
        let (w, keys) = (run.weights, keys(run, selected));
        let gain = w.dense(&self.post_norm)?;
        let (b, scale) = run.precision.rms_norm(h1, gain, run.config.rms_norm_eps)?;
        let Opened { gate, up, linears } = opened.map_or_else(|| self.open(run, &b, selected), Ok)?;
        let gated = self.down.reads_input(w, grads).then(|| swiglu::forward(&gate, &up)).transpose()?;
        let d_out = run.precision.operand(&d_h2)?;
        let d_gated = self.down.backward(w, &d_out, gated.as_ref(), down, keys, grads, true)?.expect(ASKED);
        drop((d_out, gated));
        let (d_gate, d_up) = swiglu::backward(&d_gated, &gate, &up)?;
        let db = self.gate.backward(w, &d_gate, Some(&b), &linears[0], keys, grads, true)?.expect(ASKED);
        let mut db = widened(db)?;
        db.add(&self.up.backward(w, &d_up, Some(&b), &linears[1], keys, grads, true)?.expect(ASKED))?;
        let d_gain = grads.get_mut(&self.post_norm).ok();
        d_h2.add(&rms_norm::backward(&db, h1, &scale, gain, d_gain)?)?;
        Ok(d_h2)
    }
}

const ASKED: &str = "the gradient of the input was asked for";

/// The keys of the rows behind attention.
fn keys<'a>(run: Run<'a>, selected: Option<&Selected<'a>>) -> Keys<'a> {
    selected.map_or(run.pass.keys(), |s| s.keys)
}

/// The selected rows of what attention gives; none if all are, or if no others were made.
fn chosen(attended: &Tensor, selected: Option<&Selected<'_>>) -> Result<Option<Tensor>> {
    let selected = selected.filter(|s| s.last.is_none());
    Ok(selected.map(|s| embedding::forward(attended, s.rows)).transpose()?)
}

/// The gradient of a selection of rows, of the dtype of that selection: zero elsewhere.
fn spread(d: &Tensor, rows: &[u32], like: &Tensor) -> Result<Tensor> {
    let mut all = like.zeros_like()?;
    embedding::backward(&d.cast(all.dtype())?, rows, &mut all)?;
    Ok(all.cast(d.dtype())?)
}
