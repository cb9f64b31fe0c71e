//! One reader per input layout: each turns rows of text into interactions and items, and knows nothing of filters.

mod amazon_2014;
mod amazon_json;
mod csv_line;
mod movielens;
mod python_literal;
mod sequences;
mod table;
mod text;

#[cfg(test)]
mod tests;

use super::inputs::Inputs;
use super::intake::Intake;
use crate::Result;
use crate::job::{Dataset, Format};

/// Reads all files of a dataset.
pub(super) fn read(dataset: &Dataset, inputs: &Inputs, intake: &mut Intake) -> Result<()> {
    match dataset.format {
        Format::Movielens => movielens::read(inputs, intake),
        Format::Amazon2014 => amazon_2014::read(inputs, intake),
        Format::Amazon2018 => amazon_json::read(&amazon_json::REVIEWS_2018, inputs, intake),
        Format::Amazon2023 => amazon_json::read(&amazon_json::REVIEWS_2023, inputs, intake),
        Format::Sequences => sequences::read(inputs, intake),
        Format::Table => table::read(dataset, inputs, intake),
    }
}

/// What item metadata means for a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MetadataRule {
    /// Interactions with items that have no title are dropped before anything is counted.
    pub(super) title_required: bool,
    /// A second row for the same item is rejected; otherwise the smallest value of each field counts, so that the order of
    /// the rows does not matter.
    pub(super) one_row_per_item: bool,
}

/// The rule of a dataset. Raw logs come with a catalogue, and what is not in it cannot be shown to anybody; `sequences`
/// were filtered by whoever made them, so that their titles are an addition.
pub(super) fn metadata_rule(dataset: &Dataset) -> MetadataRule {
    match dataset.format {
        Format::Movielens | Format::Amazon2014 | Format::Amazon2018 | Format::Amazon2023 => {
            MetadataRule { title_required: true, one_row_per_item: true }
        }
        Format::Sequences => MetadataRule { title_required: false, one_row_per_item: true },
        Format::Table => MetadataRule { title_required: dataset.columns.title.is_some(), one_row_per_item: false },
    }
}
