//! Ready-made sequences: one user and its items in time order a line, separated by white space, and perhaps a `titles.tsv`
//! with an item and its title a line. Times are positions in the sequence.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::text;
use crate::Result;
use crate::input;
use crate::input::Lines;
use crate::prepare::inputs::Inputs;
use crate::prepare::intake::{Intake, Interaction, Place};
use crate::prepare::spool::{ItemMeta, Time};

pub(super) fn read(inputs: &Inputs, intake: &mut Intake) -> Result<()> {
    // Sixteen bytes a user: whole ids would take the memory of the largest populations.
    let mut users: HashSet<[u64; 2]> = HashSet::new();
    for file in &inputs.interactions {
        let mut lines = Lines::open(file)?;
        while let Some(line) = lines.next()? {
            let at = Place { file: &file.name, line: line.number };
            let words = line.text.map(str::split_whitespace);
            let (user, items) = match words {
                Ok(mut words) => (words.next().unwrap_or_default(), words),
                Err(reason) => {
                    intake.interaction(at, Err(reason))?;
                    continue;
                }
            };
            if user.is_empty() || items.clone().next().is_none() {
                intake.interaction(at, Err("a user without items"))?;
            } else if !users.insert([fingerprint(0, user), fingerprint(1, user)]) {
                intake.interaction(at, Err("user is listed twice"))?;
            } else {
                for (position, item) in items.enumerate() {
                    let time = Time::Micros(i64::try_from(position).unwrap_or(i64::MAX));
                    intake.interaction(at, Ok(Interaction { user, item, rating: None, time }))?;
                }
            }
        }
    }
    if let Some(file) = &inputs.items {
        let mut lines = Lines::open(file)?;
        while let Some(line) = lines.next()? {
            let at = Place { file: &file.name, line: line.number };
            match line.text {
                Ok(line) => match line.split_once('\t') {
                    Some((id, title)) => {
                        let title = input::one_line(title);
                        intake.item(at, Ok(ItemMeta { id, title: text::not_blank(&title), ..ItemMeta::default() }))?;
                    }
                    None => intake.item(at, Err(text::WRONG_FIELDS))?,
                },
                Err(reason) => intake.item(at, Err(reason))?,
            }
        }
    }
    Ok(())
}

/// Half of a 128-bit fingerprint; it only tells ids apart within one run.
fn fingerprint(key: u64, id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, id).hash(&mut hasher);
    hasher.finish()
}
