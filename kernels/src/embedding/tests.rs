#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::{accelerator, check_gradient, largest_error, near, noise_tensor, same_on_threads, weighted_sum};

fn ids(n: usize, rows: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * i * 31 + 7) % rows) as u32).collect()
}

#[test]
fn rows_by_hand() {
    let table = Tensor::from_f32(&[3, 2], vec![0.0, 1.0, 10.0, 11.0, 20.0, 21.0]).unwrap();
    assert_eq!(forward(&table, &[2, 0, 2]).unwrap().f32().unwrap(), [20.0, 21.0, 0.0, 1.0, 20.0, 21.0]);
    let mut d_table = Tensor::zeros(&[3, 2]);
    let dy = Tensor::from_f32(&[3, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    backward(&dy, &[2, 0, 2], &mut d_table).unwrap();
    assert_eq!(d_table.f32().unwrap(), [3.0, 4.0, 0.0, 0.0, 6.0, 8.0]);
}

#[test]
fn sums_agree_with_the_reference_on_awkward_shapes() {
    for (n, rows, d) in [(0, 1, 3), (1, 1, 1), (700, 3, 5), (1301, 1103, 64)] {
        let (dy, ids) = (noise_tensor(1, &[n, d]), ids(n, rows));
        let mut d_table = Tensor::zeros(&[rows, d]);
        backward(&dy, &ids, &mut d_table).unwrap();
        let wanted = reference::scatter(dy.f32().unwrap(), &ids, d, rows);
        assert!(largest_error(d_table.f32().unwrap(), &wanted) < 1e-5);
    }
}

#[test]
fn the_gradient_agrees_with_finite_differences() {
    let (table, ids) = (noise_tensor(1, &[5, 3]), [4, 0, 4, 2]);
    let mut d_table = Tensor::zeros(&[5, 3]);
    backward(&noise_tensor(9, &[4, 3]), &ids, &mut d_table).unwrap();
    check_gradient("table", &table, &d_table, |t| weighted_sum(9, &forward(t, &ids).unwrap()));
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (dy, ids) = (noise_tensor(1, &[3000, 7]), ids(3000, 1500));
    same_on_threads(|| {
        let mut d_table = Tensor::zeros(&[1500, 7]);
        backward(&dy, &ids, &mut d_table).unwrap();
        (forward(&d_table, &ids).unwrap(), d_table)
    });
}

#[test]
fn an_id_outside_of_the_table_is_refused() {
    let error = forward(&noise_tensor(1, &[3, 2]), &[0, 3]).unwrap_err().to_string();
    assert_eq!(error, "embedding::forward: id 3 is out of range 0..3");
}

#[test]
fn a_device_agrees_with_the_host() {
    let device = accelerator();
    // Few ids, so that some have many bands, and many; quads and single elements; more than a piece.
    for (n, rows, d) in [(0, 1, 3), (1, 1, 1), (33, 1, 7), (700, 3, 5), (1200, 1, 4), (130, 40, 129), (70, 2, 516)] {
        let (table, dy, ids) = (noise_tensor(1, &[rows, d]), noise_tensor(2, &[n, d]), ids(n, rows));
        let [there, dy_there] = [&table, &dy].map(|t| device.put(t).unwrap());
        near(&forward(&there, &ids).unwrap(), &forward(&table, &ids).unwrap(), 0.0);
        let narrow = table.to_bf16();
        let rows = forward(&narrow, &ids).unwrap();
        assert_eq!(rows, forward(&table, &ids).unwrap().to_bf16());
        near(&forward(&device.put(&narrow).unwrap(), &ids).unwrap(), &rows, 0.0);

        let [mut found, mut again, mut wanted] = [there.clone(), there, table];
        backward(&dy_there, &ids, &mut found).unwrap();
        backward(&dy_there, &ids, &mut again).unwrap();
        backward(&dy, &ids, &mut wanted).unwrap();
        near(&found, &wanted, 1e-5);
        assert!(found == again, "{n} x {d}: the same again");
    }
}

#[test]
fn few_rows_of_an_id_give_the_same_bits_on_a_device() {
    let device = accelerator();
    let (ids, dy) = ([7; 32], noise_tensor(1, &[32, 12]));
    let mut wanted = noise_tensor(2, &[9, 12]);
    let mut found = device.put(&wanted).unwrap();
    backward(&device.put(&dy).unwrap(), &ids, &mut found).unwrap();
    backward(&dy, &ids, &mut wanted).unwrap();
    near(&found, &wanted, 0.0);
    let error = backward(&dy, &ids, &mut found).unwrap_err().to_string();
    assert!(error.contains("embedding::backward: dy is on the host"), "{error}");
}
