//! A small dataset in the MovieLens layout, the same at every call, with the awkward rows that real logs have.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Users with enough items to be kept.
pub const USERS: usize = 120;
/// Items that can be used.
pub const ITEMS: usize = 60;
/// A user with two items, too few to hold two out.
pub const SHORT_USER: &str = "short";
/// The rows that must be rejected: file and line.
pub const REJECTED: [(&str, u64); 5] =
    [("movies.csv", 62), ("movies.csv", 63), ("ratings.csv", 2), ("ratings.csv", 3), ("ratings.csv", 4)];

const MOODS: [&str; 10] =
    ["Quiet", "Crimson", "Hollow", "Distant", "Golden", "Frozen", "Restless", "Second", "Paper", "Midnight"];
const THINGS: [&str; 6] = ["Harbour", "Orchard", "Lantern", "Verdict", "Compass", "Sparrow"];

/// Writes `ratings.csv` and `movies.csv` into a folder.
///
/// Every user walks through the catalogue in a loop from a place of its own and skips now and then, so that the next item
/// can be learnt. Beside them there is [`SHORT_USER`], three malformed ratings, an item whose title is not UTF-8 (with
/// ratings, which are dropped) and an item row with too many fields.
///
/// # Panics
/// If the folder cannot be written.
pub fn write(folder: &Path) {
    std::fs::create_dir_all(folder).expect("the folder can be made");
    std::fs::write(folder.join("movies.csv"), movies()).expect("movies.csv can be written");
    std::fs::write(folder.join("ratings.csv"), ratings()).expect("ratings.csv can be written");
}

/// Writes the same interactions as a CSV of other columns: `customer`, `article`, `when`, `name`.
///
/// # Panics
/// If the file cannot be written.
#[must_use]
pub fn write_table(folder: &Path) -> PathBuf {
    std::fs::create_dir_all(folder).expect("the folder can be made");
    let mut text = "customer,article,when,name\n".to_owned();
    for user in 0..USERS {
        for (place, item) in walk(user).into_iter().enumerate() {
            let _ = writeln!(text, "c{user},a{item},{},{}", time(user, place), title(item));
        }
    }
    let path = folder.join("interactions.csv");
    std::fs::write(&path, text).expect("interactions.csv can be written");
    path
}

fn movies() -> Vec<u8> {
    let mut text = "movieId,title,genres\n".to_owned();
    for item in 0..ITEMS {
        let _ = writeln!(text, "{},{},Drama", item + 1, title(item));
    }
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(b"998,Caf\xe9 (1999),Drama\n"); // Latin-1, in line 62
    bytes.extend_from_slice(b"999,Unquoted, with a comma (2001),Drama\n");
    bytes
}

fn ratings() -> String {
    let mut text = "userId,movieId,rating,timestamp\n".to_owned();
    text.push_str("1,2,excellent,946684800\n1,2\n1,2,4.0,yesterday\n");
    for user in 0..USERS {
        for (place, item) in walk(user).into_iter().enumerate() {
            let _ = writeln!(text, "{},{},{}.0,{}", user + 1, item + 1, 1 + (user + item) % 5, time(user, place));
        }
    }
    let _ = writeln!(text, "{SHORT_USER},1,5.0,946684800\n{SHORT_USER},2,5.0,946684801");
    text.push_str("1,998,5.0,946684800\n2,998,5.0,946684800\n");
    text
}

pub(crate) fn title(item: usize) -> String {
    format!("The {} {} ({})", MOODS[item % 10], THINGS[item / 10], 1960 + item)
}

fn time(user: usize, place: usize) -> usize {
    946_684_800 + 1_000 * user + 60 * place
}

/// The items of a user in time order, each once.
pub(crate) fn walk(user: usize) -> Vec<usize> {
    let mut random = Random(user as u64 + 1);
    let length = 8 + random.below(13);
    let mut item = random.below(ITEMS);
    let (mut items, mut seen) = (Vec::new(), BTreeSet::new());
    while items.len() < length {
        if seen.insert(item) {
            items.push(item);
        }
        let skip = if random.below(5) == 0 { 1 + random.below(6) } else { 0 };
        item = (item + 1 + skip) % ITEMS;
    }
    items
}

/// Numbers that look random and are the same everywhere (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}
