#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{
    accelerator, check_gradient, largest_error, narrow_and_wide, near, noise_tensor, same_on_threads, weighted_sum,
};

fn config(head_dim: usize) -> Config {
    Config { head_dim, theta: 10_000.0, scaling: Scaling::None }
}

#[test]
fn a_quarter_turn_by_hand() {
    let tables = Tables { half: 1, positions: 1, cos: vec![0.0], sin: vec![1.0], uploaded: Arc::default() };
    let mut x = Tensor::from_f32(&[1, 2], vec![3.0, 4.0]).unwrap();
    apply(&mut x, &[0], &tables, 1).unwrap();
    assert_eq!(x.f32().unwrap(), [-4.0, 3.0]);
}

#[test]
fn agrees_with_the_reference_on_awkward_shapes() {
    for (n, heads, head_dim) in [(0, 1, 2), (1, 1, 2), (5, 3, 6), (67, 2, 32)] {
        let x = noise_tensor(1, &[n, heads * head_dim]);
        let positions: Vec<u32> = (0..n as u32).map(|i| (i * 7) % 100).collect();
        let tables = Tables::new(&config(head_dim), 100).unwrap();
        let mut y = x.clone();
        apply(&mut y, &positions, &tables, heads).unwrap();
        let wanted = reference::rotate(x.f32().unwrap(), &positions, &inverse_frequencies(&config(head_dim)), heads);
        assert!(largest_error(y.f32().unwrap(), &wanted) < 1e-5, "{n} x {heads} x {head_dim}");
    }
}

#[test]
fn the_inverse_is_the_gradient() {
    let tables = Tables::new(&config(4), 10).unwrap();
    let positions = [0, 3, 9];
    let x = noise_tensor(2, &[3, 8]);
    let mut dx = noise_tensor(3, &[3, 8]);
    apply_inverse(&mut dx, &positions, &tables, 2).unwrap();
    check_gradient("dx", &x, &dx, |x| {
        let mut y = x.clone();
        apply(&mut y, &positions, &tables, 2).unwrap();
        weighted_sum(3, &y)
    });
}

#[test]
fn llama3_keeps_high_and_divides_low_frequencies() {
    let scaling =
        Scaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_positions: 8192.0 };
    let stretched = inverse_frequencies(&Config { head_dim: 128, theta: 500_000.0, scaling });
    let plain = inverse_frequencies(&Config { head_dim: 128, theta: 500_000.0, scaling: Scaling::None });
    assert_eq!(stretched[0], plain[0]);
    assert!((stretched[63] * 8.0 / plain[63] - 1.0).abs() < 1e-6);
    assert!(stretched[31] > plain[31] / 8.0 * 1.01 && stretched[31] < plain[31] * 0.99);
}

#[test]
fn threads_do_not_change_the_bits() {
    let tables = Tables::new(&config(10), 400).unwrap();
    let positions: Vec<u32> = (0..400).collect();
    same_on_threads(|| {
        let mut x = noise_tensor(4, &[400, 30]);
        apply(&mut x, &positions, &tables, 3).unwrap();
        x
    });
}

#[test]
fn a_position_beyond_the_tables_is_refused() {
    let tables = Tables::new(&config(2), 4).unwrap();
    let error = apply(&mut noise_tensor(1, &[1, 2]), &[4], &tables, 1).unwrap_err();
    assert_eq!(error.to_string(), "rope: position 4 is out of range 0..4");
}

#[test]
fn a_device_gives_the_bits_of_the_host() {
    let [device, other] = [accelerator(), accelerator()];
    // One row and several a block, more heads than fit beside each other, more quads than threads.
    for (n, heads, head_dim) in [(0, 1, 2), (1, 1, 2), (5, 3, 6), (67, 2, 32), (9, 20, 128), (3, 70, 30), (2, 2, 2056)]
    {
        let tables = Tables::new(&config(head_dim), 100).unwrap();
        let positions: Vec<u32> = (0..n as u32).map(|i| (i * 7 + 3) % 100).collect();
        let x = noise_tensor(1, &[n, heads * head_dim]);
        for device in [&device, &other, &device] {
            let (mut wanted, mut found) = (x.clone(), device.put(&x).unwrap());
            for rotate in [apply, apply_inverse] {
                rotate(&mut wanted, &positions, &tables, heads).unwrap();
                rotate(&mut found, &positions, &tables.clone(), heads).unwrap();
                near(&found, &wanted, 0.0);
            }
            let [mut narrow, mut wide] = narrow_and_wide(&x);
            let mut found = device.put(&narrow).unwrap();
            apply(&mut wide, &positions, &tables, heads).unwrap();
            apply(&mut narrow, &positions, &tables, heads).unwrap();
            apply(&mut found, &positions, &tables.clone(), heads).unwrap();
            assert_eq!(narrow, wide.to_bf16());
            near(&found, &narrow, 0.0);
        }
        assert_eq!(tables.uploaded.lock().unwrap().len(), if n == 0 { 0 } else { 2 });
    }
}
