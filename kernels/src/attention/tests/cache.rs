use super::*;
use crate::attention::cache::{Cache, step};
use crate::testing::{accelerator, near, same_on_threads};

const SHAPE: Shape = Shape { heads: 6, kv_heads: 3, head_dim: 5 };

/// Rows of three sequences, one after the other.
fn rows(seed: u64, each: usize, width: usize) -> Tensor {
    noise_tensor(seed, &[3 * each, width])
}

/// Row `at` of every sequence.
fn pick(t: &Tensor, each: usize, at: usize) -> Tensor {
    let values = (0..3).flat_map(|s| t.f32().unwrap()[(s * each + at) * t.cols()..][..t.cols()].to_vec());
    Tensor::from_f32(&[3, t.cols()], values.collect()).unwrap()
}

#[test]
fn steps_give_what_causal_attention_gives() {
    let (q, k, v) = (rows(1, 7, 30), rows(2, 7, 15), rows(3, 7, 15));
    let segments = Segments::from_lengths([7, 7, 7]);
    let (whole, _) = forward(&Operands::new(&q, &k, &v, Mask::Causal(&segments)), &SHAPE).unwrap();
    let mut cache = Cache::new(3, 7, &SHAPE, Dtype::F32).unwrap();
    for at in 0..7 {
        cache.append(&pick(&k, 7, at), &pick(&v, 7, at)).unwrap();
        let found = step(&pick(&q, 7, at), &cache, &SHAPE).unwrap();
        let wanted: Vec<f64> = pick(&whole, 7, at).f32().unwrap().iter().map(|&x| f64::from(x)).collect();
        assert!(largest_error(found.f32().unwrap(), &wanted) < 1e-6);
    }
    assert!(cache.append(&pick(&k, 7, 0), &pick(&v, 7, 0)).unwrap_err().to_string().contains("do not fit into 7"));
}

/// The rows of a tensor, from and to, as f32 or rounded.
fn part(t: &Tensor, rows: std::ops::Range<usize>, dtype: Dtype) -> Tensor {
    let part = rows_of(t, rows);
    if dtype == Dtype::Bf16 { part.to_bf16() } else { part }
}

#[test]
fn a_cache_of_bfloat16_is_one_of_rounded_rows() {
    let narrow = [noise_tensor(1, &[3, 30]), rows(2, 9, 15), rows(3, 9, 15)].map(|t| t.to_bf16());
    let mix = |[q, k, v]: [&Tensor; 3]| {
        let mut cache = Cache::new(3, 12, &SHAPE, q.dtype()).unwrap();
        cache.append(k, v).unwrap();
        step(q, &cache, &SHAPE).unwrap()
    };
    let wide = narrow.each_ref().map(|t| Tensor::from_f32(t.shape(), t.to_f32()).unwrap());
    assert_eq!(mix(narrow.each_ref()), mix(wide.each_ref()).to_bf16());
}

#[test]
fn a_sequence_has_the_same_bits_in_any_company_and_on_any_threads() {
    let (q, k, v) = (noise_tensor(1, &[3, 30]), rows(2, 9, 15), rows(3, 9, 15));
    for dtype in [Dtype::F32, Dtype::Bf16] {
        same_on_threads(|| {
            let mut cache = Cache::new(3, 12, &SHAPE, dtype).unwrap();
            cache.append(&part(&k, 0..27, dtype), &part(&v, 0..27, dtype)).unwrap();
            let all = step(&part(&q, 0..3, dtype), &cache, &SHAPE).unwrap().to_f32();
            cache.keep(&[0, 2]).unwrap();
            let kept = Tensor::from_f32(&[2, 30], [&q.f32().unwrap()[..30], &q.f32().unwrap()[60..]].concat()).unwrap();
            let some = step(&part(&kept, 0..2, dtype), &cache, &SHAPE).unwrap().to_f32();
            assert_eq!(some[..30], all[..30]);
            assert_eq!(some[30..], all[60..]);
            all
        });
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut cache = Cache::new(3, 4, &SHAPE, Dtype::F32).unwrap();
    assert_eq!(step(&Tensor::zeros(&[3, 30]), &cache, &SHAPE).unwrap(), Tensor::zeros(&[3, 30]));
    assert!(cache.append(&Tensor::zeros(&[3, 14]), &Tensor::zeros(&[3, 14])).is_err());
    assert!(cache.append(&Tensor::zeros(&[4, 15]), &Tensor::zeros(&[4, 15])).is_err());
    assert!(cache.keep(&[2, 1]).is_err() && cache.keep(&[3]).is_err());
    assert!(step(&Tensor::zeros(&[2, 30]), &cache, &SHAPE).is_err());
    assert!(step(&Tensor::zeros(&[3, 30]).to_bf16(), &cache, &SHAPE).unwrap_err().to_string().contains("q is Bf16"));
    assert!(Cache::new(3, 4, &SHAPE, Dtype::U8).unwrap_err().to_string().contains("keys and values of U8"));
    let other = Shape { kv_heads: 2, ..SHAPE };
    assert!(step(&Tensor::zeros(&[3, 30]), &cache, &other).unwrap_err().to_string().contains("cache"));
    cache.keep(&[]).unwrap();
    assert_eq!((cache.sequences(), cache.len()), (0, 0));
    assert!(step(&Tensor::zeros(&[0, 30]), &cache, &SHAPE).unwrap().is_empty());
}

/// A step of every sequence over a cache beside `k`, and one after some sequences were forgotten and rows were added.
fn steps([q, k, v]: &[Tensor; 3], shape: &Shape, rows: usize) -> [Tensor; 2] {
    let mut cache = Cache::beside(k, 3, rows + 1, shape).unwrap();
    cache.append(k, v).unwrap();
    let all = step(q, &cache, shape).unwrap();
    cache.keep(&[0, 2]).unwrap();
    let last = |t: &Tensor, count: usize| {
        let host = t.to_host().unwrap();
        let values = host.to_f32()[host.len() - count * t.cols()..].to_vec();
        let part = Tensor::from_f32(&[count, t.cols()], values).unwrap();
        if t.dtype() == Dtype::Bf16 { part.to_bf16().beside(t).unwrap() } else { part.beside(t).unwrap() }
    };
    cache.append(&last(v, 2), &last(k, 2)).unwrap();
    [all, step(&last(q, 2), &cache, shape).unwrap()]
}

#[test]
fn steps_on_a_device_agree_with_those_of_the_host() {
    let device = accelerator();
    let shapes = [(SHAPE, 3), (shape(8, 2, 16), 40), (shape(2, 2, 88), 9), (shape(4, 1, 64), 5), (shape(1, 1, 200), 2)];
    for (shape, rows) in shapes.into_iter().chain([(shape(2, 1, 3), 600), (shape(4, 1, 8), 255), (shape(1, 1, 8), 256)])
    {
        let (wide, width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let operands =
            [noise_tensor(1, &[3, wide]), noise_tensor(2, &[3 * rows, width]), noise_tensor(3, &[3 * rows, width])];
        for (operands, tolerance) in [(operands.each_ref().map(Tensor::to_bf16), 5e-3), (operands, 2e-6)] {
            let found = steps(&operands.each_ref().map(|t| device.put(t).unwrap()), &shape, rows);
            let wanted = steps(&operands, &shape, rows);
            found.iter().zip(&wanted).for_each(|(found, wanted)| near(found, wanted, tolerance));
        }
    }
}

#[test]
fn a_sequence_has_the_same_bits_in_any_company_on_a_device() {
    let device = accelerator();
    let operands = [noise_tensor(1, &[3, 30]), rows(2, 300, 15), rows(3, 300, 15)];
    let there = operands.each_ref().map(|t| device.put(t).unwrap());
    let mut cache = Cache::beside(&there[1], 3, 300, &SHAPE).unwrap();
    cache.append(&there[1], &there[2]).unwrap();
    let all = step(&there[0], &cache, &SHAPE).unwrap().to_f32();
    assert_eq!(step(&there[0], &cache, &SHAPE).unwrap().to_f32(), all);
    let mut copy = cache.clone();
    cache.keep(&[1]).unwrap();
    let one = device.put(&rows_of(&operands[0], 1..2)).unwrap();
    assert_eq!(step(&one, &cache, &SHAPE).unwrap().to_f32(), all[30..60]);
    // What happens to one cache does not happen to its copy.
    copy.keep(&[0, 1]).unwrap();
    cache.keep(&[0]).unwrap();
    let two = device.put(&rows_of(&operands[0], 0..2)).unwrap();
    assert_eq!(step(&two, &copy, &SHAPE).unwrap().to_f32(), all[..60]);
}

#[test]
fn what_does_not_fit_is_refused_on_a_device() {
    let device = accelerator();
    let zeros = |shape: &[usize]| device.put(&Tensor::zeros(shape)).unwrap();
    let mut cache = Cache::beside(&zeros(&[0]), 3, 4, &SHAPE).unwrap();
    near(&step(&zeros(&[3, 30]), &cache, &SHAPE).unwrap(), &Tensor::zeros(&[3, 30]), 0.0);
    let error = cache.append(&zeros(&[3, 15]), &Tensor::zeros(&[3, 15])).unwrap_err();
    assert!(error.to_string().starts_with("attention: v is on the host, expected on"), "{error}");
    let error = step(&Tensor::zeros(&[3, 30]), &cache, &SHAPE).unwrap_err();
    assert!(error.to_string().starts_with("attention: q is on the host, expected on"), "{error}");
    let mut host = Cache::new(3, 4, &SHAPE, Dtype::F32).unwrap();
    let error = host.append(&zeros(&[3, 15]), &zeros(&[3, 15])).unwrap_err();
    assert!(error.to_string().contains("k is on") && error.to_string().ends_with("expected on the host"), "{error}");
    cache.append(&zeros(&[0, 15]), &zeros(&[0, 15])).unwrap();
    assert!(cache.append(&zeros(&[15, 15]), &zeros(&[15, 15])).is_err() && cache.is_empty());
    cache.keep(&[]).unwrap();
    assert!(step(&zeros(&[0, 30]), &cache, &SHAPE).unwrap().is_empty());
}
