//! The retriever against a PyTorch statement of the same equations: scores, gradients, clipped AdamW steps.

use kernels::{Tensor, gemm};
use model::{
    params::{AdamW, AdamWConfig, Params},
    retriever::{Dropout, LruRec, LruRecConfig, PackedBatch, optimizer_config},
    weights,
};
use safetensors::SafeTensors;
use serde::Deserialize;

use crate::{fixtures, golden};

/// What the settings file says.
#[derive(Deserialize)]
struct Settings {
    config: Config,
    losses: Vec<f64>,
    grad_norms_before_clip: Vec<f64>,
    decay: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    items: usize,
    hidden: usize,
    blocks: usize,
    max_len: usize,
    lr: f32,
    wd: f32,
    eps: f32,
    max_norm: f64,
    steps: usize,
}

/// One golden file with its settings.
struct Golden {
    settings: Settings,
    /// Windows of items, each with the label of its last input.
    windows: Vec<Vec<u32>>,
    /// The labels of all positions, padded in front.
    labels: Vec<Vec<u32>>,
    params: Params,
    grads: Params,
    after: Params,
    scores: Tensor,
    last_scores: Tensor,
}

impl Golden {
    fn read(name: &str) -> Option<Self> {
        let folder = fixtures::folder("lrurec")?;
        let settings = std::fs::read(folder.join(format!("{name}.json"))).expect("the settings can be read");
        let settings: Settings = serde_json::from_slice(&settings).expect("the settings have the known form");
        let bytes = std::fs::read(folder.join(format!("{name}.safetensors"))).expect("the tensors can be read");
        let file = SafeTensors::deserialize(&bytes).expect("the tensors are safetensors");
        let with_prefix = |prefix: &str| -> Params {
            let views = file.iter().filter_map(|(name, view)| Some((name.strip_prefix(prefix)?.to_owned(), view)));
            views
                .map(|(name, view)| (name.clone(), weights::to_tensor(&name, &view).expect("a float tensor")))
                .collect()
        };
        let tensor = |name: &str| {
            let view = file.tensor(name).expect("the tensor is there");
            weights::to_tensor(name, &view).expect("a float tensor")
        };
        let ids = integers(&file, "input_ids");
        let labels = integers(&file, "labels");
        let window = |ids: &Vec<u32>, labels: &Vec<u32>| -> Vec<u32> {
            ids.iter().copied().filter(|&id| id > 0).chain(labels.last().copied()).collect()
        };
        Some(Self {
            windows: ids.iter().zip(&labels).map(|(ids, labels)| window(ids, labels)).collect(),
            labels,
            params: with_prefix("param."),
            grads: with_prefix("grad."),
            after: with_prefix("after."),
            scores: tensor("scores"),
            last_scores: tensor("last_scores"),
            settings,
        })
    }

    fn model(&self) -> LruRec {
        let c = &self.settings.config;
        let config = LruRecConfig::new(c.items, c.hidden, c.blocks, 0.0, c.max_len).expect("a possible configuration");
        let model = LruRec::with_params(config, self.params.clone()).expect("names and shapes are those of the model");
        model.on(&golden::device()).expect("the device has room")
    }

    fn batch(&self) -> PackedBatch {
        PackedBatch::train(self.windows.iter().map(|w| (w.as_slice(), 0)), self.settings.config.max_len)
    }

    /// The places of the packed rows among the padded ones.
    fn places(&self) -> Vec<usize> {
        let max_len = self.settings.config.max_len;
        self.windows
            .iter()
            .enumerate()
            .flat_map(|(b, window)| {
                // As many inputs as labels behind the first item, and one padded slot if there is room.
                let rows = window.len().min(max_len);
                (max_len - rows..max_len).map(move |t| b * max_len + t)
            })
            .collect()
    }

    fn optimizer(&self) -> AdamW {
        let c = &self.settings.config;
        let config = AdamWConfig { eps: c.eps, max_grad_norm: Some(c.max_norm), ..optimizer_config(c.lr, c.wd) };
        AdamW::new(config)
    }
}

/// A matrix of 64-bit integers.
fn integers(file: &SafeTensors<'_>, name: &str) -> Vec<Vec<u32>> {
    let view = file.tensor(name).expect("the tensor is there");
    let values: Vec<u32> =
        view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).map(|v| v as u32).collect();
    values.chunks(view.shape()[1]).map(<[u32]>::to_vec).collect()
}

fn scores(model: &LruRec, hidden: &Tensor) -> Tensor {
    let output = |name| model.params().get(name).expect("the model has an output");
    gemm::linear(hidden, output("embedding.token.weight"), Some(output("model.bias"))).expect("shapes fit")
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: impl Fn(f32) -> f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance(*e), "{what}[{i}]: found {f}, expected {e}");
    }
}

fn scores_agree(golden: &Golden) {
    let (model, batch) = (golden.model(), golden.batch());
    let hidden = model.encode_all_positions(&batch).expect("the batch fits the model");
    let found = scores(&model, &hidden);
    let (classes, expected) = (found.cols(), golden.scores.to_f32());
    let places = golden.places();
    assert_eq!(places.len(), batch.rows());
    for (row, (place, found)) in places.iter().zip(found.to_f32().chunks(classes)).enumerate() {
        assert_close(&format!("scores of row {row}"), found, &expected[place * classes..][..classes], |_| 1e-4);
    }
    let labels = golden.labels.concat();
    assert_eq!(batch.labels, places.iter().map(|&place| labels[place]).collect::<Vec<_>>(), "labels are aligned");
    let labelled = labels.iter().filter(|&&label| label > 0).count();
    assert_eq!(labelled, batch.rows(), "every label has its row");

    let max_len = golden.settings.config.max_len;
    let histories = golden.windows.iter().map(|w| &w[..w.len() - 1]);
    let hidden = model.encode(&PackedBatch::score(histories, max_len)).expect("the histories fit the model");
    assert_close("last scores", &scores(&model, &hidden).to_f32(), &golden.last_scores.to_f32(), |_| 1e-4);
}

fn gradients_agree(golden: &Golden) {
    let (model, batch) = (golden.model(), golden.batch());
    let (loss, grads) = model.loss_and_gradients(&batch, batch.rows(), Dropout::NONE).expect("the batch fits");
    assert!((loss / batch.rows() as f64 - golden.settings.losses[0]).abs() < 1e-5);
    assert_eq!(grads.len(), golden.grads.len());
    for (name, expected) in golden.grads.iter() {
        let found = grads.get(name).expect("every parameter has a gradient");
        assert_close(name, &found.to_f32(), &expected.to_f32(), |e| 1e-5f32.max(1e-4 * e.abs()));
    }
}

fn steps_agree(golden: &Golden) {
    let (mut model, batch, mut optimizer) = (golden.model(), golden.batch(), golden.optimizer());
    let settings = &golden.settings;
    for step in 0..settings.config.steps {
        let report = model.train_step(&batch, &mut optimizer, Dropout::NONE).expect("the batch fits");
        assert!((report.loss - settings.losses[step]).abs() < 1e-5, "loss of step {step}: {}", report.loss);
        let norm = settings.grad_norms_before_clip[step];
        assert!((report.grad_norm - norm).abs() < 1e-5, "norm of step {step}: {}, not {norm}", report.grad_norm);
    }
    let last = settings.losses[settings.config.steps];
    assert!((model.loss(&batch).expect("the batch fits") - last).abs() < 1e-5);
    for (name, expected) in golden.after.iter() {
        let found = model.params().get(name).expect("the same names").to_f32();
        let grad = golden.grads.get(name).map(Tensor::to_f32).unwrap_or_default();
        for (i, (f, e)) in found.iter().zip(expected.to_f32()).enumerate() {
            // A gradient that is nearly zero may differ in sign, and AdamW makes a whole step of that.
            if grad.get(i).is_some_and(|g| g.abs() >= 1e-7) {
                assert!((f - e).abs() <= 2e-6, "{name}[{i}]: found {f}, expected {e}");
            }
        }
    }
}

/// The decayed parameters are those that the golden file lists.
fn decay_agrees(golden: &Golden) {
    let no_decay = golden.optimizer().config().no_decay.clone();
    for (name, _) in golden.params.iter() {
        let complex = name.trim_end_matches(".real").trim_end_matches(".imag");
        let decayed = !no_decay.iter().any(|part| name.contains(part.as_str()));
        assert_eq!(decayed, golden.settings.decay.iter().any(|d| d == complex), "{name}");
    }
}

fn compare(name: &str) {
    let Some(golden) = Golden::read(name) else { return };
    scores_agree(&golden);
    gradients_agree(&golden);
    steps_agree(&golden);
    decay_agrees(&golden);
}

#[test]
fn retriever_agrees_with_pytorch() {
    compare("lrurec");
}

#[test]
fn clipped_steps_agree_with_pytorch() {
    compare("lrurec_clip");
}
