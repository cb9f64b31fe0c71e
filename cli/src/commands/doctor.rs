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
            let needed = if library.needed { "" } else { ", and nothing needs it yet" };
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
