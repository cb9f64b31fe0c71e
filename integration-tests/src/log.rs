//! The interactions of [`crate::shop`] as rows that a test changes: what a shop's log looks like another day.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::shop;

/// Users with the items that they met, in time order, and the titles of items.
#[derive(Clone, Debug)]
pub struct Log {
    /// user id → item ids, oldest first.
    pub users: BTreeMap<String, Vec<u32>>,
    /// item id → title.
    pub titles: BTreeMap<u32, String>,
}

impl Log {
    /// What the shop's files hold, without their awkward rows.
    #[must_use]
    pub fn of_the_shop() -> Self {
        Self::of_users(shop::USERS)
    }

    /// The same shop with another number of users.
    #[must_use]
    pub fn of_users(users: usize) -> Self {
        let ids = |items: Vec<usize>| items.into_iter().map(|item| item as u32 + 1).collect();
        Self {
            users: (0..users).map(|user| ((user + 1).to_string(), ids(shop::walk(user)))).collect(),
            titles: (0..shop::ITEMS).map(|item| (item as u32 + 1, shop::title(item))).collect(),
        }
    }

    /// The items of a user, to be changed.
    ///
    /// # Panics
    /// If there is no such user.
    pub fn of(&mut self, user: &str) -> &mut Vec<u32> {
        self.users.get_mut(user).expect("the log has this user")
    }

    /// Writes the log in the MovieLens layout.
    ///
    /// # Panics
    /// If the folder cannot be written.
    pub fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).expect("the folder can be made");
        let (mut movies, mut ratings) =
            ("movieId,title,genres\n".to_owned(), "userId,movieId,rating,timestamp\n".to_owned());
        for (item, title) in &self.titles {
            let _ = writeln!(movies, "{item},{title},Drama");
        }
        for (user, items) in &self.users {
            for (place, item) in items.iter().enumerate() {
                let _ = writeln!(ratings, "{user},{item},4.0,{}", 946_684_800 + 60 * place);
            }
        }
        std::fs::write(folder.join("movies.csv"), movies).expect("movies.csv can be written");
        std::fs::write(folder.join("ratings.csv"), ratings).expect("ratings.csv can be written");
    }
}
