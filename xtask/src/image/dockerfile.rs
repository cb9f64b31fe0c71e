//! As much of a Dockerfile as is needed to do its steps without an engine.

use anyhow::{Context, Result, bail};

/// An instruction, its lines joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A stage: what it begins with, and what is done to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) from: String,
    pub(crate) instructions: Vec<Instruction>,
}

/// The stages of a file, in order.
///
/// # Errors
/// If an instruction comes before every stage that is no argument, or a stage has no name.
pub(crate) fn stages(text: &str) -> Result<Vec<Stage>> {
    let mut stages: Vec<Stage> = Vec::new();
    for Instruction { name, text } in instructions(text) {
        match (name.as_str(), stages.last_mut()) {
            ("FROM", _) => {
                let (from, name) = text.split_once(" AS ").with_context(|| format!("FROM {text} has no name"))?;
                stages.push(Stage { name: name.to_owned(), from: from.to_owned(), instructions: Vec::new() });
            }
            ("ARG", None) => {}
            (_, Some(stage)) => stage.instructions.push(Instruction { name, text }),
            (_, None) => bail!("{name} comes before every FROM"),
        }
    }
    Ok(stages)
}

fn instructions(text: &str) -> Vec<Instruction> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty());
    let joined = lines.fold(String::new(), |joined, line| match line.strip_suffix('\\') {
        Some(open) => joined + open,
        None => joined + line + "\n",
    });
    let words = |line: &str| {
        let (name, text) = line.trim().split_once(char::is_whitespace)?;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Some(Instruction { name: name.to_owned(), text })
    };
    joined.lines().filter_map(words).collect()
}

/// The stages that a target is made of, the first one first, and the name of the image below them.
///
/// # Errors
/// If there is no such stage.
pub(crate) fn chain<'a>(stages: &'a [Stage], target: &str) -> Result<Vec<&'a Stage>> {
    let mut chain =
        vec![stages.iter().find(|stage| stage.name == target).with_context(|| format!("no stage {target}"))?];
    while let Some(below) = stages.iter().find(|stage| stage.name == chain[0].from) {
        chain.insert(0, below);
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_made_of_the_stages_below_it() -> Result<()> {
        let text = "ARG X=1\nFROM debian AS base\n# a word\nRUN one \\\n    && two\nUSER 1:1\nFROM rust AS build\nRUN cargo\nFROM base AS end\nCMD [\"x\"]\n";
        let stages = stages(text)?;
        let names: Vec<&str> = chain(&stages, "end")?.iter().map(|stage| stage.name.as_str()).collect();
        assert_eq!(names, ["base", "end"]);
        let run = Instruction { name: "RUN".to_owned(), text: "one && two".to_owned() };
        assert_eq!(stages[0].instructions, [run, Instruction { name: "USER".to_owned(), text: "1:1".to_owned() }]);
        assert!(chain(&stages, "nobody").is_err() && super::stages("RUN x").is_err());
        Ok(())
    }
}
