#![allow(clippy::unwrap_used)]

use super::shop::Item;
use super::{Reading, Settings, Shop};

#[test]
fn a_seed_is_a_shop() {
    let (a, b) = (Shop::new(42, &Settings::default()), Shop::new(42, &Settings::default()));
    assert_eq!(a.interactions_csv(), b.interactions_csv());
    assert_eq!(a.truth_csv(), b.truth_csv());
    assert!(a.pictures().eq(b.pictures()));
    assert_ne!(a.interactions_csv(), Shop::new(43, &Settings::default()).interactions_csv());
}

#[test]
fn the_shop_is_the_one_of_the_python_generator() {
    // The first lines that tools/demo-base/shop.py makes for seed 42.
    let shop = Shop::new(42, &Settings::default());
    let (interactions, truth) = (shop.interactions_csv(), shop.truth_csv());
    let first: Vec<&str> = interactions.lines().skip(1).take(2).collect();
    assert_eq!(first, ["u00001,i0155,1721568860,Ursa apron", "u00001,i0384,1721951078,Alda napkin"]);
    let captions: Vec<&str> = truth.lines().skip(1).take(2).map(|line| line.split(',').nth(1).unwrap()).collect();
    assert_eq!(captions, CAPTIONS);
    assert_eq!(truth.lines().count(), 601);
}

const CAPTIONS: [&str; 2] = ["three purple flags on waves", "three purple flags on checks"];

#[test]
fn the_shape_stands_in_the_caption_only() {
    let words: serde_json::Value = serde_json::from_str(include_str!("words.json")).unwrap();
    let pairs = words["shapes"].as_array().unwrap();
    let shapes: Vec<&str> =
        pairs.iter().flat_map(|pair| [&pair[0], &pair[1]]).map(|word| word.as_str().unwrap()).collect();
    for item in &Shop::new(1, &Settings::default()).items {
        let Item { title, scene, .. } = item;
        assert!(scene.caption.split(' ').any(|word| shapes.contains(&word)), "{}", scene.caption);
        assert!(title.split(' ').all(|word| !shapes.contains(&word)), "{title}");
    }
}

#[test]
fn a_reading_counts_whole_captions_and_shapes() {
    let shop = Shop::new(42, &Settings::default());
    let truth: Vec<(&str, &str)> = shop.scenes().map(|(id, scene)| (id, scene.caption.as_str())).collect();
    assert_eq!(Reading::of(&shop, truth.iter().copied()), Reading { pictures: 600, exact: 600, shape: 600 });
    // One that is not there, one without the ground, one of another shape.
    let mut read: Vec<(&str, &str)> = truth[1..].to_vec();
    let (plain, _) = truth[1].1.split_once(" on ").unwrap();
    read[0].1 = plain;
    read[1].1 = "one grey elephant";
    assert_eq!(Reading::of(&shop, read), Reading { pictures: 600, exact: 597, shape: 598 });
}
