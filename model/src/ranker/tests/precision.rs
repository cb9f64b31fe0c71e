//! Products of bfloat16.

use super::*;

fn narrow(device: &Device, quantize: Quantize, dropout: f32) -> Ranker {
    let dequantize = Dequantize::PerUse;
    let precision = Precision::Bf16;
    let options = RankerOptions { quantize, dequantize, precision, trainable: lora(dropout), ..Default::default() };
    ranker_with(device, false, options)
}

/// How far two lists lie apart, relative to the length of the wanted one.
pub(super) fn distance(found: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let length = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let mut differences = found.iter().zip(wanted).map(|(f, w)| f - w);
    length(&mut differences) / length(&mut wanted.iter().copied())
}

pub(super) fn prompts() -> Vec<Vec<u32>> {
    vec![vec![1, 4, 5, 9, 20], vec![1, 4, 5, 6, 11, 2, 7, 7, 20, 11], vec![1, 4, 5, 8]]
}

#[test]
fn products_of_bfloat16_are_near_those_of_floats_everywhere() {
    let devices = [Device::cpu(2).unwrap(), Device::under_test().unwrap()];
    for quantize in [Quantize::None, Quantize::Nf4] {
        let wide = ranker(false, quantize, lora(0.2));
        let wanted = wide.score(None, &prompts(), &[3, 9, 14]).unwrap().concat();
        let (grads, loss) = wide.gradients(&examples(), 3).unwrap();
        for device in &devices {
            let mut narrow = narrow(device, quantize, 0.2);
            let found = narrow.score(None, &prompts(), &[3, 9, 14]).unwrap().concat();
            assert_eq!(found, narrow.score(None, &prompts(), &[3, 9, 14]).unwrap().concat(), "two calls");
            let error = distance(&found, &wanted);
            assert!(0.0 < error && error < 0.04, "{quantize:?} on {}: {error}", device.name());
            let (found, found_loss) = narrow.gradients(&examples(), 3).unwrap();
            assert!((found_loss - loss).abs() < 0.01 * loss, "{found_loss} and {loss}");
            // Of this network in four bits, weights that differ by 0.4 % have gradients that differ by 30 %.
            let most = if quantize == Quantize::None { 0.04 } else { 0.25 };
            let error = distance(&found.to_flat().unwrap(), &grads.to_flat().unwrap());
            assert!(error < most, "{quantize:?} on {}: {error}", device.name());
            narrow.update(&found, 1e-3).unwrap();
            assert_eq!(narrow.params().iter().next().unwrap().1.dtype(), Dtype::F32);
        }
    }
}

#[test]
fn what_is_computed_again_and_what_is_shared_gives_the_same_bits() {
    for device in [Device::cpu(1).unwrap(), Device::under_test().unwrap()] {
        let mut ranker = narrow(&device, Quantize::Nf4, 0.2);
        let gradient = |ranker: &Ranker| ranker.gradients(&examples(), 3).unwrap().0.to_flat().unwrap();
        let kept = gradient(&ranker);
        for activation_bytes in [0, 1_500, 3_000, 4_500] {
            ranker.room = Room::new(12, activation_bytes);
            assert_eq!(gradient(&ranker), kept, "{activation_bytes} on {}", device.name());
        }
        let shared = ranker.share(&[1, 4, 5]).unwrap();
        assert_eq!(shared.bytes(), 2 * 2 * 3 * 8 * 2);
        let whole = ranker.score(None, &prompts(), &[3, 9, 14]).unwrap().concat();
        let behind = ranker.score(Some(&shared), &prompts(), &[3, 9, 14]).unwrap().concat();
        assert_eq!(behind, whole, "{}", device.name());
    }
}

#[test]
fn full_training_multiplies_what_it_trains() {
    let (quantize, precision) = (Quantize::None, Precision::Bf16);
    let options = RankerOptions { quantize, precision, trainable: Trainable::Full, ..Default::default() };
    assert!(options.check().unwrap_err().to_string().contains("ranker.precision = \"f32\""));
}
