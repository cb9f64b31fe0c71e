#![allow(clippy::unwrap_used)]
use kernels::Device;
use kernels::collective::Collective;
use kernels::collective::local::{self, Local};

use super::*;
use crate::retriever::{Dropout, PackedBatch, example_key, optimizer_config};

const PARTS: usize = 5;
const SLICES: usize = 4;
const DROPOUT: Dropout = Dropout { seed: 3, rate: 0.2 };

fn model() -> LruRec {
    LruRec::new(LruRecConfig::new(43, 6, 2, 0.2, 8).unwrap(), 1).unwrap()
}

fn shared() -> SharedLruRec {
    SharedLruRec::new(&model(), PARTS, &optimizer_config(1e-2, 0.01)).unwrap()
}

/// The slices of a step.
fn batches(step: u64) -> Vec<PackedBatch> {
    let item = |user: u64, t: u64| 1 + ((user * 11 + t * t * 3 + t) % 43) as u32;
    let sequence = |user: u64| -> Vec<u32> { (0..2 + (user + step) % 8).map(|t| item(user, t)).collect() };
    let slice = |slice: u64| {
        let sequences: Vec<_> = (0..3).map(|i| (sequence(3 * slice + i), example_key(step, 3 * slice + i))).collect();
        PackedBatch::train(sequences.iter().map(|(items, key)| (items.as_slice(), *key)), 8)
    };
    (0..SLICES as u64).map(slice).collect()
}

/// A step of one member. Returns the losses of its slices.
fn step(gang: &mut dyn Collective, member: &mut SharedLruRec, number: u64) -> Vec<u64> {
    let learnt = member.learn(gang, &batches(number), DROPOUT, &|| ()).unwrap();
    assert!(learnt.trouble.is_none() && !learnt.spoilt);
    let total = gang.all_reduce(learnt.tree, &member.parameters()).unwrap();
    member.apply(gang, total).unwrap();
    learnt.losses.into_iter().map(f64::to_bits).collect()
}

/// Steps of as many members as there are, each of whom does something behind them. Returns the losses.
fn together(
    members: &mut [SharedLruRec],
    steps: std::ops::Range<u64>,
    then: impl Fn(&mut SharedLruRec, &mut Local) + Sync,
) -> Vec<u64> {
    let group = local::group(members.len());
    let all = std::thread::scope(|scope| {
        let (steps, then) = (&steps, &then);
        let work = members.iter_mut().zip(group).map(|(member, mut end)| {
            scope.spawn(move || {
                let losses: Vec<_> = steps.clone().map(|n| step(&mut end, member, n)).collect();
                then(member, &mut end);
                losses
            })
        });
        let work: Vec<_> = work.collect();
        work.into_iter().map(|member| member.join().unwrap()).collect::<Vec<_>>()
    });
    (0..(steps.end - steps.start) as usize).flat_map(|n| all.iter().flat_map(move |losses| losses[n].clone())).collect()
}

fn gathered(member: &mut SharedLruRec, end: &mut Local) {
    let all: Vec<usize> = (0..end.world()).collect();
    member.settle(end, &all, &|| true).unwrap();
}

/// Makes a member complete without others.
fn complete(member: &mut SharedLruRec) {
    member.settle(&mut local::alone(), &[0], &|| true).unwrap();
}

/// What one member alone learns in so many steps.
fn alone(steps: u64) -> (SharedLruRec, Vec<u64>) {
    let mut members = [shared()];
    let losses = together(&mut members, 0..steps, gathered);
    let [member] = members;
    (member, losses)
}

#[test]
fn any_number_of_members_learns_the_same_to_the_bit() {
    let (wanted, losses) = alone(9);
    let first: f64 = losses[..SLICES].iter().map(|bits| f64::from_bits(*bits)).sum();
    let last: f64 = losses[losses.len() - SLICES..].iter().map(|bits| f64::from_bits(*bits)).sum();
    assert!((first - 44f64.ln()).abs() < 0.05 && last < first - 0.05, "{first} to {last}");
    for world in [2, 3, 5, 8] {
        let mut members: Vec<_> = (0..world).map(|_| shared()).collect();
        assert!(together(&mut members, 0..9, gathered) == losses, "losses of {world} members");
        for member in &members {
            assert!(member.whole().unwrap() == wanted.whole().unwrap(), "{world} members");
            assert!(member.save().unwrap() == wanted.save().unwrap(), "the optimiser of {world} members");
        }
    }
}

#[test]
fn it_learns_what_a_retriever_in_one_piece_learns() {
    let (mut whole, mut optimizer) = (model(), AdamW::new(optimizer_config(1e-2, 0.01)));
    for number in 0..9 {
        let slices = batches(number);
        let rows = slices.iter().map(PackedBatch::rows).sum();
        let mut grads = whole.params().zeros_like().unwrap();
        for batch in &slices {
            let (_, own) = whole.loss_and_gradients(batch, rows, DROPOUT).unwrap();
            grads.iter_mut().zip(own.tensors()).for_each(|((_, sum), own)| sum.add(own).unwrap());
        }
        whole.update(&grads, &mut optimizer).unwrap();
    }
    let found = alone(9).0.whole().unwrap();
    for ((name, found), wanted) in found.params().iter().zip(whole.params().tensors()) {
        for (found, wanted) in found.to_f32().iter().zip(wanted.to_f32()) {
            assert!((found - wanted).abs() < 2e-4, "{name}: {found}, not {wanted}"); // steps are of 1e-2
        }
    }
}

#[test]
fn whoever_is_left_makes_what_the_others_had() {
    let wanted = alone(7).0;
    for gathering in [false, true] {
        let mut members: Vec<_> = (0..3).map(|_| shared()).collect();
        together(&mut members, 0..4, |member, end| {
            if gathering {
                gathered(member, end);
            }
        });
        together(&mut members, 4..7, |_, _| ());
        assert!(members[0].remembered_bytes().0 > 0);
        for mut member in members {
            assert!(member.whole().is_err(), "it lacks what others did");
            complete(&mut member);
            assert!(member.save().unwrap() == wanted.save().unwrap());
            assert_eq!(member.remembered_bytes().0, 0);
        }
    }
}

#[test]
fn those_who_are_left_share_what_one_of_them_has_or_makes() {
    let wanted = alone(5).0.save().unwrap();
    // Rank 1 of three is gone, or 0 and 2 are; somebody new has taken its place, who has learnt nothing.
    for gone in [&[1][..], &[0, 2]] {
        let mut members: Vec<_> = (0..3).map(|_| shared()).collect();
        together(&mut members, 0..5, |_, _| ());
        gone.iter().for_each(|rank| members[*rank] = shared());
        let holders: Vec<usize> = (0..3).filter(|rank| !gone.contains(rank)).collect();
        together(&mut members, 0..0, |member, end| member.settle(end, &holders, &|| true).unwrap());
        for (rank, member) in members.iter().enumerate() {
            let has = if gone.contains(&rank) { shared().save().unwrap() } else { wanted.clone() };
            assert!(member.save().unwrap() == has, "rank {rank} without {gone:?}");
        }
    }
}

#[test]
fn what_is_made_again_can_be_broken_off_and_taken_up() {
    let mut members: Vec<_> = (0..2).map(|_| shared()).collect();
    together(&mut members, 0..4, |_, _| ());
    let left = std::cell::Cell::new(5);
    let goes_on = || left.replace(left.get().max(1) - 1) > 0;
    let error = members[1].settle(&mut local::alone(), &[0], &goes_on).unwrap_err();
    assert!(matches!(error, Error::Kernel(kernels::Error::Gang(_))), "{error}");
    complete(&mut members[1]);
    assert!(members[1].save().unwrap() == alone(4).0.save().unwrap());
}

#[test]
fn gradients_that_overflow_only_together_change_nothing() {
    let mut member = shared();
    let (mut end, before) = (local::alone(), shared().save().unwrap());
    let learnt = member.learn(&mut end, &batches(0), DROPOUT, &|| ()).unwrap();
    assert!(!learnt.spoilt);
    let mut total = end.all_reduce(learnt.tree, &member.parameters()).unwrap().into_tensors();
    total[0].f32_mut().unwrap()[0] = f32::INFINITY;
    let total = kernels::collective::Bucket::new(total).unwrap();
    let error = member.apply(&mut end, total).unwrap_err().to_string();
    assert!(error.contains("are no numbers"), "{error}");
    assert!(member.save().unwrap() == before);
}

#[test]
fn a_member_that_is_gone_changes_nothing() {
    let mut members: Vec<_> = (0..2).map(|_| shared()).collect();
    together(&mut members, 0..3, |_, _| ());
    let mut group = local::group(2);
    drop(group.pop());
    let error = members[0].learn(&mut group[0], &batches(3), DROPOUT, &|| ()).err().unwrap();
    assert!(matches!(error, Error::Kernel(kernels::Error::Gang(_))), "{error}");
    complete(&mut members[0]);
    let mut left = [members.remove(0)];
    together(&mut left, 3..6, |_, _| ());
    assert!(left[0].save().unwrap() == alone(6).0.save().unwrap());
}

#[test]
fn a_restored_training_goes_on_with_the_same_bits() {
    let (saved, mut other) = (alone(4).0.save().unwrap(), shared());
    let file = |name: &str| {
        let found = saved.iter().find(|(file, _)| file == name).map(|(_, bytes)| bytes.as_slice());
        found.ok_or_else(|| Error::Input(format!("no {name}")))
    };
    assert!(
        other.restore(|name| if name == part_names(3)[0] { file("body.safetensors") } else { file(name) }).is_err()
    );
    assert!(other.save().unwrap() == shared().save().unwrap(), "it has changed half way");
    other.restore(file).unwrap();
    let mut members = [other];
    together(&mut members, 4..9, |_, _| ());
    assert!(members[0].save().unwrap() == alone(9).0.save().unwrap());
}

#[test]
fn who_makes_what_is_no_number_says_so_and_nobody_else() {
    let mut members: Vec<_> = (0..3).map(|_| shared()).collect();
    // Item 20 is of a part of rank 1, and no slice names it.
    let own = &mut members[1].parts[2];
    let place = 20 - own.classes().start;
    own.params_mut().get_mut(names::TOKEN).unwrap().f32_mut().unwrap()[place * 6] = f32::NAN;
    let quiet: Vec<_> = batches(0).into_iter().filter(|b| !b.ids.contains(&20) && !b.labels.contains(&20)).collect();
    let troubles: Vec<_> = std::thread::scope(|scope| {
        let quiet = &quiet;
        let work: Vec<_> = members
            .iter_mut()
            .zip(local::group(3))
            .map(|(member, mut end)| {
                scope.spawn(move || member.learn(&mut end, quiet, DROPOUT, &|| ()).unwrap().trouble)
            })
            .collect();
        work.into_iter().map(|member| member.join().unwrap()).collect()
    });
    assert_eq!(troubles, [None, Some("sums of exponentials are no numbers".to_owned()), None]);
}

#[test]
fn more_parts_than_items_are_no_harm_and_none_are_refused() {
    let config = optimizer_config(1e-2, 0.01);
    let few = LruRec::new(LruRecConfig::new(2, 4, 1, 0.0, 8).unwrap(), 1).unwrap();
    let mut member = SharedLruRec::new(&few, 7, &config).unwrap();
    assert!(member.whole().unwrap() == few);
    let batch = PackedBatch::train([(&[1, 2, 1][..], 0)], 8);
    let mut end = local::alone();
    let learnt = member.learn(&mut end, &[batch], Dropout::NONE, &|| ()).unwrap();
    assert!(learnt.trouble.is_none() && learnt.losses[0].is_finite());
    let total = end.all_reduce(learnt.tree, &member.parameters()).unwrap();
    member.apply(&mut end, total).unwrap();
    assert!(member.whole().unwrap() != few);
    assert!(SharedLruRec::new(&few, 0, &config).is_err());
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (mut member, mut end) = (shared(), local::alone());
    let mut error = |batches: &[PackedBatch]| match member.learn(&mut end, batches, DROPOUT, &|| ()) {
        Ok(_) => panic!("it was taken"),
        Err(e) => e.to_string(),
    };
    assert!(error(&[]).contains("without rows"));
    assert!(error(&[PackedBatch::train([(&[1, 99][..], 0)], 8)]).contains("item 99 of a catalogue of 43"));
    assert!(error(&[PackedBatch::score([&[1, 2][..]], 8)]).contains("0 labels for 2 rows"));
    assert!(member.apply(&mut end, kernels::collective::Bucket::default()).is_err());
}

#[test]
fn a_device_learns_like_the_host() {
    let device = Device::under_test().unwrap();
    let config = optimizer_config(1e-2, 0.01);
    let mut there = [SharedLruRec::new(&model().on(&device).unwrap(), PARTS, &config).unwrap()];
    together(&mut there, 0..3, |_, _| ());
    let (found, wanted) = (there[0].whole().unwrap(), alone(3).0.whole().unwrap());
    for ((name, found), wanted) in found.params().iter().zip(wanted.params().tensors()) {
        for (found, wanted) in found.to_f32().iter().zip(wanted.to_f32()) {
            assert!((found - wanted).abs() < 2e-4, "{name}: {found}, not {wanted}");
        }
    }
}
