//! A model that was trained on another catalogue: which items both know, and under which numbers.

use super::Catalogue;
use crate::{Error, Result};

/// The items of a catalogue that a model knows, numbered anew from 1 in the order of the catalogue; 0 stands for "unknown".
///
/// The order is that of the ids in either numbering, so equal scores are ordered alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownItems {
    /// The catalogue's number → the one among the known.
    numbers: Vec<u32>,
    /// The one among the known → the catalogue's.
    items: Vec<u32>,
}

impl KnownItems {
    /// For a model that was trained on this very catalogue.
    #[must_use]
    pub fn all(catalogue: &Catalogue) -> Self {
        let same: Vec<u32> = (0..=catalogue.len()).collect();
        Self { numbers: same.clone(), items: same }
    }

    /// Matches the ids of a model's items, in the order of its numbers, with a catalogue. Beside what is known come the
    /// model's own numbers of it.
    ///
    /// # Errors
    /// [`Error::RepeatedItem`] if the model has an id twice.
    pub fn new(catalogue: &Catalogue, ids: &[String]) -> Result<(Self, Vec<u32>)> {
        let mut in_model = vec![0; catalogue.len() as usize + 1];
        for (number, id) in (1..).zip(ids) {
            let Some(item) = catalogue.index(id) else { continue };
            if std::mem::replace(&mut in_model[item as usize], number) != 0 {
                return Err(Error::RepeatedItem { item: id.clone() });
            }
        }
        let mut known = Self { numbers: vec![0], items: vec![0] };
        let mut chosen = Vec::new();
        for (item, number) in (1..).zip(&in_model[1..]) {
            if *number == 0 {
                known.numbers.push(0);
                continue;
            }
            chosen.push(*number);
            known.items.push(item);
            known.numbers.push(known.items.len() as u32 - 1);
        }
        Ok((known, chosen))
    }

    /// The number of an item of the catalogue among the known.
    #[must_use]
    pub fn number(&self, item: u32) -> Option<u32> {
        Some(self.numbers[item as usize]).filter(|number| *number != 0)
    }

    /// The item of a number among the known.
    #[must_use]
    pub fn item(&self, number: u32) -> u32 {
        self.items[number as usize]
    }

    /// How many items are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len() - 1
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many items the catalogue has.
    #[must_use]
    pub fn catalogue_len(&self) -> usize {
        self.numbers.len() - 1
    }
}
