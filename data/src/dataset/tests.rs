#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::Error;
use crate::job::Split;
use crate::tables::{HistoryRow, ItemRow};

fn items(ids: &[&str]) -> Vec<ItemRow> {
    let item = |id: &&str| ItemRow {
        item_id: (*id).to_owned(),
        title: format!("title of {id}"),
        image: None,
        attributes: "{}".to_owned(),
    };
    ids.iter().map(item).collect()
}

#[test]
fn items_are_numbered_from_one_in_byte_order() {
    let catalogue = Catalogue::new(items(&["10", "9", "B", "b"])).unwrap();
    assert_eq!(catalogue.len(), 4);
    assert_eq!(catalogue.index("10"), Some(1));
    assert_eq!(catalogue.index("b"), Some(4));
    assert_eq!(catalogue.index("c"), None);
    assert_eq!((catalogue.id(2), catalogue.title(2)), ("9", "title of 9"));
    let history = |items: &[&str]| HistoryRow {
        user_id: "u".to_owned(),
        items: items.iter().map(|i| (*i).to_owned()).collect(),
        times: vec![0; items.len()],
    };
    assert_eq!(catalogue.encode(&history(&["B", "10"])).unwrap(), [3, 1]);
    let error = catalogue.encode(&history(&["B", "x"])).unwrap_err().to_string();
    assert!(error.contains("`u`") && error.contains("`x`"), "{error}");
}

#[test]
fn unsorted_and_repeated_items_are_refused() {
    assert!(matches!(Catalogue::new(items(&["b", "a"])), Err(Error::ItemOrder { .. })));
    assert!(matches!(Catalogue::new(items(&["a", "a"])), Err(Error::ItemOrder { .. })));
    assert!(Catalogue::new(Vec::new()).unwrap().is_empty());
}

proptest! {
    #[test]
    fn splits_hold_out_the_last_two_items(n in 3..40_u32) {
        let items: Vec<u32> = (0..n).collect();
        let of = |split| Holdout::of(&items, split);
        prop_assert_eq!(of(Split::Test).target, Some(&(n - 1)));
        prop_assert_eq!(of(Split::Validation).target, Some(&(n - 2)));
        prop_assert_eq!(of(Split::Train).target, None);
        prop_assert_eq!(of(Split::All), Holdout { history: &items[..], target: None });
        for split in [Split::Test, Split::Validation] {
            let Holdout { history, target } = of(split);
            prop_assert!(!history.contains(target.unwrap()));
            prop_assert_eq!(&items[..history.len()], history, "a history is what came before");
            prop_assert_eq!(items[history.len()], *target.unwrap());
        }
        // Neither held-out item is trained on, and validation does not see the test item.
        prop_assert_eq!(of(Split::Train).history, training_items(&items));
        prop_assert_eq!(training_items(&items).len() as u32, n - 2);
        prop_assert_eq!(of(Split::Validation).history, training_items(&items));
    }
}

#[test]
fn short_histories_do_not_panic() {
    for n in 0..3 {
        let items = vec![1_u32; n];
        for split in Split::ALL {
            let _ = Holdout::of(&items, split);
        }
    }
    assert_eq!(Holdout::of(&[5], Split::Test), Holdout { history: &[], target: Some(&5) });
    assert_eq!(Holdout::of(&[5], Split::Validation), Holdout { history: &[], target: None });
}

#[test]
fn items_are_known_to_both_under_their_numbers() {
    let catalogue = Catalogue::new(items(&["a", "c", "d", "f"])).unwrap();
    let ids: Vec<String> = ["d", "b", "a", "e"].map(str::to_owned).into();
    let (known, in_model) = KnownItems::new(&catalogue, &ids).unwrap();
    let numbers: Vec<Option<u32>> = (1..=4).map(|item| known.number(item)).collect();
    assert_eq!(numbers, [Some(1), None, Some(2), None]);
    assert_eq!((known.item(1), known.item(2)), (1, 3));
    assert_eq!(in_model, [3, 1], "a is the model's third, d its first");
    assert_eq!((known.len(), known.is_empty(), known.catalogue_len()), (2, false, 4));
    let twice = KnownItems::new(&catalogue, &["a".to_owned(), "a".to_owned()]).unwrap_err().to_string();
    assert!(twice.contains("`a` twice"), "{twice}");
    assert!(KnownItems::new(&catalogue, &["x".to_owned()]).unwrap().0.is_empty());
}

#[test]
fn a_model_of_the_same_catalogue_knows_everything() {
    let rows = items(&["a", "b", "c"]);
    let ids: Vec<String> = rows.iter().map(|row| row.item_id.clone()).collect();
    let catalogue = Catalogue::new(rows).unwrap();
    assert_eq!((KnownItems::all(&catalogue), vec![1, 2, 3]), KnownItems::new(&catalogue, &ids).unwrap());
}
