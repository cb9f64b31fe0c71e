//! Properties of the filter on random logs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::examples::Rng;

/// One row of a log: user, item, time.
type Row = (u8, u8, u8);

fn log() -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec((0..14_u8, 0..10_u8, 0..6_u8), 0..160)
}

fn table(rows: &[Row]) -> String {
    rows.iter().fold("user,item,time\n".to_owned(), |mut text, (user, item, time)| {
        writeln!(text, "u{user},i{item},{time}").unwrap();
        text
    })
}

/// What preparation should give, written as plainly as possible.
fn naive(rows: &[Row], per_user: usize, per_item: usize) -> Vec<String> {
    let mut earliest: BTreeMap<(String, String), u8> = BTreeMap::new();
    for (user, item, time) in rows {
        let slot = earliest.entry((format!("u{user}"), format!("i{item}"))).or_insert(*time);
        *slot = (*slot).min(*time);
    }
    loop {
        let of_user = |user: &str| earliest.keys().filter(|(u, _)| u == user).count();
        let of_item = |item: &str| earliest.keys().filter(|(_, i)| i == item).count();
        let stays = |(u, i): &(String, String)| of_user(u) >= per_user.max(3) && of_item(i) >= per_item;
        let kept: BTreeMap<_, _> =
            earliest.iter().filter(|(key, _)| stays(key)).map(|(k, t)| (k.clone(), *t)).collect();
        if kept.len() == earliest.len() {
            break;
        }
        earliest = kept;
    }
    let users: BTreeSet<&String> = earliest.keys().map(|(user, _)| user).collect();
    let line = |user: &&String| {
        let mut items: Vec<(u8, &String)> =
            earliest.iter().filter(|((u, _), _)| u == *user).map(|((_, i), t)| (*t, i)).collect();
        items.sort();
        format!("{user}: {}", items.iter().map(|(_, i)| i.as_str()).collect::<Vec<_>>().join(" "))
    };
    users.iter().map(line).collect()
}

fn outcome(text: &str, per_user: u32, per_item: u32) -> Option<Outcome> {
    let folder = Folder::new();
    folder.write("log.csv", text);
    let dataset = Dataset {
        min_interactions_per_user: per_user,
        min_interactions_per_item: per_item,
        shard_users: 3,
        ..folder.dataset(Format::Table)
    };
    match run(&dataset) {
        Ok(outcome) => Some(outcome),
        Err(Error::NothingLeft { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_core_is_the_naive_fixed_point(rows in log(), per_user in 0..7_u32, per_item in 0..7_u32) {
        let expected = naive(&rows, per_user as usize, per_item as usize);
        let found = outcome(&table(&rows), per_user, per_item);
        prop_assert_eq!(found.as_ref().map_or(Vec::new(), Outcome::lines), expected);
        if let Some(found) = found {
            let items: BTreeSet<&String> = found.users().flat_map(|u| &u.items).collect();
            prop_assert_eq!(items.into_iter().collect::<Vec<_>>(), found.items.iter().map(|i| &i.item_id).collect::<Vec<_>>());
            prop_assert_eq!(found.counts.users, found.users().count() as u64);
            prop_assert_eq!(found.counts.items, found.items.len() as u64);
            prop_assert_eq!(found.counts.interactions, found.users().map(|u| u.items.len() as u64).sum::<u64>());
            prop_assert_eq!(found.counts.rows, rows.len() as u64);
            prop_assert_eq!(found.counts.before.interactions + found.counts.duplicates, rows.len() as u64);
        }
    }

    #[test]
    fn the_order_of_the_rows_does_not_matter(rows in log(), seed in any::<u64>()) {
        let mut shuffled = rows.clone();
        Rng::keyed(&[seed]).shuffle(&mut shuffled);
        prop_assert_eq!(outcome(&table(&rows), 3, 3), outcome(&table(&shuffled), 3, 3));
    }

    #[test]
    fn shards_are_consecutive_users_of_the_size_asked_for(rows in log(), size in 1..9_u32) {
        let Some(whole) = outcome(&table(&rows), 3, 2) else { return Ok(()) };
        let folder = Folder::new();
        folder.write("log.csv", table(&rows));
        let dataset = Dataset {
            min_interactions_per_user: 3,
            min_interactions_per_item: 2,
            shard_users: size,
            ..folder.dataset(Format::Table)
        };
        let cut = run(&dataset).unwrap();
        prop_assert_eq!(cut.lines(), whole.lines(), "every user once, in the same order");
        let (last, full) = cut.shards.split_last().unwrap();
        prop_assert!(full.iter().all(|shard| shard.len() == size as usize));
        prop_assert!((1..=size as usize).contains(&last.len()));
    }
}
