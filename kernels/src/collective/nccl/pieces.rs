//! Buckets as flat pieces of a device's memory, which is how they travel.

use crate::collective::Bucket;
use crate::cuda::Stream;
use crate::{Dtype, Result, Tensor};

/// The lengths of the pieces of so many elements: all of one length, but perhaps the last.
pub(super) fn lengths(elements: usize, piece: usize) -> Vec<usize> {
    (0..elements).step_by(piece).map(|begin| piece.min(elements - begin)).collect()
}

/// Flat tensors of such lengths that hold anything.
pub(super) fn blank(on: &Stream, lengths: &[usize]) -> Result<Vec<Tensor>> {
    lengths.iter().map(|&len| on.result(&[len], Dtype::F32)).collect()
}

/// All elements of a bucket on a device, in pieces.
pub(super) fn pack(on: &Stream, bucket: &Bucket, lengths: &[usize]) -> Result<Vec<Tensor>> {
    let mut pieces = blank(on, lengths)?;
    pour(on, &bucket.tensors().iter().collect::<Vec<_>>(), &mut pieces)?;
    Ok(pieces)
}

/// Tensors of the shapes of others with the elements of pieces.
pub(super) fn unpack(on: &Stream, pieces: &[Tensor], like: &[&Tensor]) -> Result<Bucket> {
    let mut tensors: Vec<Tensor> =
        like.iter().map(|tensor| on.result(tensor.shape(), Dtype::F32)).collect::<Result<_>>()?;
    pour(on, &pieces.iter().collect::<Vec<_>>(), &mut tensors)?;
    Bucket::new(tensors)
}

/// Copies the elements of tensors, one tensor after the other, to those of others, of which there are as many.
fn pour(on: &Stream, from: &[&Tensor], to: &mut [Tensor]) -> Result<()> {
    let mut to = to.iter_mut().filter(|tensor| !tensor.is_empty());
    let (mut target, mut filled) = (to.next(), 0);
    for source in from {
        let mut begin = 0;
        while begin < source.len() {
            let Some(room) = target.as_deref_mut() else { return Ok(()) };
            let len = (source.len() - begin).min(room.len() - filled);
            on.copy_part(source, begin, room, filled, len)?;
            begin += len;
            filled += len;
            if filled == room.len() {
                (target, filled) = (to.next(), 0);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_bucket_is_the_same_behind_its_pieces_on_the_emulated_device() {
        let on = crate::cuda::emulator_of(1 << 20);
        let tensor = |shape: &[usize], begin: u16| {
            let len = shape.iter().product::<usize>() as u16;
            Tensor::from_f32(shape, (begin..begin + len).map(f32::from).collect()).unwrap().to_device(&on).unwrap()
        };
        let bucket = Bucket::new(vec![tensor(&[2, 3], 0), tensor(&[0], 6), tensor(&[17], 6)]).unwrap();
        let like: Vec<&Tensor> = bucket.tensors().iter().collect();
        for piece in [1, 5, 6, 23, 100] {
            let pieces = pack(&on, &bucket, &lengths(23, piece)).unwrap();
            assert_eq!(pieces.len(), 23_usize.div_ceil(piece));
            let flat: Vec<f32> = pieces.iter().flat_map(Tensor::to_f32).collect();
            assert_eq!(flat, (0..23).map(|i| i as f32).collect::<Vec<_>>());
            assert_eq!(unpack(&on, &pieces, &like).unwrap(), bucket);
        }
        assert_eq!(lengths(0, 5), [0; 0]);
    }
}
