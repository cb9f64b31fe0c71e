#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use kernels::patches::Normalisation;

use super::*;

/// Weights that follow from their names: a source of any network.
struct Made;

impl TensorSource for Made {
    fn tensor(&self, name: &str) -> Result<Tensor> {
        Err(Error::MissingTensor { name: name.to_owned() })
    }

    fn shaped(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let seed = name.bytes().fold(7_u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
        let value = |i: usize| {
            let h = (seed ^ (i as u32).wrapping_mul(0x9E37_79B9)).wrapping_mul(0x85EB_CA6B);
            let noise = f32::from((h >> 16) as u16) / 65_536.0 - 0.5;
            if name.to_lowercase().contains("norm") && name.ends_with("weight") { 1.0 + 0.2 * noise } else { noise }
        };
        Ok(Tensor::from_f32(shape, (0..shape.iter().product()).map(value).collect())?)
    }
}

fn captioner(precision: Precision) -> Captioner {
    captioner_on(&Device::cpu(1).unwrap(), precision)
}

fn captioner_on(device: &Device, precision: Precision) -> Captioner {
    let config = BlipConfig::from_json(
        r#"{"model_type": "blip-2", "num_query_tokens": 3,
            "vision_config": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
                "image_size": 12, "patch_size": 4},
            "qformer_config": {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2,
                "encoder_hidden_size": 16},
            "text_config": {"vocab_size": 40, "hidden_size": 16, "ffn_dim": 20, "num_hidden_layers": 2,
                "num_attention_heads": 4, "max_position_embeddings": 14}}"#,
    )
    .unwrap();
    let words: BTreeMap<String, u32> = (0..40).map(|i| (format!("w{i}"), i)).collect();
    let tokenizer = serde_json::json!({"version": "1.0", "added_tokens": [{"id": 2, "content": "w2", "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"}});
    let tokenizer = Tokenizer::from_bytes(tokenizer.to_string()).unwrap();
    Captioner::from_source(config, &Made, tokenizer, precision, device).unwrap()
}

/// Different pictures.
fn pictures(n: usize) -> Tensor {
    let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 250.0 - 2.0;
    Tensor::from_f32(&[n, 3, 12, 12], (0..n * 432).map(value).collect()).unwrap()
}

/// Some of the pictures, in another order.
fn pick(pictures: &Tensor, order: &[usize]) -> Tensor {
    let values = order.iter().flat_map(|&i| pictures.f32().unwrap()[i * 432..][..432].to_vec()).collect();
    Tensor::from_f32(&[order.len(), 3, 12, 12], values).unwrap()
}

#[test]
fn a_caption_is_the_same_in_any_company_and_order() {
    for precision in [Precision::F32, Precision::Bf16] {
        // More pictures than go through the vision tower together.
        let captioner = captioner(precision);
        let together = ROWS_TOGETHER / captioner.config().vision.rows();
        let all = pictures(together + 3);
        // A token that some captions hold early and others late or not at all: rows leave the batch one by one.
        let free = captioner.generate(&all, &Generation { max_tokens: 10, ends: Vec::new() }).unwrap();
        let end = free[0][4];
        let generation = Generation { max_tokens: 10, ends: vec![end] };
        let wanted = captioner.generate(&all, &generation).unwrap();
        for (free, cut) in free.iter().zip(&wanted) {
            assert_eq!(*cut, free[..free.iter().position(|&t| t == end).unwrap_or(10)]);
        }
        let order = [7, 3, together + 1, 0, 5];
        let some = captioner.generate(&pick(&all, &order), &generation).unwrap();
        for (&i, found) in order.iter().zip(&some) {
            assert_eq!(*found, wanted[i]);
            assert_eq!(captioner.generate(&pick(&all, &[i]), &generation).unwrap(), [wanted[i].clone()]);
        }
        assert_eq!(captioner.first_logits(&all).unwrap().shape(), [together + 3, 40]);
    }
}

#[test]
fn bytes_are_normalised_on_the_way() {
    let captioner = captioner(Precision::F32);
    let normalisation = Normalisation { rescale: 1.0 / 255.0, mean: [0.5, 0.4, 0.3], std: [0.25, 0.5, 0.3] };
    let n = ROWS_TOGETHER / captioner.config().vision.rows() + 2;
    let bytes: Vec<u8> = (0..n * 432).map(|i| (i * 7919 % 256) as u8).collect();
    // The same pictures plane by plane.
    let number = |picture: usize, channel: usize, pixel: usize| {
        let byte = f32::from(bytes[picture * 432 + pixel * 3 + channel]);
        (byte * normalisation.rescale - normalisation.mean[channel]) / normalisation.std[channel]
    };
    let normalised = (0..n * 432).map(|i| number(i / 432, i % 432 / 144, i % 144)).collect();
    let normalised = Tensor::from_f32(&[n, 3, 12, 12], normalised).unwrap();
    let bytes = Tensor::from_u8(&[n, 12, 12, 3], bytes.clone()).unwrap();
    let found = captioner.first_logits(Pixels::Bytes(&bytes, &normalisation)).unwrap();
    assert_eq!(found, captioner.first_logits(&normalised).unwrap());
    let swapped = Tensor::from_u8(&[3, 3, 12, 12], vec![0; 3 * 432]).unwrap();
    assert!(captioner.first_logits(Pixels::Bytes(&swapped, &normalisation)).is_err());
}

#[test]
fn texts_lose_special_tokens_and_space() {
    let captioner = captioner(Precision::F32);
    assert_eq!(captioner.text(&[2, 5, 7, 2]).unwrap(), "w5 w7");
    assert_eq!(captioner.caption(&pictures(2), 0).unwrap(), ["", ""]);
    assert_eq!(captioner.caption(&pictures(0), 5).unwrap(), Vec::<String>::new());
}

#[test]
fn what_does_not_fit_is_named() {
    let captioner = captioner(Precision::F32);
    let error = captioner.caption(&pictures(1), 12).unwrap_err().to_string();
    assert!(error.contains("captions of 12 tokens") && error.contains("room for 11"), "{error}");
    assert!(captioner.caption(&pictures(1), 11).is_ok());
    let error = captioner.caption(&Tensor::zeros(&[1, 3, 12, 16]), 5).unwrap_err().to_string();
    assert!(error.contains("16 x 12") && error.contains("12 x 12"), "{error}");
    assert!(captioner.caption(&Tensor::zeros(&[3, 12, 12]), 5).is_err());
}

#[test]
fn a_device_describes_like_the_host() {
    let device = Device::under_test().unwrap();
    for (precision, tolerance) in [(Precision::F32, 1e-4), (Precision::Bf16, 5e-2)] {
        let (host, other) = (captioner(precision), captioner_on(&device, precision));
        let pictures = pictures(3);
        let [wanted, found] = [&host, &other].map(|c| c.first_logits(&pictures).unwrap().to_f32());
        let error = found.iter().zip(&wanted).map(|(f, w)| (f - w).abs() / w.abs().max(1.0)).fold(0.0, f32::max);
        assert!(error < tolerance, "{precision:?}: {error}");
        let generation = Generation { max_tokens: 3, ends: vec![5] };
        let [wanted, found] = [&host, &other].map(|c| c.generate(&pictures, &generation).unwrap());
        if precision == Precision::F32 {
            assert_eq!(found, wanted);
        }
    }
}
