//! The mask of one element. The fast version calls this too: the bits are the contract.

/// 32 random bits for a column of a row.
#[inline(always)]
pub(super) fn bits(row: [u32; 2], column: u32) -> u32 {
    let first = finalise(column.wrapping_mul(0x9E37_79B9) ^ row[0]);
    finalise(first.wrapping_add(row[1]))
}

/// Mixes 32 bits so that every input bit changes every output bit half of the time.
#[inline(always)]
fn finalise(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}
