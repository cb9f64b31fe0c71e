//! One layer: attention and the gated block, each behind a norm and beside a residual.

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
    shared_prefix::SharedPrefix,
    store::Weights,
};
use crate::{Result, params::Params};

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

/// The activations of a layer. Rows behind attention are the selected ones.
pub(crate) struct Saved {
    h: Tensor, // [n, hidden]
    input_scale: rms_norm::Saved,
    a: Tensor,        // [n, hidden]
    q: Tensor,        // [n, heads * head_dim], rotated
    k: Tensor,        // [n, kv_heads * head_dim], rotated
    v: Tensor,        // [n, kv_heads * head_dim]
    attended: Tensor, // [n, heads * head_dim]
    denominators: attention::Saved,
    mixed: Option<Tensor>, // the selected rows of `attended`
    h1: Tensor,            // [selected, hidden]
    post_scale: rms_norm::Saved,
    b: Tensor,                 // [selected, hidden]
    gate: Tensor,              // [selected, intermediate]
    up: Tensor,                // [selected, intermediate]
    gated: Tensor,             // [selected, intermediate]
    linears: [SavedLinear; 7], // in the order of `Projection::ALL`
}

impl Saved {
    /// The keys, rotated, and the values of all rows.
    pub(crate) fn into_keys_and_values(self) -> (Tensor, Tensor) {
        (self.k, self.v)
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
    pub(crate) fn forward(&self, run: Run<'_>, h: Tensor, selected: Option<&Selected<'_>>) -> Result<(Tensor, Saved)> {
        let (w, c, pass) = (run.weights, run.config, run.pass);
        let (a, input_scale) = rms_norm::forward(&h, w.dense(&self.input_norm)?, c.rms_norm_eps)?;
        let last = selected.and_then(|s| Some((s, s.last.as_ref()?)));
        let (mut q, saved_q) = match last {
            Some((s, _)) => self.q.forward(w, &embedding::forward(&a, s.rows)?, s.keys)?,
            None => self.q.forward(w, &a, pass.keys())?,
        };
        let (mut k, saved_k) = self.k.forward(w, &a, pass.keys())?;
        let (v, saved_v) = self.v.forward(w, &a, pass.keys())?;
        match last {
            Some((s, _)) => rope::apply(&mut q, &pass.positions_of(s.rows), run.tables, c.heads)?,
            None => rope::apply(&mut q, &pass.positions, run.tables, c.heads)?,
        }
        rope::apply(&mut k, &pass.positions, run.tables, c.kv_heads)?;
        let mask = match last {
            Some((_, queries)) => Mask::Cross { queries, keys: &pass.segments },
            None => Mask::Causal(&pass.segments),
        };
        let mut operands = attention::Operands::new(&q, &k, &v, mask);
        if let Some((k, v)) = run.prefix.map(|prefix| prefix.of(self.number)) {
            operands = operands.with_prefix(k, v);
        }
        let (attended, denominators) = attention::forward(&operands, &c.attention())?;

        let mixed = selected.filter(|_| last.is_none()).map(|s| embedding::forward(&attended, s.rows)).transpose()?;
        let keys = selected.map_or(pass.keys(), |s| s.keys);
        let (mut h1, saved_o) = self.o.forward(w, mixed.as_ref().unwrap_or(&attended), keys)?;
        let kept = selected.map(|s| embedding::forward(&h, s.rows)).transpose()?;
        let residual = kept.as_ref().unwrap_or(&h);
        let (b, post_scale) = rms_norm::add_then_forward(&mut h1, residual, w.dense(&self.post_norm)?, c.rms_norm_eps)?;
        let (gate, saved_gate) = self.gate.forward(w, &b, keys)?;
        let (up, saved_up) = self.up.forward(w, &b, keys)?;
        let gated = swiglu::forward(&gate, &up)?;
        let (mut h2, saved_down) = self.down.forward(w, &gated, keys)?;
        h2.add(&h1)?;

        let linears = [saved_q, saved_k, saved_v, saved_o, saved_gate, saved_up, saved_down];
        let saved = Saved {
            h,
            input_scale,
            a,
            q,
            k,
            v,
            attended,
            denominators,
            mixed,
            h1,
            post_scale,
            b,
            gate,
            up,
            gated,
            linears,
        };
        Ok((h2, saved))
    }

    /// Adds the gradients of what is trained; returns that of `h` if asked for.
    pub(crate) fn backward(
        &self,
        run: Run<'_>,
        d_h2: Tensor,
        saved: &Saved,
        selected: Option<&Selected<'_>>,
        grads: &mut Params,
        need_dh: bool,
    ) -> Result<Option<Tensor>> {
        let d_h1 = self.backward_gated(run, d_h2, saved, selected, grads)?;
        let (w, c, pass) = (run.weights, run.config, run.pass);
        let keys = selected.map_or(pass.keys(), |s| s.keys);
        let mixed = saved.mixed.as_ref().unwrap_or(&saved.attended);
        let d_mixed = self.o.backward(w, &d_h1, mixed, &saved.linears[3], keys, grads, true)?;
        let d_mixed = d_mixed.expect("the gradient of the input was asked for");
        let (d_attended, mut dh) = match selected {
            Some(s) => (spread(&d_mixed, s.rows, &saved.attended)?, spread(&d_h1, s.rows, &saved.h)?),
            None => (d_mixed, d_h1),
        };

        let operands = attention::Operands::new(&saved.q, &saved.k, &saved.v, Mask::Causal(&pass.segments));
        let (mut dq, mut dk, dv) =
            attention::backward(&d_attended, &operands, &saved.attended, &saved.denominators, &c.attention(), None)?;
        rope::apply_inverse(&mut dq, &pass.positions, run.tables, c.heads)?;
        rope::apply_inverse(&mut dk, &pass.positions, run.tables, c.kv_heads)?;

        // Where nothing below is trained, the projections give their own gradients and no more.
        let need_da = need_dh || grads.contains(&self.input_norm);
        let mut da: Option<Tensor> = None;
        let parts =
            [(&self.q, &dq, &saved.linears[0]), (&self.k, &dk, &saved.linears[1]), (&self.v, &dv, &saved.linears[2])];
        for (linear, d, saved_linear) in parts {
            let part = linear.backward(w, d, &saved.a, saved_linear, pass.keys(), grads, need_da)?;
            match (&mut da, part) {
                (Some(da), Some(part)) => da.add(&part)?,
                (None, part) => da = part,
                (Some(_), None) => {}
            }
        }
        let Some(da) = da else { return Ok(None) };
        let gain = w.dense(&self.input_norm)?;
        let d_gain = grads.get_mut(&self.input_norm).ok();
        dh.add(&rms_norm::backward(&da, &saved.h, &saved.input_scale, gain, d_gain)?)?;
        Ok(need_dh.then_some(dh))
    }

    /// From the gradient behind the gated block to the one before it.
    fn backward_gated(
        &self,
        run: Run<'_>,
        mut d_h2: Tensor,
        saved: &Saved,
        selected: Option<&Selected<'_>>,
        grads: &mut Params,
    ) -> Result<Tensor> {
        let asked = "the gradient of the input was asked for";
        let w = run.weights;
        let keys = selected.map_or(run.pass.keys(), |s| s.keys);
        let d_gated = self.down.backward(w, &d_h2, &saved.gated, &saved.linears[6], keys, grads, true)?.expect(asked);
        let (d_gate, d_up) = swiglu::backward(&d_gated, &saved.gate, &saved.up)?;
        let mut db = self.gate.backward(w, &d_gate, &saved.b, &saved.linears[4], keys, grads, true)?.expect(asked);
        let through_up = self.up.backward(w, &d_up, &saved.b, &saved.linears[5], keys, grads, true)?.expect(asked);
        db.add(&through_up)?;
        let gain = w.dense(&self.post_norm)?;
        let d_gain = grads.get_mut(&self.post_norm).ok();
        d_h2.add(&rms_norm::backward(&db, &saved.h1, &saved.post_scale, gain, d_gain)?)?;
        Ok(d_h2)
    }
}

/// The gradient of a selection of rows: zero elsewhere.
fn spread(d: &Tensor, rows: &[u32], like: &Tensor) -> Result<Tensor> {
    let mut all = like.zeros_like()?;
    embedding::backward(d, rows, &mut all)?;
    Ok(all)
}
