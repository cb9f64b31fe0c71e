#![allow(clippy::unwrap_used)]
use half::bf16;

use super::*;
use crate::testing::{accelerator, near, noise_tensor};

/// Floats that are hard to round, at the begin of others.
fn hard(n: usize) -> Tensor {
    let mut x = noise_tensor(3, &[n]);
    let bits =
        [0x3F80_8000, 0x3F81_8000, 0x3F80_8001, 0x7F80_0001, 0xFFC0_0000, 0x7F7F_FFFF, 0xFF80_0000, 0x0000_8000, 1];
    x.f32_mut().unwrap().iter_mut().zip(bits).for_each(|(v, bits)| *v = f32::from_bits(bits));
    x
}

#[test]
fn casts_round_to_even_and_widen_exactly() {
    let x = hard(20);
    let narrow = x.cast(Dtype::Bf16).unwrap();
    let wanted: Vec<u16> = x.f32().unwrap().iter().map(|&v| bf16::from_f32(v).to_bits()).collect();
    assert_eq!(narrow.bf16().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>(), wanted);
    assert_eq!(
        narrow.cast(Dtype::F32).unwrap().to_le_bytes(),
        Tensor::from_f32(&[20], narrow.to_f32()).unwrap().to_le_bytes()
    );
    let half = noise_tensor(1, &[7]).cast(Dtype::F16).unwrap();
    assert_eq!((half.dtype(), half.cast(Dtype::F32).unwrap().to_f32()), (Dtype::F16, half.to_f32()));
    assert_eq!(x.cast(Dtype::U8).unwrap_err().to_string(), "tensor::cast: result is U8, expected F32");
}

#[test]
fn a_device_casts_to_the_bits_of_the_host() {
    let device = accelerator();
    for n in [0, 1, 3, 4, 9, 1027] {
        let x = hard(n);
        let placed = device.put(&x).unwrap();
        let narrow = placed.cast(Dtype::Bf16).unwrap();
        assert_eq!((narrow.dtype(), narrow.shape(), narrow.stream().is_some()), (Dtype::Bf16, &[n][..], true));
        assert_eq!(narrow.to_le_bytes(), x.to_bf16().to_le_bytes());
        let wide = narrow.cast(Dtype::F32).unwrap();
        assert!(wide.stream().is_some());
        assert_eq!(wide.to_le_bytes(), x.to_bf16().cast(Dtype::F32).unwrap().to_le_bytes());
        assert_eq!(placed.cast(Dtype::F32).unwrap().to_le_bytes(), x.to_le_bytes());
    }
    let refused = device.put(&noise_tensor(1, &[2])).unwrap().cast(Dtype::F16).unwrap_err().to_string();
    assert!(refused.contains("cannot make F16 of F32"), "{refused}");
}

#[test]
fn a_device_adds_as_the_host_does() {
    let device = accelerator();
    for shape in [[0, 3], [1, 1], [1, 3], [2, 2], [3, 7], [5, 211]] {
        let (mut a, b) = (noise_tensor(1, &shape), noise_tensor(2, &shape));
        let (mut found, placed) = (device.put(&a).unwrap(), device.put(&b).unwrap());
        let before = found.clone();
        found.add(&placed).unwrap();
        near(&before, &a, 0.0); // clones are left alone
        a.add(&b).unwrap();
        near(&found, &a, 0.0);
        a.add(&b.to_bf16()).unwrap();
        found.add(&placed.cast(Dtype::Bf16).unwrap()).unwrap();
        near(&found, &a, 0.0); // sums stay in f32
        let refused = found.add(&b).unwrap_err().to_string();
        assert_eq!(refused, format!("tensor::add: other is on the host, expected on {}", device.name()));
    }
}
