#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]
use kernels::Device;

use super::*;

fn config() -> LruRecConfig {
    LruRecConfig::new(23, 6, 2, 0.2, 8).unwrap()
}

/// Sequences that wander over the items with a pattern that can be learned.
fn sequences(n: usize, items: u32) -> Vec<Vec<u32>> {
    (0..n as u32).map(|i| (0..3 + i % 9).map(|t| 1 + (i * 7 + t * 3) % items).collect()).collect()
}

fn batch(n: usize) -> PackedBatch {
    let sequences = sequences(n, 23);
    PackedBatch::train(sequences.iter().zip(0..).map(|(s, i)| (s.as_slice(), example_key(0, i))), 8)
}

#[test]
fn windows_are_cut_from_the_end() {
    assert_eq!(windows(3, 8), [0..3]);
    assert_eq!(windows(9, 8), [0..9]);
    assert_eq!(windows(15, 8), [6..15]);
    assert_eq!(windows(16, 8), [8..16, 0..8]);
    assert_eq!(windows(23, 8), [15..23, 7..15]);
    assert!(windows(0, 8).is_empty());
}

#[test]
fn every_sequence_gives_a_window_and_long_ones_give_several() {
    // The counts that the rule gives for a population: one window below 2 L, len / L from there on.
    let lengths = [1, 50, 99, 100, 149, 150, 1_000];
    assert_eq!(lengths.iter().map(|&len| windows(len, 50).len()).sum::<usize>(), 1 + 1 + 1 + 2 + 2 + 3 + 20);
    for (len, max) in [(399, 200), (400, 200), (2_698, 200), (7, 1)] {
        let windows = windows(len, max);
        assert!(windows.iter().all(|w| w.len() <= max + 1 && w.end <= len));
        assert_eq!(windows[0].end, len);
    }
}

#[test]
fn a_short_window_keeps_the_one_padded_slot_that_predicts() {
    let batch = PackedBatch::train([(&[5, 6, 7][..], 100), (&[9][..], 200)], 8);
    assert_eq!(batch.ids, [0, 5, 6, 0]);
    assert_eq!(batch.labels, [5, 6, 7, 9]);
    assert_eq!(batch.row_keys, [100, 101, 102, 200]);
    assert_eq!(batch.segments, kernels::Segments::from_lengths([1, 2, 1]));
}

#[test]
fn a_full_window_has_no_padded_slot() {
    let batch = PackedBatch::train([(&[1, 2, 3, 4][..], 100)], 3);
    assert_eq!((batch.ids, batch.labels), (vec![1, 2, 3], vec![2, 3, 4]));
    assert_eq!(batch.row_keys, [101, 102, 103]);
}

#[test]
fn scoring_reads_the_last_items_and_an_empty_history_one_padded_row() {
    let batch = PackedBatch::score([&[1, 2, 3, 4][..], &[], &[9]], 3);
    assert_eq!(batch.ids, [2, 3, 4, 0, 9]);
    assert_eq!(batch.segments, kernels::Segments::from_lengths([3, 1, 1]));
}

#[test]
fn initial_parameters_are_cut_normals_and_a_ring() {
    let model = LruRec::new(LruRecConfig::new(500, 32, 1, 0.2, 50).unwrap(), 1).unwrap();
    for (name, tensor) in model.params().iter() {
        let values = tensor.f32().unwrap();
        if name.ends_with("params_log") {
            let (nu, gamma) = (&values[..64], &values[128..]);
            for (nu, gamma) in nu.iter().zip(gamma) {
                let radius = (-nu.exp()).exp();
                assert!((0.8..=0.99).contains(&radius), "{radius}");
                assert!((gamma.exp() - (1.0 - radius * radius).sqrt()).abs() < 1e-5);
            }
        } else if name.ends_with("layer_norm.weight") {
            assert!(values.iter().all(|&v| v == 1.0));
        } else if name.ends_with("layer_norm.bias") {
            assert!(values.iter().all(|&v| v == 0.0));
        } else {
            assert!(values.iter().all(|v| v.abs() <= 0.04 && *v != 0.0), "{name}");
        }
    }
    let token = model.params().get(names::TOKEN).unwrap().f32().unwrap();
    let deviation = (token.iter().map(|v| f64::from(v * v)).sum::<f64>() / token.len() as f64).sqrt();
    // A normal cut at two deviations keeps 0.88 of its deviation.
    assert!((deviation - 0.0176).abs() < 3e-4, "{deviation}");
}

#[test]
fn the_seed_decides_and_only_the_seed() {
    let [a, b, c] = [1, 1, 2].map(|seed| LruRec::new(config(), seed).unwrap());
    assert_eq!(a, b);
    assert_ne!(a, c);
    let larger = LruRec::new(LruRecConfig::new(23, 6, 3, 0.2, 8).unwrap(), 1).unwrap();
    for (name, tensor) in a.params().iter() {
        assert_eq!(larger.params().get(name).unwrap(), tensor, "{name}");
    }
}

/// A model whose parameters are large enough for every gradient to be seen.
fn lively_model() -> LruRec {
    let mut model = LruRec::new(config(), 3).unwrap();
    for (name, tensor) in model.params_mut().iter_mut() {
        if !name.ends_with("params_log") && !name.ends_with("layer_norm.weight") {
            tensor.f32_mut().unwrap().iter_mut().for_each(|v| *v *= 12.0);
        }
    }
    model
}

#[test]
fn every_gradient_agrees_with_finite_differences_under_dropout() {
    let (model, batch) = (lively_model(), batch(4));
    let dropout = Dropout { seed: 5, rate: 0.2 };
    let (_, grads) = model.loss_and_gradients(&batch, batch.rows(), dropout).unwrap();
    let names: Vec<String> = model.params().iter().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let grad = grads.get(&name).unwrap();
        for i in (0..grad.len()).step_by(grad.len().div_ceil(7)) {
            let loss = |by: f32| {
                let mut moved = model.clone();
                moved.params_mut().get_mut(&name).unwrap().f32_mut().unwrap()[i] += by;
                moved.loss_and_gradients(&batch, batch.rows(), dropout).unwrap().0 / batch.rows() as f64
            };
            let numeric = (loss(4e-3) - loss(-4e-3)) / 8e-3;
            let found = f64::from(grad.f32().unwrap()[i]);
            assert!((found - numeric).abs() < 2e-3 * (0.1 + numeric.abs()), "{name}[{i}]: {found}, {numeric}");
        }
    }
}

#[test]
fn gradients_of_parts_add_up_to_those_of_the_step() {
    let model = lively_model();
    let dropout = Dropout { seed: 5, rate: 0.2 };
    let sequences = sequences(6, 23);
    let part = |from: usize, to: usize| {
        let windows = (from..to).map(|i| (sequences[i].as_slice(), example_key(0, i as u64)));
        PackedBatch::train(windows, 8)
    };
    let rows = part(0, 6).rows();
    let whole = model.loss_and_gradients(&part(0, 6), rows, dropout).unwrap();
    let first = model.loss_and_gradients(&part(0, 2), rows, dropout).unwrap();
    let second = model.loss_and_gradients(&part(2, 6), rows, dropout).unwrap();
    assert!((whole.0 - first.0 - second.0).abs() < 1e-4);
    let [whole, first, second] = [whole, first, second].map(|(_, grads)| grads.to_flat().unwrap());
    for ((w, a), b) in whole.iter().zip(&first).zip(&second) {
        assert!((w - a - b).abs() < 1e-5, "{w} is not {a} + {b}");
    }
}

#[test]
fn training_learns_the_pattern() {
    let mut model = LruRec::new(config(), 1).unwrap();
    let mut optimizer = AdamW::new(optimizer_config(1e-2, 0.01));
    let batch = batch(40);
    let before = model.loss(&batch).unwrap();
    for _ in 0..150 {
        model.train_step(&batch, &mut optimizer, Dropout { seed: 1, rate: 0.1 }).unwrap();
    }
    let after = model.loss(&batch).unwrap();
    // The first items cannot be foreseen, so some loss remains.
    assert!((before - 24f64.ln()).abs() < 0.05 && after < 1.3, "{before} to {after}");
}

#[test]
fn a_resumed_run_has_the_same_bits_and_threads_do_not_matter() {
    let batches = [batch(5), batch(9), batch(3), batch(30)];
    let run = |threads: usize, stop: Option<usize>| {
        Device::cpu(threads).unwrap().run(|| {
            let mut model = LruRec::new(config(), 1).unwrap();
            let mut optimizer = AdamW::new(optimizer_config(1e-3, 0.01));
            for (i, batch) in batches.iter().enumerate() {
                if stop == Some(i) {
                    let saved = model.save().unwrap();
                    model = LruRec::load(&saved.weights, &saved.config, 23).unwrap();
                    optimizer =
                        AdamW::load(optimizer_config(1e-3, 0.01), &optimizer.save().unwrap(), model.params()).unwrap();
                }
                model.train_step(batch, &mut optimizer, Dropout { seed: 1, rate: 0.2 }).unwrap();
            }
            model
        })
    };
    let straight = run(1, None);
    assert_eq!(run(3, None), straight);
    assert_eq!(run(2, Some(2)), straight);
}

#[test]
fn a_history_scores_the_same_alone_and_in_company() {
    let model = lively_model();
    let sequences = sequences(9, 23);
    let all = model.encode(&PackedBatch::score(sequences.iter().map(Vec::as_slice), 8)).unwrap();
    for (i, sequence) in sequences.iter().enumerate() {
        let alone = model.encode(&PackedBatch::score([sequence.as_slice()], 8)).unwrap();
        for (a, b) in all.f32().unwrap()[i * 6..][..6].iter().zip(alone.f32().unwrap()) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}

#[test]
fn one_pass_gives_the_states_of_all_prefixes() {
    let model = lively_model();
    let history = [3, 1, 4, 1, 5];
    let all = model.encode_all_positions(&PackedBatch::score([&history[..]], 8)).unwrap();
    for t in 1..=history.len() {
        let prefix = model.encode(&PackedBatch::score([&history[..t]], 8)).unwrap();
        for (a, b) in all.f32().unwrap()[(t - 1) * 6..][..6].iter().zip(prefix.f32().unwrap()) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}

#[test]
fn candidates_leave_out_padding_and_history_and_ranks_agree() {
    let model = lively_model();
    let history = [2, 5, 9];
    let hidden = model.encode(&PackedBatch::score([&history[..]], 8)).unwrap();
    let best = model.top_k(&hidden, &[&history], 50).unwrap().remove(0);
    assert_eq!(best.len(), 20);
    assert!(best.iter().all(|s| s.id >= 1 && !history.contains(&s.id)));
    for (place, scored) in best.iter().enumerate() {
        assert_eq!(model.ranks(&hidden, &[&history], &[scored.id]).unwrap(), [place as u32 + 1]);
        assert!(model.validation_ranks(&hidden, &[scored.id]).unwrap()[0] > place as u32);
    }
}

#[test]
fn a_part_of_the_items_scores_as_in_the_whole() {
    let model = lively_model();
    let items = [9, 2, 5, 4, 7, 1];
    let part = model.restricted_to(&items).unwrap();
    let (history, same): ([u32; 3], [u32; 3]) = ([5, 9, 1], [3, 1, 6]);
    let hidden = model.encode(&PackedBatch::score([&history[..]], 5)).unwrap();
    let own = part.encode(&PackedBatch::score([&same[..]], 5)).unwrap();
    assert_eq!(own, hidden);
    let all = model.top_k(&hidden, &[&[1, 5, 9]], 100).unwrap();
    let expected: Vec<(u32, f32)> = all[0].iter().filter(|s| items.contains(&s.id)).map(|s| (s.id, s.score)).collect();
    let found = part.top_k(&own, &[&[1, 3, 6]], 100).unwrap();
    let found: Vec<(u32, f32)> = found[0].iter().map(|s| (items[s.id as usize - 1], s.score)).collect();
    assert_eq!(found, expected);
    assert!(part.restricted_to(&[7]).is_err() && model.restricted_to(&[]).is_err());
}

#[test]
fn files_of_another_model_are_refused_with_a_reason() {
    let saved = LruRec::new(config(), 1).unwrap().save().unwrap();
    let error = LruRec::load(&saved.weights, &saved.config, 24).unwrap_err().to_string();
    assert!(error.contains("trained on 23 items, the catalogue has 24"), "{error}");
    let other = LruRecConfig::new(24, 6, 2, 0.2, 8).unwrap().to_json();
    let error = LruRec::load(&saved.weights, &other, 24).unwrap_err().to_string();
    assert!(error.contains("`embedding.token.weight` has shape [24, 6], expected [25, 6]"), "{error}");
    let deeper = LruRecConfig::new(23, 6, 3, 0.2, 8).unwrap().to_json();
    assert!(matches!(LruRec::load(&saved.weights, &deeper, 23), Err(Error::MissingTensor { .. })));
    let flatter = LruRecConfig::new(23, 6, 1, 0.2, 8).unwrap().to_json();
    assert!(matches!(LruRec::load(&saved.weights, &flatter, 23), Err(Error::UnknownTensor { .. })));
    assert!(LruRec::load(&saved.weights, b"{}", 23).is_err());
}

#[test]
fn an_item_beyond_the_catalogue_is_an_error() {
    let model = LruRec::new(config(), 1).unwrap();
    let batch = PackedBatch::train([(&[1, 99, 2][..], 0)], 8);
    let error = model.loss_and_gradients(&batch, 3, Dropout::NONE).unwrap_err().to_string();
    assert!(error.contains("99"), "{error}");
    let empty = PackedBatch::train([], 8);
    assert!(matches!(model.loss_and_gradients(&empty, 1, Dropout::NONE), Err(Error::Input(_))));
}

/// Asserts that two lists of tensors of the same names are about the same numbers.
fn about(found: &Params, wanted: &Params, tolerance: f32) {
    found.expect_like(wanted).unwrap();
    for ((name, found), wanted) in found.iter().zip(wanted.tensors()) {
        for (i, (found, wanted)) in found.to_f32().iter().zip(wanted.to_f32()).enumerate() {
            assert!((found - wanted).abs() <= tolerance * wanted.abs().max(1.0), "{name}[{i}]: {found}, not {wanted}");
        }
    }
}

fn sorted(items: &[u32]) -> Vec<u32> {
    let mut items = items.to_vec();
    items.sort_unstable();
    items.dedup();
    items
}

#[test]
fn padding_teaches_nothing() {
    let (batch, dropout) = (batch(5), Dropout { seed: 5, rate: 0.2 });
    let model = LruRec::new(config(), 3).unwrap();
    let (wanted_loss, wanted) = model.loss_and_gradients(&batch, batch.rows(), dropout).unwrap();
    for (rows, sequences) in [(batch.rows() + 9, 20), (batch.rows() + 1, 1), (1, 1), (1, 40)] {
        let padded = batch.clone().padded(rows, sequences);
        assert_eq!(padded.rows(), rows.max(batch.rows()));
        assert!(padded.segments.len() >= sequences && padded.taught() == batch.rows());
        let (loss, found) = model.loss_and_gradients(&padded, batch.rows(), dropout).unwrap();
        assert_eq!(loss, wanted_loss);
        about(&found, &wanted, 1e-7);
    }
}

#[test]
fn a_device_trains_and_retrieves_like_the_host() {
    let device = Device::under_test().unwrap();
    let (batch, dropout) = (batch(9), Dropout { seed: 5, rate: 0.2 });
    let mut host = LruRec::new(config(), 3).unwrap();
    let mut other = host.on(&device).unwrap();

    let (wanted_loss, wanted) = host.loss_and_gradients(&batch, batch.rows(), dropout).unwrap();
    let (loss, found) = other.loss_and_gradients(&batch, batch.rows(), dropout).unwrap();
    assert!((loss - wanted_loss).abs() < 1e-4 * wanted_loss, "{loss} and {wanted_loss}");
    about(&found, &wanted, 1e-5);

    let [mut optimizer, mut other_optimizer] = [(); 2].map(|()| AdamW::new(optimizer_config(1e-3, 0.01)));
    for _ in 0..2 {
        let wanted = host.train_step(&batch, &mut optimizer, dropout).unwrap();
        let found = other.train_step(&batch, &mut other_optimizer, dropout).unwrap();
        assert!((found.loss - wanted.loss).abs() < 1e-4, "{found:?} and {wanted:?}");
        assert!((found.grad_norm - wanted.grad_norm).abs() < 1e-3 * wanted.grad_norm, "{found:?} and {wanted:?}");
    }
    about(other.params(), host.params(), 2e-4);

    // From here on the same parameters: those of the device, through the files of both.
    let saved = other.save().unwrap();
    let host = LruRec::load(&saved.weights, &saved.config, 23).unwrap();
    let reloaded =
        AdamW::load(other_optimizer.config().clone(), &other_optimizer.save().unwrap(), other.params()).unwrap();
    assert_eq!(reloaded, other_optimizer);
    let sequences = sequences(7, 23);
    let histories: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let excluded: Vec<Vec<u32>> = histories.iter().map(|h| sorted(h)).collect();
    let excluded: Vec<&[u32]> = excluded.iter().map(Vec::as_slice).collect();
    let scored = PackedBatch::score(histories, 8);
    let [wanted, found] = [&host, &other].map(|model| {
        let hidden = model.encode(&scored).unwrap();
        let best = model.top_k(&hidden, &excluded, 5).unwrap();
        let best: Vec<Vec<u32>> = best.into_iter().map(|row| row.into_iter().map(|s| s.id).collect()).collect();
        (best, model.validation_ranks(&hidden, &[1, 2, 3, 4, 5, 6, 7]).unwrap())
    });
    assert_eq!(found, wanted);
}

#[test]
fn steps_that_a_device_replays_teach_what_the_host_is_taught() {
    let device = Device::under_test().unwrap();
    let (dropout, mut recordings) = (Dropout { seed: 5, rate: 0.2 }, Recordings::default());
    let mut host = LruRec::new(config(), 3).unwrap();
    let mut other = host.on(&device).unwrap();
    let mut kept = other.clone();
    let [mut optimizer, mut other_optimizer] = [(); 2].map(|()| AdamW::new(optimizer_config(1e-3, 0.01)));
    // Batches of other lengths and contents, but of two shapes.
    let sequences = sequences(40, 23);
    for step in 0..8 {
        let some = sequences.iter().zip(0..).skip(4 * step).take(if step == 6 { 40 } else { 5 });
        let batch = PackedBatch::train(some.map(|(s, i)| (s.as_slice(), example_key(0, i))), 8);
        let wanted = host.train_step(&batch, &mut optimizer, dropout).unwrap();
        let found = other.train_step_on(&device, &mut recordings, batch, &mut other_optimizer, dropout).unwrap();
        assert!((found.loss - wanted.loss).abs() < 1e-4, "{step}: {found:?} and {wanted:?}");
        assert!(
            (found.grad_norm - wanted.grad_norm).abs() < 1e-3 * wanted.grad_norm,
            "{step}: {found:?} and {wanted:?}"
        );
        if step == 4 {
            kept = other.clone(); // shares memory with what goes on to change
        }
    }
    about(other.params(), host.params(), 5e-4);
    let (recorded, replayed) = recordings.counts();
    assert!(recorded + replayed == 8 && replayed >= 2, "{recorded} recorded, {replayed} replayed");
    assert!(kept.params() != other.params(), "what was kept stays as it was");
}

#[test]
fn slices_that_a_device_replays_have_the_gradients_of_the_host() {
    let device = Device::under_test().unwrap();
    let (dropout, mut recordings) = (Dropout { seed: 5, rate: 0.2 }, Recordings::default());
    let host = LruRec::new(config(), 3).unwrap();
    let other = host.on(&device).unwrap();
    let mut grads = other.params().zeros_like().unwrap();
    let mut kept: Vec<(Params, Params)> = Vec::new();
    let sequences = sequences(40, 23);
    for slice in 0..4 {
        let some = sequences.iter().zip(0..).skip(4 * slice).take(5);
        let batch = PackedBatch::train(some.map(|(s, i)| (s.as_slice(), example_key(0, i))), 8);
        let (wanted_loss, wanted) = host.loss_and_gradients(&batch, 100, dropout).unwrap();
        let loss = other.gradients_on(&device, &mut recordings, batch, (100, dropout), &mut grads).unwrap();
        assert!((loss - wanted_loss).abs() < 1e-3, "{slice}: {loss} and {wanted_loss}");
        kept.push((grads.copied().unwrap(), wanted));
    }
    // What was copied is not what is written to again.
    kept.iter().for_each(|(found, wanted)| about(found, wanted, 1e-5));
    let (recorded, replayed) = recordings.counts();
    assert!(recorded <= 2 && replayed >= 2, "{recorded} recorded, {replayed} replayed");
}
