#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn settings_survive_a_round_trip() {
    let options = LoraOptions { rank: 3, alpha: 6.0, dropout: 0.0, targets: Projection::ALL.into_iter().collect() };
    assert_eq!(options_from_json(&config_json(&options, "/models/base")).unwrap(), options);
}

#[test]
fn what_is_not_computed_is_refused() {
    let text = config_json(&LoraOptions::default(), "base");
    let error = |from: &str, to: &str| options_from_json(&text.replace(from, to)).unwrap_err().to_string();
    assert!(error("\"use_dora\": false", "\"use_dora\": true").contains("use_dora is not supported"));
    assert!(error("\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]").contains("modules_to_save"));
    assert!(error("\"v_proj\"", "\"c_attn\"").contains("`c_attn`"));
    assert!(error("\"r\": 8", "\"r\": 0").contains("rank must be at least 1"));
}
