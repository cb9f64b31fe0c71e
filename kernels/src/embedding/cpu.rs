//! Gather by rows; scatter by blocks of the table, each owned by one task.

use rayon::prelude::*;

use crate::simd::add;

/// Rows of one task.
const ROWS: usize = 512;

pub(super) fn gather<T: Copy + Send + Sync>(table: &[T], ids: &[u32], d: usize, y: &mut [T]) {
    if d == 0 {
        return;
    }
    y.par_chunks_mut(ROWS * d).zip(ids.par_chunks(ROWS)).for_each(|(block, ids)| {
        for (row, &id) in block.chunks_exact_mut(d).zip(ids) {
            row.copy_from_slice(&table[id as usize * d..][..d]);
        }
    });
}

pub(super) fn scatter_add(dy: &[f32], ids: &[u32], d: usize, table: &mut [f32]) {
    if d == 0 {
        return;
    }
    // Sorted by id, then by row: every block of the table finds its rows in one run.
    let mut order: Vec<(u32, u32)> = ids.iter().zip(0..).map(|(&id, row)| (id, row)).collect();
    order.sort_unstable();
    table.par_chunks_mut(ROWS * d).enumerate().for_each(|(block, table)| {
        let first = block * ROWS;
        let begin = order.partition_point(|&(id, _)| (id as usize) < first);
        for &(id, row) in order[begin..].iter().take_while(|&&(id, _)| (id as usize) < first + ROWS) {
            add(&mut table[(id as usize - first) * d..][..d], &dy[row as usize * d..][..d]);
        }
    });
}
