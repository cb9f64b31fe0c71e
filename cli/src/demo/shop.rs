//! A made-up gift shop: items, customers and purchases from one seed.
//!
//! The shop sells every category of thing once with every one of its shapes. A title names the category and a model name
//! that says nothing ("Tavi mug"); the shape stands only in the picture, where colour, pattern and count are noise. A
//! customer walks through the ring of categories, which interactions alone teach, and loves one shape, which is easy to
//! read from captions and hard to learn from the few interactions that an item has.
//!
//! `tools/demo-base/shop.py` makes the same shops, bit by bit but for the pictures, to train the base checkpoint on other
//! seeds.

use std::fmt::Write as _;

use serde::Deserialize;

use super::drawing;
use super::rng::Rng;
use super::scene::{Drawable, Scene};

/// The first second of the shop.
const START: u64 = 1_700_000_000;
const DAY: u64 = 86_400;

/// What the shop can be made of.
#[derive(Deserialize)]
struct Words {
    categories: Vec<String>,
    names: Vec<String>,
    #[serde(flatten)]
    drawable: Drawable,
}

/// How large the shop is and how faithful its customers are.
pub(crate) struct Settings {
    users: usize,
    categories: usize,
    shapes: usize,
    min_items: u64,
    max_items: u64,
    /// Purchases in the customer's shape, of 100; the others have any.
    taste_percent: u64,
    /// Steps to the next category of the ring, of 100.
    first_percent: u64,
    /// Steps to the one after it; the rest goes anywhere.
    second_percent: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            users: 2000,
            categories: 30,
            shapes: 20,
            min_items: 5,
            max_items: 7,
            taste_percent: 50,
            first_percent: 60,
            second_percent: 25,
        }
    }
}

pub(super) struct Item {
    id: String,
    /// What its id ends with.
    number: usize,
    pub(super) title: String,
    pub(super) scene: Scene,
}

struct Purchase {
    user: usize,
    item: usize,
    time: u64,
}

/// A shop with its history.
pub(crate) struct Shop {
    seed: u64,
    /// By category, then by shape.
    pub(super) items: Vec<Item>,
    purchases: Vec<Purchase>,
}

impl Shop {
    /// The shop of a seed.
    pub(crate) fn new(seed: u64, settings: &Settings) -> Self {
        let words: Words =
            serde_json::from_str(include_str!("words.json")).expect("the word list is part of the program");
        let mut rng = Rng::new(seed);
        let items = items(&words, settings, &mut rng);
        let purchases = (0..settings.users).flat_map(|user| purchases(user, settings, &mut rng)).collect();
        Self { seed, items, purchases }
    }

    /// `user,item,time,title`, a line for every purchase.
    pub(crate) fn interactions_csv(&self) -> String {
        let mut csv = String::from("user,item,time,title\n");
        for p in &self.purchases {
            let item = &self.items[p.item];
            let _ = writeln!(csv, "u{:05},{},{},{}", p.user + 1, item.id, p.time, item.title);
        }
        csv
    }

    /// `item_id,caption,shape,colour,pattern,count`, a line for every item: what a good reader sees in the pictures.
    pub(crate) fn truth_csv(&self) -> String {
        let mut items: Vec<&Item> = self.items.iter().collect();
        items.sort_by_key(|item| item.number);
        let mut csv = String::from("item_id,caption,shape,colour,pattern,count\n");
        for Item { id, scene, .. } in items {
            let Scene { shape, colour, pattern, count, caption } = scene;
            let _ = writeln!(csv, "{id},{caption},{},{colour},{pattern},{count}", shape.0);
        }
        csv
    }

    /// What the picture of every item shows, by id.
    pub(super) fn scenes(&self) -> impl Iterator<Item = (&str, &Scene)> {
        self.items.iter().map(|item| (item.id.as_str(), &item.scene))
    }

    /// Id and PNG file of every item.
    pub(crate) fn pictures(&self) -> impl Iterator<Item = (&str, Vec<u8>)> {
        self.items.iter().map(|item| {
            let mut rng = Rng::keyed(self.seed, item.number as u64);
            (item.id.as_str(), drawing::draw(&item.scene, &mut rng))
        })
    }
}

fn items(words: &Words, settings: &Settings, rng: &mut Rng) -> Vec<Item> {
    let shapes = rng.sample(&words.drawable.shapes, settings.shapes);
    let mut items = Vec::new();
    for category in &words.categories[..settings.categories] {
        let names = rng.sample(&words.names, settings.shapes);
        for (name, shape) in names.iter().zip(&shapes) {
            let scene = Scene::any(&words.drawable, shape, rng);
            items.push(Item { id: String::new(), number: 0, title: format!("{name} {category}"), scene });
        }
    }
    // Ids in a random order, so that an id says nothing.
    let mut numbers: Vec<usize> = (1..=items.len()).collect();
    rng.shuffle(&mut numbers);
    for (item, number) in items.iter_mut().zip(numbers) {
        item.id = format!("i{number:04}");
        item.number = number;
    }
    items
}

/// One customer's purchases in time order.
fn purchases(user: usize, s: &Settings, rng: &mut Rng) -> Vec<Purchase> {
    let taste = rng.index(s.shapes);
    let length = (s.min_items + rng.below(s.max_items - s.min_items + 1)) as usize;
    let mut time = START + rng.below(300 * DAY);
    let mut category = rng.index(s.categories);
    let mut bought: Vec<Purchase> = Vec::with_capacity(length);
    while bought.len() < length {
        let shape = if rng.percent(s.taste_percent) { taste } else { rng.index(s.shapes) };
        let item = category * s.shapes + shape;
        if bought.iter().all(|p| p.item != item) {
            bought.push(Purchase { user, item, time });
            time += 3600 + rng.below(5 * DAY);
        }
        let step = rng.below(100);
        category = if step < s.first_percent {
            (category + 1) % s.categories
        } else if step < s.first_percent + s.second_percent {
            (category + 2) % s.categories
        } else {
            rng.index(s.categories)
        };
    }
    bought
}
