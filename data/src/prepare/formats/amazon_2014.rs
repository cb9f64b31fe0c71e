//! Amazon reviews 2014: a headerless ratings CSV (user, item, rating, time in seconds) and metadata with one Python dict a
//! line.

use serde_json::Value;

use super::amazon_json::attributes;
use super::csv_line;
use super::python_literal;
use super::text::{self, WRONG_FIELDS};
use crate::Result;
use crate::input;
use crate::input::Lines;
use crate::prepare::inputs::Inputs;
use crate::prepare::intake::{Intake, Interaction, Place};
use crate::prepare::spool::ItemMeta;

pub(super) fn read(inputs: &Inputs, intake: &mut Intake) -> Result<()> {
    for file in &inputs.interactions {
        let mut lines = Lines::open(file)?;
        while let Some(line) = lines.next()? {
            let at = Place { file: &file.name, line: line.number };
            let fields = line.text.and_then(csv_line::split);
            let row = fields.as_ref().map_err(|e| *e).and_then(|fields| {
                let [user, item, rating, time] = fields.as_slice() else { return Err(WRONG_FIELDS) };
                let (rating, time) = (text::rating(rating)?, text::seconds(time)?);
                Ok(Interaction { user, item, rating: Some(rating), time })
            });
            intake.interaction(at, row)?;
        }
    }
    if let Some(file) = &inputs.items {
        let mut lines = Lines::open(file)?;
        while let Some(line) = lines.next()? {
            let at = Place { file: &file.name, line: line.number };
            match line.text.and_then(|t| python_literal::parse(t).ok_or("not a Python literal")) {
                Ok(Value::Object(row)) => {
                    let text = |key: &str| row.get(key).and_then(Value::as_str);
                    let title = text("title").map(input::one_line);
                    let title = title.as_deref().and_then(text::not_blank);
                    let attributes = attributes(&row, &["brand", "categories", "price"]);
                    let id = text("asin").unwrap_or_default();
                    intake.item(at, Ok(ItemMeta { id, title, image: text("imUrl"), attributes: Some(&attributes) }))?;
                }
                Ok(_) => intake.item(at, Err("not a dict"))?,
                Err(reason) => intake.item(at, Err(reason))?,
            }
        }
    }
    Ok(())
}
