//! A made-up gift shop: items, customers and purchases from one seed.
//!
//! The shop sells every category of thing once with every motif. A title names the category and a model name that says
//! nothing ("Tavi mug"); the motif stands only in the caption ("a red mug with a fox"), where the colour is noise. A
//! customer walks through the ring of categories, which interactions alone teach, and loves one motif, which is easy to
//! read from captions and hard to learn from the few interactions that an item has.
//!
//! `tools/demo-base/shop.py` makes the same shops, bit by bit, to train the base checkpoint on other seeds.

use std::fmt::Write as _;

use serde::Deserialize;

use super::rng::Rng;

/// The first second of the shop.
const START: u64 = 1_700_000_000;
const DAY: u64 = 86_400;

/// What the shop can be made of.
#[derive(Deserialize)]
struct Words {
    categories: Vec<String>,
    motifs: Vec<String>,
    colours: Vec<String>,
    names: Vec<String>,
    captions: Vec<String>,
}

/// How large the shop is and how faithful its customers are.
pub(crate) struct Settings {
    users: usize,
    categories: usize,
    motifs: usize,
    min_items: u64,
    max_items: u64,
    /// Purchases in the customer's motif, of 100; the others have any.
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
            motifs: 20,
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
    pub(super) title: String,
    pub(super) caption: String,
}

struct Purchase {
    user: usize,
    item: usize,
    time: u64,
}

/// A shop with its history.
pub(crate) struct Shop {
    /// By category, then by motif.
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
        Self { items, purchases }
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

    /// `item_id,caption`, a line for every item.
    pub(crate) fn captions_csv(&self) -> String {
        let mut items: Vec<&Item> = self.items.iter().collect();
        items.sort_by(|a, b| a.id.cmp(&b.id));
        let mut csv = String::from("item_id,caption\n");
        for item in items {
            let _ = writeln!(csv, "{},{}", item.id, item.caption);
        }
        csv
    }
}

fn items(words: &Words, settings: &Settings, rng: &mut Rng) -> Vec<Item> {
    let motifs = rng.sample(&words.motifs, settings.motifs);
    let mut items = Vec::new();
    for category in &words.categories[..settings.categories] {
        let names = rng.sample(&words.names, settings.motifs);
        for (name, motif) in names.iter().zip(&motifs) {
            let colour = &words.colours[rng.index(words.colours.len())];
            let pattern = &words.captions[rng.index(words.captions.len())];
            let caption = pattern.replace("{colour}", colour).replace("{category}", category).replace("{motif}", motif);
            items.push(Item { id: String::new(), title: format!("{name} {category}"), caption: articles(&caption) });
        }
    }
    // Ids in a random order, so that an id says nothing.
    let mut numbers: Vec<usize> = (1..=items.len()).collect();
    rng.shuffle(&mut numbers);
    for (item, number) in items.iter_mut().zip(numbers) {
        item.id = format!("i{number:04}");
    }
    items
}

/// One customer's purchases in time order.
fn purchases(user: usize, s: &Settings, rng: &mut Rng) -> Vec<Purchase> {
    let taste = rng.index(s.motifs);
    let length = (s.min_items + rng.below(s.max_items - s.min_items + 1)) as usize;
    let mut time = START + rng.below(300 * DAY);
    let mut category = rng.index(s.categories);
    let mut bought: Vec<Purchase> = Vec::with_capacity(length);
    while bought.len() < length {
        let motif = if rng.percent(s.taste_percent) { taste } else { rng.index(s.motifs) };
        let item = category * s.motifs + motif;
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

/// "a" before a vowel becomes "an".
fn articles(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let fixed = words.iter().enumerate().map(|(i, word)| {
        let vowel = words.get(i + 1).is_some_and(|next| next.starts_with(['a', 'e', 'i', 'o', 'u']));
        if *word == "a" && vowel { "an" } else { word }
    });
    fixed.collect::<Vec<_>>().join(" ")
}
