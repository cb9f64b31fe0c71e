#![allow(clippy::unwrap_used)]

use super::{Settings, Shop};

#[test]
fn a_seed_is_a_shop() {
    let (a, b) = (Shop::new(42, &Settings::default()), Shop::new(42, &Settings::default()));
    assert_eq!(a.interactions_csv(), b.interactions_csv());
    assert_ne!(a.interactions_csv(), Shop::new(43, &Settings::default()).interactions_csv());
}

#[test]
fn the_shop_is_the_one_of_the_python_generator() {
    // The first lines that tools/demo-base/shop.py makes for seed 42.
    let shop = Shop::new(42, &Settings::default());
    let interactions = shop.interactions_csv();
    let first: Vec<&str> = interactions.lines().skip(1).take(2).collect();
    assert_eq!(first, FIRST);
    assert_eq!(shop.captions_csv().lines().count(), 601);
}

const FIRST: [&str; 2] = ["u00001,i0312,1714003544,Pella clock", "u00001,i0491,1714179458,Mika cushion"];

#[test]
fn the_motif_stands_in_the_caption_only() {
    let shop = Shop::new(1, &Settings::default());
    let words: serde_json::Value = serde_json::from_str(include_str!("words.json")).unwrap();
    let motifs: Vec<&str> = words["motifs"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
    for item in &shop.items {
        assert!(motifs.iter().any(|m| item.caption.split(' ').any(|w| w == *m)), "{}", item.caption);
        assert!(motifs.iter().all(|m| item.title.split(' ').all(|w| w != *m)), "{}", item.title);
    }
}
