//! Scoring in eight bits.

use super::precision::{distance, prompts};
use super::*;

const LABELS: [u32; 3] = [3, 9, 14];

fn scores(ranker: &Ranker) -> Vec<f32> {
    ranker.score(None, &prompts(), &LABELS).unwrap().concat()
}

/// Rows are cut at every layer, so in a network so narrow and random three bits of mantissa go a long way.
#[test]
fn scores_in_eight_bits_are_near_and_the_same_in_any_company() {
    let precisions =
        [(Quantize::None, Precision::F32), (Quantize::Nf4, Precision::F32), (Quantize::Nf4, Precision::Bf16)];
    for (quantize, precision) in precisions {
        let cut = [Device::cpu(2).unwrap(), Device::under_test().unwrap()].map(|device| {
            let dequantize = Dequantize::PerUse;
            let options = RankerOptions { quantize, dequantize, precision, trainable: lora(0.2), ..Default::default() };
            let mut ranker = ranker_with(&device, false, options);
            let wanted = scores(&ranker);
            ranker.cut_to_fp8().unwrap();
            let found = scores(&ranker);
            let error = distance(&found, &wanted);
            assert!(0.0 < error && error < 0.4, "{quantize:?} {precision:?} on {}: {error}", device.name());
            ranker.cut_to_fp8().unwrap();
            assert_eq!(scores(&ranker), found, "what is cut stays as it is");
            let shared = ranker.share(&[1, 4, 5]).unwrap();
            let mut turned = prompts();
            turned.rotate_left(1);
            let mut behind = ranker.score(Some(&shared), &turned, &LABELS).unwrap();
            behind.rotate_right(1);
            assert_eq!(behind.concat(), found, "{quantize:?} {precision:?} on {}", device.name());
            found
        });
        let apart = distance(&cut[1], &cut[0]);
        let most = if precision == Precision::F32 { 0.05 } else { 0.2 };
        assert!(apart < most, "{quantize:?} {precision:?}: a device is {apart} from the host");
    }
}

#[test]
fn what_is_cut_is_not_trained_and_what_is_trained_is_not_cut() {
    let mut cut = ranker(false, Quantize::Nf4, lora(0.0));
    cut.cut_to_fp8().unwrap();
    let error = cut.gradients(&examples(), 3).unwrap_err().to_string();
    assert!(error.contains("no gradient"), "{error}");
    let mut trained = ranker(false, Quantize::None, Trainable::Full);
    let error = trained.cut_to_fp8().unwrap_err().to_string();
    assert!(error.contains("load it to score"), "{error}");
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    let mut base = base(false);
    base.get_mut("model.layers.1.mlp.up_proj.weight").unwrap().f32_mut().unwrap()[13] = f32::NAN;
    let options = RankerOptions { quantize: Quantize::None, trainable: Trainable::Nothing, ..Default::default() };
    let mut ranker = Ranker::from_source(&config_json(false), &base, options, &Device::cpu(1).unwrap()).unwrap();
    let error = ranker.cut_to_fp8().unwrap_err().to_string();
    assert!(error.contains("model.layers.1.mlp.up_proj.weight in eight bits: row 1"), "{error}");
}
