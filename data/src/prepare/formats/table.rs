//! Any CSV or Parquet with one interaction a row and named columns.

use std::borrow::Cow;

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;

use super::text::{self, BAD_RATING};
use crate::Result;
use crate::input;
use crate::input::Reason;
use crate::input::{Cell, NamedColumn, read_columns};
use crate::job::Dataset;
use crate::prepare::inputs::Inputs;
use crate::prepare::intake::{Intake, Interaction, Place};
use crate::prepare::spool::{ItemMeta, Time};

/// Where the cells of a row are, in the order of the columns that were asked for.
struct Layout<'a> {
    columns: Vec<NamedColumn<'a>>,
    time: Option<usize>,
    title: Option<usize>,
    image: Option<usize>,
    rating: Option<usize>,
}

impl<'a> Layout<'a> {
    fn of(dataset: &'a Dataset) -> Self {
        let c = &dataset.columns;
        let mut columns = vec![
            NamedColumn { name: &c.user, key: "dataset.columns.user" },
            NamedColumn { name: &c.item, key: "dataset.columns.item" },
        ];
        let mut optional = |name: &'a Option<String>, key| {
            name.as_deref().map(|name| {
                columns.push(NamedColumn { name, key });
                columns.len() - 1
            })
        };
        let time = optional(&c.time, "dataset.columns.time");
        let title = optional(&c.title, "dataset.columns.title");
        let image = optional(&c.image, "dataset.columns.image");
        let rating = optional(&c.rating, "dataset.columns.rating");
        Self { columns, time, title, image, rating }
    }
}

pub(super) fn read(dataset: &Dataset, inputs: &Inputs, intake: &mut Intake) -> Result<()> {
    let layout = Layout::of(dataset);
    let mut position = 0;
    for file in &inputs.interactions {
        read_columns(file, &layout.columns, &mut |line, cells| {
            position += 1;
            row(&layout, Place { file: &file.name, line }, cells, position, intake)
        })?;
    }
    Ok(())
}

fn row(
    layout: &Layout<'_>,
    at: Place<'_>,
    cells: Result<&[Cell<'_>], Reason>,
    position: i64,
    intake: &mut Intake,
) -> Result<()> {
    let cells = match cells {
        Ok(cells) => cells,
        Err(reason) => return intake.interaction(at, Err(reason)),
    };
    let text = |index: usize| cells[index].text().unwrap_or_default();
    let (user, item) = (text(0), text(1));
    let rating = layout.rating.map(|index| rating(&cells[index])).transpose();
    let time = layout.time.map_or(Ok(Time::Micros(position)), |index| time(&cells[index]));
    let parsed = rating.and_then(|rating| Ok(Interaction { user: &user, item: &item, rating, time: time? }));
    let is_good = parsed.is_ok();
    intake.interaction(at, parsed)?;
    if is_good && (layout.title.is_some() || layout.image.is_some()) {
        let cell = |index: Option<usize>| index.and_then(|i| cells[i].text());
        let (title, image) = (cell(layout.title), cell(layout.image));
        let title: Option<Cow<'_, str>> = title.as_deref().map(input::one_line);
        let title = title.as_deref().and_then(text::not_blank);
        let image = image.as_deref().and_then(text::not_blank);
        intake.item_of_interaction(at, ItemMeta { id: &item, title, image, attributes: None })?;
    }
    Ok(())
}

fn rating(cell: &Cell<'_>) -> Result<f64, Reason> {
    match cell {
        Cell::Int(value) => Ok(*value as f64),
        Cell::Float(value) if value.is_finite() => Ok(*value),
        Cell::Text(text) => text::rating(text),
        _ => Err(BAD_RATING),
    }
}

/// A number of open unit, or a date and time (UTC where it names no zone).
fn time(cell: &Cell<'_>) -> Result<Time, Reason> {
    const BAD: Reason = "time is neither a number nor a date";
    match cell {
        Cell::Micros(value) => Ok(Time::Micros(*value)),
        Cell::Int(value) => Ok(Time::Number(*value)),
        Cell::Float(value) => whole(*value).ok_or(BAD),
        Cell::Text(text) => {
            let text = text.trim();
            let number = || text.parse().ok().map(Time::Number).or_else(|| whole(text.parse().ok()?));
            let date = || string_to_timestamp_nanos(text).ok().map(|nanos| Time::Micros(nanos.div_euclid(1_000)));
            number().or_else(date).ok_or(BAD)
        }
        Cell::Missing => Err(BAD),
    }
}

fn whole(value: f64) -> Option<Time> {
    let in_range = value.is_finite() && value.abs() < 9.0e18;
    in_range.then(|| Time::Number(value.floor() as i64))
}
