#![allow(clippy::unwrap_used)]

use super::*;

/// The factors of two layers for some projections of 4 inputs and 6 outputs.
fn factors(options: &LoraOptions) -> Params {
    let mut params = Params::new();
    for layer in 0..2 {
        for target in &options.targets {
            let module = format!("{WRAPPER}model.layers.{layer}.{}", target.path());
            let values = |n: usize, by: f32| (0..n).map(|i| by * (i as f32 - 3.0)).collect();
            let rank = options.rank;
            params.insert(format!("{module}{FACTOR_A}"), Tensor::from_f32(&[rank, 4], values(rank * 4, 0.5)).unwrap());
            params.insert(format!("{module}{FACTOR_B}"), Tensor::from_f32(&[6, rank], values(6 * rank, 0.1)).unwrap());
        }
    }
    params
}

fn read(config: &str, options: &LoraOptions) -> Result<Adapter> {
    Adapter::from_bytes(config, &weights::to_bytes(&factors(options)).unwrap())
}

#[test]
fn settings_and_factors_survive_a_round_trip() {
    let options = LoraOptions { rank: 3, alpha: 6.0, dropout: 0.0, targets: Projection::ALL.into_iter().collect() };
    let adapter = read(&config_json(&options, "/models/base"), &options).unwrap();
    assert_eq!((&adapter.options, adapter.base.as_str()), (&options, "/models/base"));
    let [config, tensors] = adapter.files("elsewhere", Dtype::F32).unwrap();
    let again = Adapter::from_bytes(std::str::from_utf8(&config).unwrap(), &tensors).unwrap();
    assert_eq!((again.factors(), again.base.as_str()), (adapter.factors(), "elsewhere"));
}

#[test]
fn the_norm_of_an_update_is_that_of_its_product() {
    let options = LoraOptions { rank: 2, ..LoraOptions::default() };
    let adapter = read(&config_json(&options, ""), &options).unwrap();
    assert_eq!(adapter.pairs().count(), 4);
    for pair in adapter.pairs() {
        let delta = pair.delta().unwrap();
        assert_eq!(delta.shape(), [6, 4]);
        let wanted = delta.to_f32().iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        assert!((pair.norm().unwrap() - wanted).abs() < 1e-5 * wanted, "{}", pair.weight);
    }
    assert_eq!(adapter.pairs().next().unwrap().weight, "model.layers.0.self_attn.q_proj");
}

#[test]
fn a_pattern_of_targets_is_read_from_the_factors() {
    let options = LoraOptions { rank: 2, ..LoraOptions::default() };
    let mut config: Value = serde_json::from_str(&config_json(&options, "")).unwrap();
    config["target_modules"] = json!(".*(q|v)_proj");
    assert_eq!(read(&config.to_string(), &options).unwrap().options, options);
}

#[test]
fn what_is_not_computed_is_refused() {
    let options = LoraOptions::default();
    let text = config_json(&options, "base");
    let error = |from: &str, to: &str| read(&text.replace(from, to), &options).unwrap_err().to_string();
    assert!(error("\"use_dora\": false", "\"use_dora\": true").contains("use_dora is not supported"));
    assert!(error("\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]").contains("modules_to_save"));
    assert!(error("\"v_proj\"", "\"c_attn\"").contains("`c_attn`"));
    assert!(error("\"r\": 8", "\"r\": 0").contains("rank must be at least 1"));
}

#[test]
fn factors_that_do_not_belong_together_are_named() {
    let options = LoraOptions::default();
    let (text, whole) = (config_json(&options, "base"), factors(&options));
    let error =
        |params: &Params| Adapter::from_bytes(&text, &weights::to_bytes(params).unwrap()).unwrap_err().to_string();
    let mut alone = whole.clone();
    alone.remove(&format!("{WRAPPER}model.layers.1.self_attn.v_proj{FACTOR_B}")).unwrap();
    assert!(error(&alone).contains("layers.1.self_attn.v_proj.lora_A.weight` is there without"));
    let mut other = whole.clone();
    other.insert("lm_head.weight", Tensor::zeros(&[2, 2]));
    assert!(error(&other).contains("`lm_head.weight` is no factor"));
    let mut narrow = whole;
    narrow.insert(format!("{WRAPPER}model.layers.0.self_attn.q_proj{FACTOR_A}"), Tensor::zeros(&[7, 4]));
    assert!(error(&narrow).contains("but r is 8"));
    assert!(error(&Params::new()).contains("no tensors"));
}
