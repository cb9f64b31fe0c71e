//! MovieLens: `ratings.csv` and `movies.csv`, UTF-8, with a header.

use std::borrow::Cow;

use super::csv_line;
use super::text::{self, WRONG_FIELDS};
use crate::input;
use crate::input::InputFile;
use crate::input::{Lines, Reason};
use crate::prepare::inputs::Inputs;
use crate::prepare::intake::{Intake, Interaction, Place};
use crate::prepare::spool::ItemMeta;
use crate::{Error, Result};

/// Articles that MovieLens writes behind the title: "Matrix, The".
const ARTICLES: [&str; 23] = [
    "The", "A", "An", "Da", "Das", "Den", "Der", "Det", "Die", "Een", "Ein", "Eine", "El", "Gli", "Il", "L'", "La",
    "Las", "Le", "Les", "Lo", "Los", "Une",
];

pub(super) fn read(inputs: &Inputs, intake: &mut Intake) -> Result<()> {
    for file in &inputs.interactions {
        rows(file, ["userId", "movieId", "rating", "timestamp"], |at, fields| {
            let row = fields
                .and_then(|[user, item, rating, time]| Ok((user, item, text::rating(rating)?, text::seconds(time)?)));
            intake.interaction(
                at,
                row.map(|(user, item, rating, time)| Interaction { user, item, rating: Some(rating), time }),
            )
        })?;
    }
    if let Some(file) = &inputs.items {
        rows(file, ["movieId", "title", "genres"], |at, fields| {
            let row = fields.map(|[id, title, genres]| (id, display_title(title), attributes(genres)));
            match &row {
                Ok((id, title, attributes)) => {
                    let title = text::not_blank(title);
                    intake.item(at, Ok(ItemMeta { id, title, image: None, attributes: Some(attributes) }))
                }
                Err(reason) => intake.item(at, Err(reason)),
            }
        })?;
    }
    Ok(())
}

/// Calls `on_row` with the named columns of every row behind the header.
fn rows<const N: usize>(
    file: &InputFile,
    columns: [&str; N],
    mut on_row: impl FnMut(Place<'_>, Result<[&str; N], Reason>) -> Result<()>,
) -> Result<()> {
    let mut lines = Lines::open(file)?;
    let header = match lines.next()? {
        Some(line) => {
            line.text.and_then(csv_line::split).unwrap_or_default().iter().map(|c| c.trim().to_owned()).collect()
        }
        None => Vec::new(),
    };
    let mut wanted = [0; N];
    for (index, column) in wanted.iter_mut().zip(columns) {
        *index = header.iter().position(|c| c == column).ok_or_else(|| Error::MissingColumn {
            file: file.path.display().to_string(),
            column: column.to_owned(),
            key: "dataset.format".to_owned(),
            present: header.clone(),
        })?;
    }
    while let Some(line) = lines.next()? {
        let at = Place { file: &file.name, line: line.number };
        let fields = line.text.and_then(csv_line::split);
        let fields = fields.and_then(|f| if f.len() == header.len() { Ok(f) } else { Err(WRONG_FIELDS) });
        match &fields {
            Ok(fields) => on_row(at, Ok(wanted.map(|index| fields[index].as_ref())))?,
            Err(reason) => on_row(at, Err(reason))?,
        }
    }
    Ok(())
}

/// `{"genres":["Drama","War"]}` of `Drama|War`.
fn attributes(genres: &str) -> String {
    let genres: Vec<&str> = genres.split('|').map(str::trim).filter(|g| !g.is_empty() && !g.starts_with('(')).collect();
    serde_json::json!({ "genres": genres }).to_string()
}

/// A title as people say it: "Postman, The (Postino, Il) (1994)" → "The Postman (1994)".
///
/// A trailing article moves to the front; parentheses other than the year (an original or alternative title) are dropped; the
/// year is kept. A title that consists of parentheses only stays as it is.
pub(super) fn display_title(raw: &str) -> String {
    let tidy = input::one_line(raw);
    let (name, year) = split_year(&tidy);
    let plain = without_parentheses(name);
    let name = if plain.is_empty() { Cow::Borrowed(name) } else { front_article(&plain) };
    match year {
        Some(year) if name.is_empty() => year.to_owned(),
        Some(year) => format!("{name} {year}"),
        None => name.into_owned(),
    }
}

/// Splits "(1995)" or "(2006–2007)" off the end of a title.
fn split_year(title: &str) -> (&str, Option<&str>) {
    let Some(open) = title.rfind('(') else { return (title, None) };
    let is_year = title[open..].strip_prefix('(').and_then(|t| t.strip_suffix(')')).is_some_and(|inner| {
        let digits = inner.chars().take(4).filter(char::is_ascii_digit).count();
        digits == 4 && inner.chars().all(|c| c.is_ascii_digit() || "-–— ".contains(c))
    });
    if is_year { (title[..open].trim_end(), Some(&title[open..])) } else { (title, None) }
}

fn without_parentheses(name: &str) -> String {
    let mut depth = 0_u32;
    let mut kept = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '(' => depth += 1,
            ')' if depth > 0 => depth -= 1,
            _ if depth == 0 => kept.push(c),
            _ => {}
        }
    }
    input::one_line(&kept).into_owned()
}

fn front_article(name: &str) -> Cow<'_, str> {
    match name.rsplit_once(", ") {
        Some((rest, article)) if ARTICLES.contains(&article) => {
            let gap = if article.ends_with('\'') { "" } else { " " };
            Cow::Owned(format!("{article}{gap}{rest}"))
        }
        _ => Cow::Borrowed(name),
    }
}
