//! Sums between emulated devices.

use std::sync::Arc;

use super::fake::{Calm, Fake};
use super::{on_device, part, total};
use crate::collective::nccl::{Aborter, Nccl, Way};
use crate::collective::tests::{bits, bucket, totals};
use crate::collective::{Bucket, Collective, Operation, Tree, local};
use crate::{Device, Error, Result, Tensor, cuda};

/// Makes a member take a way, whatever the size.
fn takes(member: &mut Nccl, way: Way) {
    member.most_gathered_bytes = if way == Way::Gather { usize::MAX } else { 0 };
    // No power of two, and several pieces of what is summed here.
    member.piece = 3001;
}

#[test]
fn every_world_and_either_way_sums_to_the_same_bits() {
    let fake = Fake::new();
    fake.set("lag", 2);
    for slices in [1, 2, 3, 5, 8, 12] {
        for len in [0, 1, 1000, 10_007] {
            let alone = bits(&totals(local::group(1), slices, len)[0]);
            for world in [1, 2, 3, 5, 8] {
                let sums = fake.together(world, |mut member, on| {
                    [Way::Chain, Way::Gather].map(|way| {
                        takes(&mut member, way);
                        total(&mut member, on, slices, len).unwrap()
                    })
                });
                for (rank, sums) in sums.iter().enumerate() {
                    for (sum, way) in sums.iter().zip(["chain", "gather"]) {
                        assert!(bits(sum) == alone, "{slices} slices of {len} over a {way} of {world} at rank {rank}");
                    }
                }
            }
        }
    }
    fake.is_clean();
    assert_eq!(fake.count("aborts"), 0, "members that are well finish in order");
}

#[test]
fn a_gather_is_one_group_of_calls_and_small_buckets_take_it() {
    let fake = Fake::new();
    let ways = fake.together(2, |member, _| {
        let way = |slices, elements| member.way(slices, elements).unwrap();
        // Of three slices rank 0 has a whole node, of six it has two.
        [way(2, 1 << 18), way(2, (1 << 18) + 1), way(3, 1 << 18), way(6, 1 << 18), way(6, 1 << 17)]
    });
    assert!(
        ways.iter().all(|ways| *ways == [Way::Gather, Way::Chain, Way::Gather, Way::Chain, Way::Gather]),
        "{ways:?}"
    );
    assert_eq!(fake.count("groups"), 0);
    fake.together(3, |mut member, on| total(&mut member, on, 4, 100).unwrap());
    assert_eq!(fake.count("groups"), 3, "one of each member");
}

#[test]
fn words_and_states_go_over_the_ring() {
    let fake = Fake::new();
    fake.together(3, |mut member, _| {
        let rank = member.rank();
        let all = member.all_gather(vec![rank as u8; rank]).unwrap();
        assert_eq!(all, [vec![], vec![1], vec![2, 2]]);
        for root in 0..3 {
            let mut bytes = vec![rank as u8];
            member.broadcast(root, &mut bytes).unwrap();
            assert_eq!(bytes, [root as u8]);
        }
        member.barrier().unwrap();
    });
    assert_eq!(fake.count("groups"), 0);
}

#[test]
fn many_sums_follow_each_other_and_leave_nothing_on_the_emulated_device() {
    let fake = Fake::new();
    fake.each(3, |ring| {
        // Enough for a sum, and for far less than ten.
        let on = cuda::emulator_of(1 << 20);
        let (mut member, on) = fake.join_on(ring, on, Arc::new(Calm::default()), &Aborter::new()).unwrap();
        for round in 0..50 {
            takes(&mut member, if round % 2 == 0 { Way::Chain } else { Way::Gather });
            let sum = total(&mut member, &on, 3, 5000).unwrap();
            assert_eq!(sum.len(), 5000);
        }
    });
    fake.is_clean();
}

#[test]
fn members_that_do_not_do_the_same_find_out_before_they_enter_nccl() {
    let ends = |work: &(dyn Fn(&mut Nccl, &cuda::Stream) -> Result<()> + Sync)| {
        let fake = Fake::new();
        let ends = fake.together(2, |mut member, on| work(&mut member, on));
        assert_eq!(fake.count("groups"), 0);
        fake.is_clean();
        ends
    };
    let sizes = ends(&|member, on| total(member, on, 2, 10 + 4 * member.rank()).map(drop));
    assert!(sizes.iter().all(|end| matches!(end, Err(Error::Gang(_)))), "{sizes:?}");
    let slices = ends(&|member, on| total(member, on, 5 + member.rank(), 10).map(drop));
    assert!(slices.iter().all(|end| matches!(end, Err(Error::Gang(_)))), "{slices:?}");
    let none = ends(&|member, on| total(member, on, 0, 10).map(drop));
    assert!(none.iter().all(|end| matches!(end, Err(Error::Gang(_)))), "{none:?}");
    // One lacks a slice: it says so itself, and the other hears of it.
    let lacking = ends(&|member, on| {
        let own = if member.rank() == 0 { part(member, on, 4, 3) } else { Tree::new(4) };
        let like = on_device(on, &bucket(&[0.0; 3]));
        member.all_reduce(own, &like.tensors().iter().collect::<Vec<_>>()).map(drop)
    });
    let said: Vec<String> = lacking.into_iter().map(|end| end.unwrap_err().to_string()).collect();
    assert!(said[0].contains("rank 1 cannot do AllReduce(4)"), "{said:?}");
    assert!(said[1].contains("has not all of its part of 4 slices"), "{said:?}");
}

#[test]
fn tensors_of_the_host_are_refused_by_a_member_on_the_emulated_device() {
    let fake = Fake::new();
    let ends = fake.together(2, |mut member, _| {
        let mut own = Tree::new(2);
        own.push(member.rank(), Bucket::new(vec![Tensor::zeros(&[3])]).unwrap()).unwrap();
        member.all_reduce(own, &[&Tensor::zeros(&[3])]).map(drop)
    });
    assert!(ends.iter().any(|end| matches!(end, Err(Error::Place { .. }))), "{ends:?}");
    fake.is_clean();
}

#[test]
fn a_device_that_is_no_card_is_refused_and_everybody_hears_it() {
    let ends = Fake::new().each(2, |ring| match ring.rank() {
        0 => Nccl::open(Box::new(ring), &Device::emulated().unwrap()).map(drop),
        _ => Nccl::open(Box::new(ring), &Device::cpu(1).unwrap()).map(drop),
    });
    for end in ends {
        let said = end.unwrap_err().to_string();
        assert!(said.contains("rank 0 cannot: NCCL joins cards, and the emulated device is none"), "{said}");
        assert!(said.contains("rank 1 cannot"), "{said}");
    }
}

#[test]
fn members_prove_that_their_sums_are_right() {
    for world in [1, 2, 4] {
        let fake = Fake::new();
        fake.together(world, |mut member, _| member.prove().unwrap());
        fake.set("spoil", 1);
        let ends = fake.together(world, |mut member, _| member.prove());
        let said: Vec<String> = ends.into_iter().map(|end| end.unwrap_err().to_string()).collect();
        let what = "NCCL gives wrong sums on the emulated device: element 0";
        assert!(said.iter().any(|said| said.contains(what)), "{said:?}");
        fake.is_clean();
    }
}

#[test]
fn operations_have_words_of_their_own() {
    let words = [Operation::AllReduce(2), Operation::AllReduce(3), Operation::Broadcast(2)].map(Operation::word);
    assert!(words[0] != words[1] && words[0] != words[2]);
}
