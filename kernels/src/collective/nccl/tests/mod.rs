#![allow(clippy::unwrap_used)]

mod card;
mod emulated;
mod emulated_ends;
mod fake;

use super::Nccl;
use crate::collective::tests::{bucket, values};
use crate::collective::{Bucket, Collective, Tree, slices_of};
use crate::cuda::Stream;
use crate::{Result, Tensor};

/// The part of a member, on its device.
fn part(member: &Nccl, on: &Stream, slices: usize, len: usize) -> Tree {
    let mut tree = Tree::new(slices);
    for slice in slices_of(member.rank(), member.world(), slices) {
        tree.push(slice, on_device(on, &bucket(&values(slice, len)))).unwrap();
    }
    tree
}

fn on_device(on: &Stream, bucket: &Bucket) -> Bucket {
    Bucket::new(bucket.tensors().iter().map(|tensor| tensor.to_device(on).unwrap()).collect()).unwrap()
}

/// The sum of so many slices at a member, on the host.
fn total(member: &mut Nccl, on: &Stream, slices: usize, len: usize) -> Result<Vec<f32>> {
    let like = on_device(on, &bucket(&vec![0.0; len]));
    let own = part(member, on, slices, len);
    let total = member.all_reduce(own, &like.tensors().iter().collect::<Vec<_>>())?;
    assert!(total.tensors().iter().map(Tensor::shape).eq(like.tensors().iter().map(Tensor::shape)));
    assert!(total.tensors().iter().all(|tensor| tensor.stream().is_some_and(|there| there.is(on))));
    total.to_flat()
}
