//! How kernels that work on whole rows are launched: the counterpart of `rows.cuh`.

use super::Geometry;

/// Elements of a row that a thread keeps, as in `rows.cuh`.
const KEPT: usize = 16;
/// Threads of a block that has several rows.
const THREADS: usize = 256;
/// Most threads of a row: what is wider than they can keep is read again.
const MOST: usize = 512;

/// Threads for every row of `n`, enough to keep its `d` elements: lanes of a warp, or warps with a block for themselves.
pub(crate) fn rows(n: usize, d: usize) -> Geometry {
    if d <= 32 * KEPT {
        return side_by_side(n, d);
    }
    let threads = (32 * d.div_ceil(32 * KEPT)).min(MOST);
    Geometry::blocks(n, threads as u32)
}

/// The same in pieces that a warp can keep: those of a row are blocks of the grid's second extent.
pub(crate) fn pieces(n: usize, d: usize) -> Geometry {
    let geometry = side_by_side(n, d);
    let piece = geometry.block[0] as usize * KEPT;
    Geometry { grid: [geometry.grid[0], Geometry::blocks(d.div_ceil(piece), 1).grid[0], 1], ..geometry }
}

/// Blocks of several rows, each for no more than a warp.
fn side_by_side(n: usize, d: usize) -> Geometry {
    let lanes = d.div_ceil(KEPT).next_power_of_two().clamp(8, 32);
    let together = THREADS / lanes;
    Geometry { block: [lanes as u32, together as u32, 1], ..Geometry::blocks(n.div_ceil(together), 1) }
}

/// Sums over rows in two stages: a block adds the rows of a band, then [`columns`] add the bands. What is added in which
/// order depends on the shape alone.
#[derive(Debug)]
pub(crate) struct Bands {
    /// Rows of a band.
    pub(crate) rows: usize,
    /// Bands in all.
    pub(crate) count: usize,
    /// A block for each.
    pub(crate) geometry: Geometry,
}

impl Bands {
    /// Bands of `n` rows, for so many sums of `d` columns.
    pub(crate) fn new(n: usize, d: usize, sums: usize) -> Self {
        let block = rows(n, d).block;
        let [threads, together] = [block[0], block[1]].map(|extent| extent as usize);
        let rows = (2 * together).max(16);
        let count = n.div_ceil(rows);
        let shared = if together > 1 { sums * threads * KEPT * size_of::<f32>() * (THREADS / 32) } else { 0 };
        Self { rows, count, geometry: Geometry { block, ..Geometry::blocks(count, 1) }.with_shared(shared) }
    }
}

/// The second stage: a warp for every column.
pub(crate) fn columns(width: usize) -> Geometry {
    Geometry { block: [32, 32, 1], ..Geometry::blocks(width.div_ceil(32), 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_width_decides_how_many_threads_share_a_row() {
        let launched = |d| (rows(33, d).grid[0], rows(33, d).block);
        for (d, blocks, x, y) in [(0, 2, 8, 32), (64, 2, 8, 32), (129, 3, 16, 16), (512, 5, 32, 8)] {
            assert_eq!(launched(d), (blocks, [x, y, 1]), "{d}");
        }
        for (d, threads) in [(513, 64), (1408, 96), (4096, 256), (8192, 512), (100_000, 512)] {
            assert_eq!(launched(d), (33, [threads, 1, 1]), "{d}");
        }
        assert_eq!((pieces(9, 64).grid, pieces(9, 1025).grid), ([1, 1, 1], [2, 3, 1]));
        let [narrow, wide] = [64, 4096].map(|d| Bands::new(130, d, 2));
        assert_eq!((narrow.rows, narrow.count, narrow.geometry.shared), (64, 3, 8192));
        assert_eq!((wide.rows, wide.count, wide.geometry.shared), (16, 9, 0));
    }
}
