//! Items of histories that the retriever does not know: left out of its input, counted and named.

use std::collections::BTreeMap;

use data::artifact::{Output as Folder, Stats};
use data::dataset::{Catalogue, KnownItems};
use data::tables::{RejectedRow, Table};
use serde_json::json;

use crate::context::Context;
use crate::population::User;

/// Why such an item is in the rejected table.
const REASON: &str = "unknown to the retriever";

/// The unknown items of some users.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unknown {
    /// How many users have each item.
    items: BTreeMap<u32, u64>,
    /// Users with an unknown item.
    users: u64,
    /// Users of whom the retriever knows no item at all.
    lost_users: u64,
}

impl Unknown {
    /// Whether the retriever of a task may not know an item, so that its artifact has a table for them.
    pub(crate) fn possible(cx: &Context) -> bool {
        cx.plan.outputs.contains(&Folder::Table(Table::Rejected))
    }

    /// Counts over whole histories, held-out items included.
    pub(crate) fn count(users: &[User], known: &KnownItems) -> Self {
        let mut unknown = Self::default();
        for user in users {
            let mut items: Vec<u32> = user.items.iter().copied().filter(|item| known.number(*item).is_none()).collect();
            unknown.users += u64::from(!items.is_empty());
            unknown.lost_users += u64::from(items.len() == user.items.len());
            items.sort_unstable();
            items.dedup();
            for item in items {
                *unknown.items.entry(item).or_default() += 1;
            }
        }
        unknown
    }

    /// Rows of the rejected table, by item.
    pub(crate) fn rows(&self, catalogue: &Catalogue) -> Vec<RejectedRow> {
        let row = |(item, users): (&u32, &u64)| RejectedRow {
            file: Table::Histories.name().to_owned(),
            line: None,
            reason: REASON.to_owned(),
            item_id: Some(catalogue.id(*item).to_owned()),
            users: Some(*users),
            user_id: None,
        };
        self.items.iter().map(row).collect()
    }

    /// Figures of the done record.
    pub(crate) fn describe(&self, stats: &mut Stats) {
        let figures = [
            ("unknown_items", self.items.len() as u64),
            ("unknown_interactions", self.items.values().sum()),
            ("users_with_unknown_items", self.users),
            ("users_without_known_items", self.lost_users),
        ];
        stats.notes.extend(figures.map(|(name, count)| (name.to_owned(), json!(count))));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use data::tables::ItemRow;

    use super::*;

    #[test]
    fn every_unknown_item_is_named_with_its_users() {
        let item = |id: &str| ItemRow {
            item_id: id.to_owned(),
            title: id.to_owned(),
            image: None,
            attributes: "{}".to_owned(),
        };
        let catalogue = Catalogue::new(["a", "b", "c", "d"].map(item).into()).unwrap();
        let (known, _) = KnownItems::new(&catalogue, &["b".to_owned(), "x".to_owned()]).unwrap();
        let user = |id: &str, items: &[u32]| User { id: id.to_owned(), items: items.to_vec() };
        let users = [user("u", &[1, 2, 3]), user("v", &[2, 2, 2]), user("w", &[3, 4, 3])];
        let unknown = Unknown::count(&users, &known);
        let named: Vec<(String, u64)> =
            unknown.rows(&catalogue).into_iter().map(|r| (r.item_id.unwrap(), r.users.unwrap())).collect();
        assert_eq!(named, [("a".to_owned(), 1), ("c".to_owned(), 2), ("d".to_owned(), 1)]);
        assert_eq!((unknown.users, unknown.lost_users), (2, 1));
    }
}
