//! Amazon reviews 2018 and 2023: JSON lines for reviews and for metadata; the two differ in names, units and images.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::text::{self, BAD_RATING, BAD_TIME, SECOND};
use crate::Result;
use crate::input;
use crate::input::{Lines, Reason};
use crate::prepare::inputs::Inputs;
use crate::prepare::intake::{Intake, Interaction, Place};
use crate::prepare::spool::{ItemMeta, Time};

/// What distinguishes an edition.
pub(super) struct Edition {
    review: fn(&Review) -> Fields<'_>,
    micros_per_unit: i64,
    id: &'static str,
    attributes: &'static [&'static str],
    image: fn(&Map<String, Value>) -> Option<&str>,
}

/// The edition of 2018.
pub(super) const REVIEWS_2018: Edition = Edition {
    review: |r| Fields { user: &r.reviewer_id, item: &r.asin, rating: &r.overall, time: &r.unix_review_time },
    micros_per_unit: SECOND,
    id: "asin",
    attributes: &["brand", "category", "price"],
    image: image_2018,
};

/// The edition of 2023.
pub(super) const REVIEWS_2023: Edition = Edition {
    review: |r| Fields { user: &r.user_id, item: &r.parent_asin, rating: &r.rating, time: &r.timestamp },
    micros_per_unit: 1_000,
    id: "parent_asin",
    attributes: &["store", "main_category", "categories", "price"],
    image: image_2023,
};

/// The fields of a review of either edition that matter here; its text is skipped without being copied.
#[derive(Deserialize)]
pub(super) struct Review {
    #[serde(rename = "reviewerID")]
    reviewer_id: Option<Value>,
    user_id: Option<Value>,
    asin: Option<Value>,
    parent_asin: Option<Value>,
    overall: Option<Value>,
    rating: Option<Value>,
    #[serde(rename = "unixReviewTime")]
    unix_review_time: Option<Value>,
    timestamp: Option<Value>,
}

struct Fields<'a> {
    user: &'a Option<Value>,
    item: &'a Option<Value>,
    rating: &'a Option<Value>,
    time: &'a Option<Value>,
}

pub(super) fn read(edition: &Edition, inputs: &Inputs, intake: &mut Intake) -> Result<()> {
    for file in &inputs.interactions {
        let mut lines = Lines::open(file)?;
        while let Some(line) = lines.next()? {
            let at = Place { file: &file.name, line: line.number };
            let review: Result<Review, Reason> =
                line.text.and_then(|t| serde_json::from_str(t).map_err(|_| "not a JSON object"));
            let row = review.as_ref().map_err(|e| *e).and_then(|r| interaction(edition, (edition.review)(r)));
            intake.interaction(at, row)?;
        }
    }
    if let Some(file) = &inputs.items {
        let mut lines = Lines::open(file)?;
        while let Some(line) = lines.next()? {
            let at = Place { file: &file.name, line: line.number };
            let row: Result<Map<String, Value>, Reason> =
                line.text.and_then(|t| serde_json::from_str(t).map_err(|_| "not a JSON object"));
            match &row {
                Ok(row) => item(edition, at, row, intake)?,
                Err(reason) => intake.item(at, Err(reason))?,
            }
        }
    }
    Ok(())
}

fn interaction<'a>(edition: &Edition, fields: Fields<'a>) -> Result<Interaction<'a>, Reason> {
    let user = fields.user.as_ref().and_then(Value::as_str).ok_or("no user id")?;
    let item = fields.item.as_ref().and_then(Value::as_str).ok_or("no item id")?;
    let rating = fields.rating.as_ref().and_then(number).ok_or(BAD_RATING)?;
    let time = fields.time.as_ref().and_then(whole_number);
    let time = time.and_then(|t| Time::from_units(t, edition.micros_per_unit)).ok_or(BAD_TIME)?;
    Ok(Interaction { user, item, rating: Some(rating), time })
}

fn item(edition: &Edition, at: Place<'_>, row: &Map<String, Value>, intake: &mut Intake) -> Result<()> {
    let title = row.get("title").and_then(Value::as_str).map(input::one_line);
    let title = title.as_deref().and_then(text::not_blank);
    let attributes = attributes(row, edition.attributes);
    let id = row.get(edition.id).and_then(Value::as_str).unwrap_or_default();
    intake.item(at, Ok(ItemMeta { id, title, image: (edition.image)(row), attributes: Some(&attributes) }))
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn whole_number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// The first picture, in high resolution where there is one.
fn image_2018(row: &Map<String, Value>) -> Option<&str> {
    let first = |key: &str| match row.get(key)? {
        Value::Array(urls) => urls.iter().find_map(Value::as_str),
        other => other.as_str(),
    };
    first("imageURLHighRes").or_else(|| first("imageURL")).and_then(text::not_blank)
}

/// The main picture, else the first, in the highest resolution that it has.
fn image_2023(row: &Map<String, Value>) -> Option<&str> {
    let images = row.get("images")?.as_array()?;
    let is_main = |image: &&Value| image.get("variant").and_then(Value::as_str) == Some("MAIN");
    let image = images.iter().find(is_main).or(images.first())?;
    ["hi_res", "large", "thumb"].iter().find_map(|size| image.get(size)?.as_str()).and_then(text::not_blank)
}

/// The named fields of a row as one JSON object; empty ones are left out.
pub(super) fn attributes(row: &Map<String, Value>, keys: &[&str]) -> String {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(values) => values.is_empty(),
        _ => false,
    };
    let kept = |key: &&str| row.get(*key).filter(|v| !is_empty(v)).map(|v| ((*key).to_owned(), v.clone()));
    Value::Object(keys.iter().filter_map(kept).collect()).to_string()
}
