//! A step of a retriever whose items are shared out, by a real ring of threads: how long it takes, and what a member says.

use std::time::Instant;

use anyhow::Result;
use kernels::collective::{Bucket, Collective, Tree, tcp};
use kernels::{Device, Tensor};
use model::retriever::{Dropout, LruRec, LruRecConfig, PackedBatch, SharedLruRec, example_key, optimizer_config};

use super::measured;

/// Slices of a step, and parts of the items.
const SLICES: usize = 8;
/// Steps that are timed, behind one that is not.
const STEPS: usize = 3;
const DROPOUT: Dropout = Dropout { seed: 1, rate: 0.2 };

/// What was measured.
pub(super) struct Found {
    /// Seconds of a step of the slowest member, the median of some.
    pub(super) seconds: f64,
    /// Bytes that the member with the most to say says in a step.
    pub(super) said: usize,
}

/// Steps of so many members over so many items, 64 wide, with histories of 50.
pub(super) fn step(world: usize, items: usize, histories: usize) -> Result<Found> {
    anyhow::ensure!(histories > 0 && histories.is_multiple_of(SLICES), "--histories has to be a multiple of {SLICES}");
    let members: Vec<_> = measured::ring(world)?
        .into_iter()
        .enumerate()
        .map(|(rank, [next, previous])| {
            std::thread::spawn(move || {
                let gang = Counting { gang: tcp::Ring::new(rank, world, next, previous)?, said: 0 };
                Device::cpu(1)?.run(|| member(gang, items, histories))
            })
        })
        .collect();
    let mut longest = [0.0_f64; STEPS];
    let mut said = 0;
    for member in members {
        let (times, bytes) = member.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))??;
        longest.iter_mut().zip(times).for_each(|(longest, time)| *longest = longest.max(time));
        said = said.max(bytes);
    }
    longest.sort_by(f64::total_cmp);
    Ok(Found { seconds: longest[STEPS / 2], said })
}

fn member<C: Collective>(mut gang: Counting<C>, items: usize, histories: usize) -> Result<(Vec<f64>, usize)> {
    let config = LruRecConfig::new(items, super::WIDTH, 2, 0.2, 50)?;
    let mut model = SharedLruRec::new(&LruRec::new(config, 1)?, SLICES, &optimizer_config(1e-3, 0.01))?;
    let mut times = Vec::new();
    for number in 0..=STEPS as u64 {
        let batches = batches(number, items, histories);
        gang.barrier()?;
        gang.said = 0;
        let began = Instant::now();
        let learnt = model.learn(&mut gang, &batches, DROPOUT, &|| ())?;
        anyhow::ensure!(learnt.trouble.is_none(), "{:?}", learnt.trouble);
        let total = gang.all_reduce(learnt.tree, &model.parameters())?;
        model.apply(&mut gang, total)?;
        if number > 0 {
            times.push(began.elapsed().as_secs_f64());
        }
    }
    Ok((times, gang.said))
}

fn batches(step: u64, items: usize, histories: usize) -> Vec<PackedBatch> {
    let item = |user: u64, t: u64| 1 + ((user * 7_919 + t * t * 104_729 + step * 31) % items as u64) as u32;
    let slice = |slice: usize| {
        let users =
            (0..histories / SLICES).map(|i| (step * histories as u64) + (slice * histories / SLICES + i) as u64);
        let windows: Vec<_> = users.map(|user| ((0..51).map(|t| item(user, t)).collect(), user)).collect();
        let windows = windows.iter().map(|(items, user): &(Vec<u32>, u64)| (&items[..], example_key(0, *user)));
        PackedBatch::train(windows, 50)
    };
    (0..SLICES).map(slice).collect()
}

/// Counts what a member brings to every call.
struct Counting<C> {
    gang: C,
    said: usize,
}

impl<C: Collective> Collective for Counting<C> {
    fn rank(&self) -> usize {
        self.gang.rank()
    }

    fn world(&self) -> usize {
        self.gang.world()
    }

    fn all_reduce(&mut self, own: Tree, like: &[&Tensor]) -> kernels::Result<Bucket> {
        self.said += own.nodes().iter().map(|node| size_of::<f32>() * node.sum.elements()).sum::<usize>();
        self.gang.all_reduce(own, like)
    }

    fn broadcast(&mut self, root: usize, bytes: &mut Vec<u8>) -> kernels::Result<()> {
        self.said += if root == self.rank() { bytes.len() } else { 0 };
        self.gang.broadcast(root, bytes)
    }

    fn all_gather(&mut self, own: Vec<u8>) -> kernels::Result<Vec<Vec<u8>>> {
        self.said += own.len();
        self.gang.all_gather(own)
    }
}
