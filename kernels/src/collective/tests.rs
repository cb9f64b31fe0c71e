#![allow(clippy::unwrap_used)]

use std::net::{Shutdown, TcpListener, TcpStream};

use super::tcp::Ring;
use super::{Bucket, Collective, Tree, local, slices_of};
use crate::{Device, Error, Result, Tensor};

/// A ring over sockets of this machine, by rank.
fn ring(world: usize) -> Vec<Ring> {
    // A socket is open as long as somebody has it.
    let (ring, _) = ring_and_sockets(world);
    ring
}

/// The same with its sockets.
fn ring_and_sockets(world: usize) -> (Vec<Ring>, Vec<TcpStream>) {
    let listeners: Vec<TcpListener> = (0..world).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let next = |rank: usize| TcpStream::connect(listeners[(rank + 1) % world].local_addr().unwrap()).unwrap();
    let next: Vec<TcpStream> = (0..world).map(next).collect();
    let previous: Vec<TcpStream> = listeners.iter().map(|l| l.accept().unwrap().0).collect();
    let sockets = next.iter().map(|s| s.try_clone().unwrap()).collect();
    let ends = next.into_iter().zip(previous).enumerate();
    (ends.map(|(rank, (next, previous))| Ring::new(rank, world, next, previous).unwrap()).collect(), sockets)
}

/// What every member's work returns, by rank.
fn together<C: Collective + 'static, T: Send>(group: Vec<C>, work: impl Fn(&mut C) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let members: Vec<_> = group.into_iter().map(|member| scope.spawn(|| work(&mut { member }))).collect();
        members.into_iter().map(|member| member.join().unwrap()).collect()
    })
}

/// Values of a slice whose sums depend on their order.
pub(super) fn values(slice: usize, len: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7919 + slice * 104_729) % 10_007) as f32 * 1e-3 * 10_f32.powi((i % 9) as i32 - 4);
    (0..len).map(|i| if (i + slice).is_multiple_of(3) { -value(i) } else { value(i) }).collect()
}

/// Values as two tensors.
pub(super) fn bucket(values: &[f32]) -> Bucket {
    let (one, two) = values.split_at(values.len() / 3);
    let tensor = |values: &[f32]| Tensor::from_f32(&[values.len()], values.to_vec()).unwrap();
    Bucket::new(vec![tensor(one), tensor(two)]).unwrap()
}

/// The total at every member, of so many slices.
pub(super) fn totals<C: Collective + 'static>(group: Vec<C>, slices: usize, len: usize) -> Vec<Vec<f32>> {
    together(group, |member| {
        let mut tree = Tree::new(slices);
        for slice in slices_of(member.rank(), member.world(), slices) {
            tree.push(slice, bucket(&values(slice, len))).unwrap();
        }
        let like = bucket(&vec![0.0; len]);
        let total = member.all_reduce(tree, &like.tensors().iter().collect::<Vec<_>>()).unwrap();
        assert!(total.tensors().iter().map(Tensor::shape).eq(like.tensors().iter().map(Tensor::shape)));
        total.to_flat().unwrap()
    })
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn slices_are_dealt_out_once() {
    for (world, slices) in [(1, 5), (2, 5), (3, 2), (8, 8), (7, 20)] {
        let all: Vec<usize> = (0..world).flat_map(|rank| slices_of(rank, world, slices)).collect();
        assert!(all.into_iter().eq(0..slices), "{slices} over {world}");
    }
}

#[test]
fn every_world_sums_to_the_same_bits() {
    // A single slice, as many as worlds, none that divides, and more members than slices; no element, and several chunks.
    for slices in [1, 2, 5, 8, 12] {
        for len in [0, 1, 1000, 150_001] {
            let alone = bits(&totals(local::group(1), slices, len)[0]);
            for world in [1, 2, 3, 5, 8] {
                for (who, totals) in
                    [("threads", totals(local::group(world), slices, len)), ("ring", totals(ring(world), slices, len))]
                {
                    let same = totals.iter().all(|total| bits(total) == alone);
                    assert!(same, "{slices} slices of {len} elements over a {who} of {world}");
                }
            }
        }
    }
}

#[test]
fn the_order_of_a_sum_matters() {
    let len = 1000;
    let mut turned = Tree::new(8);
    for slice in 0..8 {
        turned.push(slice, bucket(&values(7 - slice, len))).unwrap();
    }
    let in_a_row =
        (1..8).fold(values(0, len), |sum, slice| sum.iter().zip(values(slice, len)).map(|(a, b)| a + b).collect());
    let tree = bits(&totals(local::group(1), 8, len)[0]);
    assert_ne!(tree, bits(&in_a_row), "these values would prove nothing");
    // A tree that is turned around adds the same pairs.
    assert_eq!(tree, bits(&turned.total().unwrap().to_flat().unwrap()));
}

#[test]
fn a_total_is_the_sum() {
    for (world, slices) in [(2, 3), (3, 8), (8, 8)] {
        let exact = |i: usize| (0..slices).map(|slice| f64::from(values(slice, 1000)[i])).sum::<f64>();
        let size = |i: usize| (0..slices).map(|slice| f64::from(values(slice, 1000)[i]).abs()).sum::<f64>();
        for (i, sum) in totals(ring(world), slices, 1000)[0].iter().enumerate() {
            assert!((f64::from(*sum) - exact(i)).abs() <= 1e-6 * size(i), "element {i} over {world}: {sum}");
        }
    }
}

#[test]
fn a_total_lies_where_the_parameters_lie() {
    let totals = together(ring(2), |member| {
        let device = Device::emulated().unwrap();
        let slice = Tensor::from_f32(&[2, 3], values(member.rank(), 6)).unwrap();
        let slice = device.put(&slice).unwrap();
        let mut tree = Tree::new(2);
        tree.push(member.rank(), Bucket::new(vec![slice.clone()]).unwrap()).unwrap();
        let total = member.all_reduce(tree, &[&slice]).unwrap().into_tensors().remove(0);
        (total.stream().is_some(), total.shape().to_vec(), total.to_f32())
    });
    let expected: Vec<f32> = values(0, 6).iter().zip(values(1, 6)).map(|(a, b)| a + b).collect();
    assert!(totals.iter().all(|(there, shape, sum)| *there && *shape == [2, 3] && *sum == expected), "{totals:?}");
}

#[test]
fn slices_that_do_not_follow_are_refused() {
    let slice = || bucket(&[0.0; 3]);
    let mut tree = Tree::new(4);
    tree.push(1, slice()).unwrap();
    assert!(matches!(tree.push(3, slice()), Err(Error::Gang(_))), "one is left out");
    assert!(matches!(tree.push(1, slice()), Err(Error::Gang(_))), "one comes twice");
    tree.push(2, slice()).unwrap();
    assert!(matches!(tree.clone().push(3, bucket(&[0.0; 4])), Err(Error::Shape { .. })));
    tree.push(3, slice()).unwrap();
    assert!(matches!(tree.push(4, slice()), Err(Error::Gang(_))), "there are four");
    assert!(matches!(tree.total(), Err(Error::Gang(_))), "the first is missing");
}

fn told<C: Collective + 'static>(group: Vec<C>) {
    let world = group.len();
    together(group, |member| {
        let rank = member.rank();
        let own = vec![u8::try_from(rank).unwrap(); rank];
        let all = member.all_gather(own).unwrap();
        assert!(all.iter().enumerate().all(|(rank, bytes)| bytes.len() == rank), "{all:?}");
        for root in 0..world {
            let mut bytes = format!("from {rank}").into_bytes();
            member.broadcast(root, &mut bytes).unwrap();
            assert_eq!(bytes, format!("from {root}").into_bytes());
        }
        member.barrier().unwrap();
    });
}

#[test]
fn everybody_hears_everybody() {
    for world in [1, 2, 3, 8] {
        told(local::group(world));
        told(ring(world));
    }
}

#[test]
fn closing_a_stream_frees_who_waits_for_it() {
    let (group, sockets) = ring_and_sockets(3);
    let closer = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        for socket in sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
    });
    // Rank 2 never comes; it does not leave either.
    let ends: Vec<Result<()>> = together(group, |member| match member.rank() {
        2 => {
            std::thread::sleep(std::time::Duration::from_millis(200));
            Ok(())
        }
        _ => member.barrier(),
    });
    closer.join().unwrap();
    assert!(ends[..2].iter().all(|end| matches!(end, Err(Error::Gang(_)))), "{ends:?}");
}

#[test]
fn a_member_that_leaves_frees_the_others() {
    fn leave<C: Collective + 'static>(group: Vec<C>) {
        let ends = together(group, |member| if member.rank() == 1 { Ok(()) } else { member.barrier() });
        assert!(matches!(ends[0], Err(Error::Gang(_))) && matches!(ends[2], Err(Error::Gang(_))), "{ends:?}");
    }
    leave(local::group(3));
    leave(ring(3));
}

#[test]
fn sums_of_two_sizes_are_refused() {
    fn disagree<C: Collective + 'static>(group: Vec<C>) {
        let ends = together(group, |member| {
            let len = 10 + 4 * member.rank();
            let mut tree = Tree::new(2);
            tree.push(member.rank(), bucket(&vec![0.0; len])).unwrap();
            member.all_reduce(tree, &[&Tensor::zeros(&[len])])
        });
        assert!(ends.iter().any(|end| matches!(end, Err(Error::Gang(_)))), "{ends:?}");
    }
    disagree(local::group(2));
    disagree(ring(2));
}

#[test]
fn members_that_do_not_do_the_same_find_out() {
    fn differ<C: Collective + 'static>(group: Vec<C>) {
        let ends = together(group, |member| match member.rank() {
            0 => member.broadcast(0, &mut vec![1]),
            _ => member.all_gather(vec![2]).map(drop),
        });
        assert!(matches!(ends[1], Err(Error::Gang(_))), "{ends:?}");
    }
    differ(local::group(2));
    differ(ring(2));
    // Half of five slices and half of six fit together as trees do.
    fn of_two_steps<C: Collective + 'static>(group: Vec<C>) {
        let ends = together(group, |member| {
            let (slices, own) = if member.rank() == 0 { (5, 0..3) } else { (6, 3..6) };
            let mut tree = Tree::new(slices);
            own.for_each(|slice| tree.push(slice, bucket(&[1.0; 3])).unwrap());
            member.all_reduce(tree, &[&Tensor::zeros(&[1]), &Tensor::zeros(&[2])])
        });
        assert!(ends.iter().all(|end| matches!(end, Err(Error::Gang(_)))), "{ends:?}");
    }
    of_two_steps(local::group(2));
    of_two_steps(ring(2));
}
