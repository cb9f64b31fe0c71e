//! The items of a dataset, numbered.

use crate::tables::{HistoryRow, ItemRow};
use crate::{Error, Result};

/// The items of a dataset in byte order of their ids, numbered 1..=N; 0 is padding inside the models.
///
/// Since numbers follow ids, "ties by item id" and "ties by number" are the same order.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    items: Vec<ItemRow>,
}

impl Catalogue {
    /// Numbers the rows of an items table.
    ///
    /// # Errors
    /// [`Error::ItemOrder`] if they are not sorted by id without repetitions.
    pub fn new(items: Vec<ItemRow>) -> Result<Self> {
        match items.windows(2).find(|pair| pair[0].item_id >= pair[1].item_id) {
            None => Ok(Self { items }),
            Some(pair) => Err(Error::ItemOrder { first: pair[0].item_id.clone(), second: pair[1].item_id.clone() }),
        }
    }

    /// How many items there are; also the largest number.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.items.len()).expect("fewer than 2^32 items fit into memory")
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The number of an id, from 1.
    #[must_use]
    pub fn index(&self, id: &str) -> Option<u32> {
        let at = self.items.binary_search_by(|item| item.item_id.as_str().cmp(id)).ok()?;
        u32::try_from(at + 1).ok()
    }

    /// The item of a number.
    ///
    /// # Panics
    /// If the number is 0 or larger than [`Self::len`]: numbers come from this catalogue.
    #[must_use]
    pub fn item(&self, index: u32) -> &ItemRow {
        &self.items[index as usize - 1]
    }

    /// The id of a number; see [`Self::item`].
    #[must_use]
    pub fn id(&self, index: u32) -> &str {
        &self.item(index).item_id
    }

    /// The title of a number; see [`Self::item`].
    #[must_use]
    pub fn title(&self, index: u32) -> &str {
        &self.item(index).title
    }

    /// All items in the order of their numbers.
    #[must_use]
    pub fn items(&self) -> &[ItemRow] {
        &self.items
    }

    /// The numbers of a user's items, in time order.
    ///
    /// # Errors
    /// [`Error::UnknownItem`] naming user and item.
    pub fn encode(&self, history: &HistoryRow) -> Result<Vec<u32>> {
        let number = |id: &String| {
            self.index(id).ok_or_else(|| Error::UnknownItem { user: history.user_id.clone(), item: id.clone() })
        };
        history.items.iter().map(number).collect()
    }
}
