//! Which shard describes which pictures.

use std::collections::BTreeMap;

use crate::tables::{CaptionStatus, PictureRow};

/// Shares out items, so that all items with one picture meet in one shard, where it is described once, and every shard has
/// about as many pictures to describe. Gives the rows of every shard, in order.
#[must_use]
pub fn share_out(rows: &[PictureRow], shards: usize) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    let mut idle = 0;
    let places: Vec<(bool, usize)> = rows
        .iter()
        .map(|row| match (&row.image_sha256, row.status) {
            (Some(sha256), CaptionStatus::Ok) => {
                let next = groups.len();
                (true, *groups.entry(sha256).or_insert(next))
            }
            _ => {
                idle += 1;
                (false, idle - 1)
            }
        })
        .collect();
    let mut shares = vec![Vec::new(); shards];
    for (row, (works, place)) in places.into_iter().enumerate() {
        let of = if works { groups.len() } else { idle };
        shares[place * shards / of].push(row);
    }
    shares
}
