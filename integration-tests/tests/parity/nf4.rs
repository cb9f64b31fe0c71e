//! NF4 against bitsandbytes: packed codes, scales, decoded values.

use kernels::{
    Dtype, Tensor,
    nf4::{self, Magnitudes, Nf4Weight, Rounding},
};
use model::params::Params;
use serde_json::Value;

use crate::{fixtures, golden};

struct Case {
    name: String,
    shape: Vec<usize>,
    rounding: Rounding,
    double: bool,
}

fn load() -> Option<(Params, Vec<Case>)> {
    let folder = fixtures::folder("nf4")?;
    let tensors = golden::tensors(&folder.join("nf4.safetensors"));
    let meta = golden::json(&folder.join("nf4.json"));
    let case = |case: &Value| Case {
        name: case["name"].as_str().unwrap().to_owned(),
        shape: serde_json::from_value(case["shape"].clone()).unwrap(),
        rounding: match case["dtype"].as_str().unwrap() {
            "bfloat16" => Rounding::Bf16,
            "float16" => Rounding::F16,
            _ => Rounding::F32,
        },
        double: case["double_quant"].as_bool().unwrap(),
    };
    Some((tensors, meta["cases"].as_array().unwrap().iter().map(case).collect()))
}

impl Case {
    fn get<'a>(&self, tensors: &'a Params, part: &str) -> &'a Tensor {
        tensors.get(&format!("{}.{part}", self.name)).unwrap()
    }

    /// The weight as bitsandbytes stored it.
    fn stored(&self, tensors: &Params) -> Nf4Weight {
        let magnitudes = if self.double {
            Magnitudes::Double {
                codes: self.get(tensors, "absmax_u8").u8().unwrap().to_vec(),
                scales: self.get(tensors, "nested_absmax").to_f32(),
                offset: self.get(tensors, "offset").to_f32()[0],
            }
        } else {
            Magnitudes::Plain(self.get(tensors, "absmax").to_f32())
        };
        Nf4Weight::from_parts(&self.shape, self.get(tensors, "packed").u8().unwrap().to_vec(), magnitudes).unwrap()
    }
}

#[test]
fn code_books_are_equal() {
    let Some((tensors, _)) = load() else { return };
    assert_eq!(nf4::CODE.as_slice(), tensors.get("code_nf4").unwrap().f32().unwrap());
    assert_eq!(nf4::dynamic_code().as_slice(), tensors.get("code_dynamic_8bit").unwrap().f32().unwrap());
}

#[test]
fn stored_weights_decode_to_the_same_bits() {
    let Some((tensors, cases)) = load() else { return };
    for case in &cases {
        let decoded = nf4::dequantize(&case.stored(&tensors), case.rounding).unwrap();
        assert_eq!(decoded.to_f32(), case.get(&tensors, "dequant").to_f32(), "{}", case.name);
    }
}

#[test]
fn weights_encode_to_the_same_codes() {
    let Some((tensors, cases)) = load() else { return };
    for case in &cases {
        let ours = nf4::quantize(case.get(&tensors, "weight"), case.double).unwrap();
        assert_eq!(ours.codes(), case.get(&tensors, "packed").u8().unwrap(), "{}", case.name);
        match ours.magnitudes() {
            Magnitudes::Plain(values) => assert_eq!(values, &case.get(&tensors, "absmax").to_f32(), "{}", case.name),
            Magnitudes::Double { codes, scales, offset } => {
                let wanted = case.get(&tensors, "offset").to_f32()[0];
                assert!((offset - wanted).abs() <= 1e-6 * wanted.abs(), "{}: {offset} and {wanted}", case.name);
                // The offset goes into the scales.
                golden::close(
                    &case.name,
                    scales,
                    &case.get(&tensors, "nested_absmax").to_f32(),
                    1e-6 * wanted.abs(),
                    0.0,
                );
                compare_scale_codes(case, codes, case.get(&tensors, "absmax_u8").u8().unwrap());
            }
        }
    }
}

/// The library does not always take the nearest code; known are one entry of c30 and five of c35.
fn compare_scale_codes(case: &Case, ours: &[u8], theirs: &[u8]) {
    assert_eq!(ours.len(), theirs.len());
    let allowed = match case.name.as_str() {
        "c30" => 1,
        "c35" => 5,
        _ => 0,
    };
    let code = nf4::dynamic_code();
    let different: Vec<_> = ours.iter().zip(theirs).filter(|(a, b)| a != b).collect();
    assert!(different.len() <= allowed, "{}: {} codes differ", case.name, different.len());
    for (&a, &b) in different {
        // Neighbours in value: at the centre of the table the steps are tiny.
        let (a, b) = (usize::from(a), usize::from(b));
        assert!(a.abs_diff(b) <= 1 || (code[a] - code[b]).abs() < 1e-4, "{}: {a} and {b}", case.name);
    }
}

#[test]
fn linear_layers_give_the_same_outputs() {
    let Some((tensors, cases)) = load() else { return };
    for case in cases.iter().filter(|c| tensors.contains(&format!("{}.y", c.name))) {
        let x = case.get(&tensors, "x");
        let y = nf4::linear(x, &case.stored(&tensors), case.rounding).unwrap();
        golden::close(&case.name, y.f32().unwrap(), &case.get(&tensors, "y").to_f32(), 1e-4, 0.0);
    }
}

#[test]
fn a_saved_state_names_what_the_parts_hold() {
    let Some((tensors, cases)) = load() else { return };
    let last = cases.last().unwrap();
    let state = |part: &str| last.get(&tensors, &format!("state_dict.weight.{part}"));
    assert_eq!(state("absmax").dtype(), Dtype::U8);
    assert_eq!(state("absmax").u8().unwrap(), last.get(&tensors, "absmax_u8").u8().unwrap());
    let text = state("quant_state.bitsandbytes__nf4").u8().unwrap();
    let meta: Value = serde_json::from_slice(text).unwrap();
    assert_eq!((meta["quant_type"].as_str(), meta["blocksize"].as_u64()), (Some("nf4"), Some(nf4::BLOCK as u64)));
    assert_eq!(meta["nested_blocksize"].as_u64(), Some(nf4::NESTED_BLOCK as u64));
}
