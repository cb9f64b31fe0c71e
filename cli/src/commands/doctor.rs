//! `mllm4rec doctor`: what this machine can compute with, and what is missing.

use anyhow::Result;
use serde_json::{Value, json};
use worker::devices::{self, CardReport, Inspection, Lacking, Library, Wish};

use crate::args::Doctor;
use crate::exit;
use crate::terminal::print;

/// Looks at the machine and tries every GPU.
pub(crate) fn run(args: &Doctor) -> Result<u8> {
    let found = devices::inspect();
    if args.json {
        print(format_args!("{:#}", as_json(&found)));
    } else {
        let verdict = verdict(&found)?;
        let lines = [processor(&found), libraries(&found), cards(&found), verdict];
        print(lines.join("\n\n"));
    }
    Ok(exit::DONE)
}

fn processor(found: &Inspection) -> String {
    let cpu = &found.processor;
    let memory = match (cpu.memory_bytes, cpu.available_bytes) {
        (Some(all), Some(free)) => format!(", {} of {} memory available", size(free), size(all)),
        (Some(all), None) => format!(", {} memory", size(all)),
        _ => String::new(),
    };
    format!("processor\n  {}: {} threads, {}{memory}", cpu.name, cpu.threads, cpu.instructions)
}

fn libraries(found: &Inspection) -> String {
    let mut lines = vec!["CUDA's libraries".to_owned()];
    lines.extend(found.libraries.iter().map(library));
    lines.extend(found.misnamed_folders.iter().map(|said| format!("  {said}")));
    lines.join("\n")
}

fn library(library: &Library) -> String {
    let said = match &library.found {
        Ok(opened) => {
            let version = opened.version.as_deref().unwrap_or("of unknown version");
            format!("{version}, {}", opened.path.display())
        }
        Err(lacking) => {
            // What the loader says of a library that is nowhere says no more than that.
            let (how, wrong) = match lacking {
                Lacking::Absent(_) => ("missing", String::new()),
                Lacking::Unusable(said) => ("not usable", format!("\n  {:<12} {said}", "")),
            };
            let needed = if library.needed { "" } else { ", and only cards that train together need it" };
            format!("{how}{needed}: it comes with {}{wrong}", library.brought_by)
        }
    };
    format!("  {:<12} {said}", library.name)
}

fn cards(found: &Inspection) -> String {
    let release = found.driver_release.as_ref().map(|release| format!(", kernel module {release}"));
    let mut lines = vec![format!("GPUs{}", release.unwrap_or_default())];
    if found.cards.is_empty() {
        lines.push("  none".to_owned());
    }
    lines.extend(found.cards.iter().map(card));
    lines.join("\n")
}

fn card(report: &CardReport) -> String {
    let card = &report.card;
    let free = report.free_bytes.map(|bytes| format!("{} of ", size(bytes))).unwrap_or_default();
    let works = match &report.problem {
        None => "a kernel was compiled and run on it".to_owned(),
        Some(problem) => format!("NOT usable: {problem}"),
    };
    let (major, minor) = card.capability;
    format!(
        "  cuda:{} {}, compute capability {major}.{minor}, {free}{} memory free\n    {works}",
        card.number,
        card.name,
        size(card.memory_bytes)
    )
}

/// What a run without `--devices` would use.
fn verdict(found: &Inspection) -> Result<String> {
    let choice = devices::choose_from(Wish::Auto, &found.usable, &found.misnamed_folders)?;
    let places: Vec<String> = choice.places.iter().map(ToString::to_string).collect();
    let note = choice.note.map(|note| format!(" ({note})")).unwrap_or_default();
    let remedy = found.usable.as_ref().err().and_then(|why| why.remedy().map(|remedy| format!("{why}: {remedy}")));
    let advice = remedy.map(|remedy| format!("\n  for a GPU: {remedy}")).unwrap_or_default();
    Ok(format!("without --devices a run computes on {}{note}{advice}", places.join(", ")))
}

/// Bytes in GiB, as people count memory.
fn size(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

fn as_json(found: &Inspection) -> Value {
    let cpu = &found.processor;
    let libraries = found.libraries.iter().map(|library| {
        let opened = library.found.as_ref();
        json!({
            "name": library.name,
            "needed": library.needed,
            "path": opened.ok().map(|opened| &opened.path),
            "version": opened.ok().and_then(|opened| opened.version.as_ref()),
            "missing": opened.err().map(Lacking::said),
            "absent": matches!(opened, Err(Lacking::Absent(_))),
            "brought_by": library.brought_by,
        })
    });
    let cards = found.cards.iter().map(|report| {
        let card = &report.card;
        json!({
            "device": format!("cuda:{}", card.number),
            "name": card.name,
            "compute_capability": [card.capability.0, card.capability.1],
            "memory_bytes": card.memory_bytes,
            "free_bytes": report.free_bytes,
            "problem": report.problem,
        })
    });
    json!({
        "processor": {
            "name": cpu.name,
            "threads": cpu.threads,
            "instructions": cpu.instructions,
            "memory_bytes": cpu.memory_bytes,
            "available_bytes": cpu.available_bytes,
        },
        "driver_release": found.driver_release,
        "libraries": libraries.collect::<Vec<_>>(),
        "misnamed_folders": found.misnamed_folders,
        "gpus": cards.collect::<Vec<_>>(),
        "usable": found.usable.is_ok(),
        "reason": found.usable.as_ref().err().map(ToString::to_string),
        "remedy": found.usable.as_ref().err().and_then(|why| why.remedy()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use worker::devices::Card;

    use super::*;

    /// The keys of a report, those of objects in lists behind `[]`.
    fn keys(value: &Value, path: &str, into: &mut BTreeSet<String>) {
        let objects = value.as_array().filter(|list| list.iter().any(Value::is_object));
        if let Some(objects) = objects {
            objects.iter().for_each(|object| keys(object, &format!("{path}[]"), into));
        } else if let Some(object) = value.as_object() {
            let dot = if path.is_empty() { "" } else { "." };
            object.iter().for_each(|(key, value)| keys(value, &format!("{path}{dot}{key}"), into));
        } else {
            into.insert(path.to_owned());
        }
    }

    #[test]
    fn every_key_is_documented_and_every_documented_key_is_there() {
        let document = include_str!("../../../docs/outputs.md");
        let (_, section) = document.split_once("\n## doctor\n").expect("outputs.md has a section about it");
        let table =
            section.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with('|'));
        let documented = table.filter_map(|row| row.split('`').nth(1)).map(str::to_owned).collect();
        let mut found = devices::inspect();
        // Of this machine, and a GPU, which not every machine has.
        let card = Card { number: 0, name: "H100".to_owned(), capability: (9, 0), memory_bytes: 80 << 30 };
        found.cards.push(CardReport { card, free_bytes: None, problem: None });
        let mut printed = BTreeSet::new();
        keys(&as_json(&found), "", &mut printed);
        assert_eq!(printed, documented);
    }
}
