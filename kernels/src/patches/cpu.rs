//! Patches on the CPU: a picture's patches by one thread.

use rayon::prelude::*;

use super::Grid;

/// `pictures` are `[n, height, width, 3]`; `tables` hold the number for each byte.
pub(super) fn normalised(pictures: &[u8], grid: &Grid, tables: &[[f32; 256]; 3], rows: &mut [f32]) {
    each_line(pictures, grid, rows, |picture, [channel, y, x], line| {
        let table = &tables[channel];
        let from = &picture[(y * grid.width() + x) * 3..];
        for (number, pixel) in line.iter_mut().zip(from.as_chunks::<3>().0) {
            *number = table[usize::from(pixel[channel])];
        }
    });
}

/// `pictures` are `[n, 3, height, width]`.
pub(super) fn cut(pictures: &[f32], grid: &Grid, rows: &mut [f32]) {
    each_line(pictures, grid, rows, |picture, [channel, y, x], line| {
        let from = (channel * grid.height() + y) * grid.width() + x;
        line.copy_from_slice(&picture[from..from + line.len()]);
    });
}

/// Fills every line of every patch by a function of its picture and its place: channel, y and x.
fn each_line<T: Sync>(
    pictures: &[T],
    grid: &Grid,
    rows: &mut [f32],
    fill: impl Fn(&[T], [usize; 3], &mut [f32]) + Sync,
) {
    let pixels = grid.patches() * grid.row();
    if pixels == 0 {
        return;
    }
    let side = grid.side;
    rows.par_chunks_exact_mut(pixels).zip(pictures.par_chunks_exact(pixels)).for_each(|(rows, picture)| {
        for (i, patch) in rows.chunks_exact_mut(grid.row()).enumerate() {
            let (top, left) = (i / grid.across * side, i % grid.across * side);
            for (j, line) in patch.chunks_exact_mut(side).enumerate() {
                fill(picture, [j / side, top + j % side, left], line);
            }
        }
    });
}
