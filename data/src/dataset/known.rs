//! A model that was trained on another catalogue: which items both know, and under which numbers.

use super::Catalogue;
use crate::{Error, Result};

/// Items of a catalogue as a model numbers them. Numbers begin at 1; 0 stands for "not there".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownItems {
    /// The catalogue's number → the model's.
    in_model: Vec<u32>,
    /// The model's number → the catalogue's.
    in_catalogue: Vec<u32>,
    /// The model's numbers of items that the catalogue lacks, ascending.
    lacking: Vec<u32>,
}

impl KnownItems {
    /// For a model that was trained on this very catalogue.
    #[must_use]
    pub fn all(catalogue: &Catalogue) -> Self {
        let same: Vec<u32> = (0..=catalogue.len()).collect();
        Self { in_model: same.clone(), in_catalogue: same, lacking: Vec::new() }
    }

    /// Matches the ids of a model's items, in the order of its numbers, with a catalogue.
    ///
    /// # Errors
    /// [`Error::RepeatedItem`] if the model has an id twice.
    pub fn new(catalogue: &Catalogue, ids: &[String]) -> Result<Self> {
        let mut known = Self {
            in_model: vec![0; catalogue.len() as usize + 1],
            in_catalogue: vec![0; ids.len() + 1],
            lacking: Vec::new(),
        };
        for (number, id) in (1..).zip(ids) {
            match catalogue.index(id) {
                None => known.lacking.push(number),
                Some(item) if known.in_model[item as usize] != 0 => {
                    return Err(Error::RepeatedItem { item: id.clone() });
                }
                Some(item) => {
                    known.in_model[item as usize] = number;
                    known.in_catalogue[number as usize] = item;
                }
            }
        }
        Ok(known)
    }

    /// Whether the model knows an item of the catalogue.
    #[must_use]
    pub fn knows(&self, item: u32) -> bool {
        self.in_model[item as usize] != 0
    }

    /// The model's number of an item of the catalogue.
    #[must_use]
    pub fn in_model(&self, item: u32) -> Option<u32> {
        Some(self.in_model[item as usize]).filter(|number| *number != 0)
    }

    /// The catalogue's number of one of the model's items that the catalogue has; 0 for one that it lacks.
    #[must_use]
    pub fn in_catalogue(&self, number: u32) -> u32 {
        self.in_catalogue[number as usize]
    }

    /// The model's numbers of items that the catalogue lacks, ascending.
    #[must_use]
    pub fn lacking(&self) -> &[u32] {
        &self.lacking
    }

    /// How many items both know.
    #[must_use]
    pub fn shared(&self) -> u32 {
        u32::try_from(self.in_catalogue.len() - 1 - self.lacking.len()).unwrap_or(u32::MAX)
    }

    /// How many items the catalogue has.
    #[must_use]
    pub fn catalogue_len(&self) -> u32 {
        u32::try_from(self.in_model.len() - 1).unwrap_or(u32::MAX)
    }
}
