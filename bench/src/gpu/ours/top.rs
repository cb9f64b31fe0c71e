//! The best items of many users.

use anyhow::Result;
use data::examples::Rng;
use kernels::top_k::{Scored, top_k};
use kernels::{Device, Tensor};

use super::super::noise;
use super::Ready;
use super::reference::{dot, sample};

/// Items that a user has seen and is not shown again.
const SEEN: usize = 5;
/// Scores that are computed again in float64, at the most: some users' scores of all items.
const CHECKED: usize = 20_000_000;

/// Users and items.
pub(super) struct Top {
    users: Tensor,  // [users, width]
    items: Tensor,  // [items + 1, width]
    biases: Tensor, // [items + 1]
    seen: Vec<Vec<u32>>,
    k: usize,
}

impl Top {
    pub(super) fn new(items: usize, users: usize, width: usize, k: usize, device: &Device) -> Result<Self> {
        let seen = (0..users).map(|user| {
            let mut rng = Rng::keyed(&[4, user as u64]);
            let mut seen: Vec<u32> = (0..SEEN).map(|_| rng.below(items as u64) as u32 + 1).collect();
            seen.sort_unstable();
            seen
        });
        Ok(Self {
            seen: seen.collect(),
            users: device.put(&noise::tensor(1, &[users, width], 1.0)?)?,
            items: device.put(&noise::tensor(2, &[items + 1, width], 0.1)?)?,
            biases: device.put(&noise::tensor(3, &[items + 1], 0.1)?)?,
            k,
        })
    }

    fn best(&self) -> Result<Vec<Vec<Scored>>> {
        let seen: Vec<&[u32]> = self.seen.iter().map(Vec::as_slice).collect();
        Ok(top_k(&self.users, &self.items, Some(&self.biases), 1, &seen, self.k)?)
    }
}

impl Ready for Top {
    fn run(&mut self, _turn: usize) -> Result<()> {
        self.best().map(drop)
    }

    /// The share of the places at which another item stands than float64 would put there.
    fn error(&mut self) -> Result<Option<f64>> {
        let best = self.best()?;
        let (users, items, biases) = (self.users.to_host()?, self.items.to_host()?, self.biases.to_host()?);
        let (users, items, biases, width) = (users.f32()?, items.f32()?, biases.f32()?, self.users.cols());
        let checked = sample(best.len(), (CHECKED / biases.len()).clamp(1, 16));
        let [mut places, mut different] = [0.0f64; 2];
        for user in checked {
            let x = &users[user * width..][..width];
            let score = |id: usize| dot(x, &items[id * width..][..width]) + f64::from(biases[id]);
            let mut wanted: Vec<(f64, u32)> = (1..biases.len()).map(|id| (score(id), id as u32)).collect();
            wanted.retain(|(_, id)| self.seen[user].binary_search(id).is_err());
            let better = |a: &(f64, u32), b: &(f64, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
            if wanted.len() > self.k {
                wanted.select_nth_unstable_by(self.k, better);
                wanted.truncate(self.k);
            }
            wanted.sort_by(better);
            places += self.k as f64;
            different += wanted.iter().zip(&best[user]).filter(|(wanted, found)| wanted.1 != found.id).count() as f64;
        }
        Ok(Some(different / places))
    }
}
