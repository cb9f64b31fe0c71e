//! A ring played through, frame by frame: `kernels::collective::tcp` with nothing but its order of frames.

use kernels::collective::slices_of;

use super::link::Link;

/// Bytes of the total in a frame.
const CHUNK: usize = 256 * 1024;

/// Seconds of a sum of slices over a ring: sums go from rank to rank, then the total goes around.
pub(super) fn all_reduce(world: usize, slices: usize, bytes: usize, link: Link) -> f64 {
    if world == 1 {
        return 0.0;
    }
    let chunks: Vec<usize> = (0..bytes).step_by(CHUNK).map(|start| CHUNK.min(bytes - start)).collect();
    // When a chunk is at the next rank, and when the link to it is free.
    let (mut there, mut free) = (vec![0.0_f64; chunks.len()], vec![0.0_f64; world]);
    for (rank, free) in free.iter_mut().enumerate().take(world - 1) {
        let open = open_after(slices_of(rank, world, slices).end, slices);
        pass(&chunks, open, link, &mut there, free);
    }
    for step in 0..world - 1 {
        pass(&chunks, 1, link, &mut there, &mut free[(world - 1 + step) % world]);
    }
    there.last().copied().unwrap_or_default()
}

/// Seconds until everybody has so many bytes that everybody had an equal part of.
pub(super) fn ring_pass(world: usize, bytes: usize, link: Link) -> f64 {
    (world - 1) as f64 * (link.latency + bytes as f64 / world as f64 / link.bandwidth)
}

/// All chunks over one link, each as soon as it is there and the one before is through.
fn pass(chunks: &[usize], sums: usize, link: Link, there: &mut [f64], free: &mut f64) {
    for (chunk, there) in chunks.iter().zip(there) {
        *free = there.max(*free) + (sums * chunk) as f64 / link.bandwidth;
        *there = *free + link.latency;
    }
}

/// Sums of the tree that wait for a neighbour once the first so many slices are added.
fn open_after(done: usize, slices: usize) -> usize {
    if done >= slices { 1 } else { done.count_ones() as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { name: "", bandwidth: 1e9, latency: 1e-3 };

    #[test]
    fn two_workers_send_the_bucket_there_and_back() {
        let seconds = all_reduce(2, 8, 10 * CHUNK, LINK);
        // The last chunk comes when all have passed the first link, and goes back at once.
        let expected = 11.0 * CHUNK as f64 / 1e9 + 2e-3;
        assert!((seconds - expected).abs() < 1e-9, "{seconds} for {expected}");
        assert!(all_reduce(1, 8, CHUNK, LINK).abs() < f64::EPSILON);
    }

    #[test]
    fn more_workers_add_latency_and_open_sums() {
        let seconds = [2, 4, 8, 64].map(|world| all_reduce(world, 64, 100 * CHUNK, LINK));
        assert!(seconds.windows(2).all(|pair| pair[0] < pair[1]), "{seconds:?}");
        assert_eq!([1, 2, 3, 7, 8].map(|done| open_after(done, 8)), [1, 1, 2, 3, 1]);
    }
}
