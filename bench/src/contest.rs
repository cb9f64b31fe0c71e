//! Contestants: child processes that read one JSON command a line and answer with one JSON object a line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};
use serde::{Serialize, de::DeserializeOwned};

/// A child process that works when it is told to, and waits otherwise.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Contestant {
    /// Starts a contestant. Threads that wait between turns must sleep, or they would take the others' processor.
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .env("OMP_WAIT_POLICY", "passive")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let commands = child.stdin.take().context("the child has no input")?;
        let answers = BufReader::new(child.stdout.take().context("the child has no output")?);
        Ok(Self { name, child, commands, answers })
    }

    /// Sends a command and waits for the answer.
    pub(crate) fn ask<A: DeserializeOwned>(&mut self, command: &impl Serialize) -> Result<A> {
        serde_json::to_writer(&mut self.commands, command)?;
        self.commands.write_all(b"\n").with_context(|| format!("{} has ended", self.name))?;
        self.commands.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("{} ended or answered {line:?}", self.name))
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        // Nothing is lost with a contestant.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other side: answers every command of standard input until it ends.
pub(crate) fn serve<C: DeserializeOwned, A: Serialize>(mut answer: impl FnMut(C) -> Result<A>) -> Result<()> {
    for line in std::io::stdin().lines() {
        let answer = answer(serde_json::from_str(&line?).context("this is no command")?)?;
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &answer)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}
