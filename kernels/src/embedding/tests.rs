#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::{check_gradient, largest_error, noise_tensor, same_on_threads, weighted_sum};

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
