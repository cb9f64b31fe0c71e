//! The two processes that take turns on the card: ours, and the twin in Python.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::case::{Case, Peer};
use super::outcome::Outcome;
use super::{Options, Place};
use crate::contest::Contestant;

/// A command; the twin's script knows the same. What has no `peer` is for ours.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum Order {
    /// Say what you are made of.
    About,
    /// Make inputs, do the case once and compare what comes out with a reference.
    Prepare { case: Case, peer: Option<Peer> },
    /// Do it so many times, wait for the device once, and say how long one took.
    Time { peer: Option<Peer>, repeats: usize },
    /// Give back what is of this case alone.
    Release,
}

/// Whatever an order asks for.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    /// Why this cannot be done here and is not to be expected: a package is missing, an operation is not on a device yet.
    pub(super) absent: Option<String>,
    /// What went wrong.
    pub(super) failed: Option<String>,
    /// Whether the device is lost to the process.
    pub(super) lost: bool,
    /// Of one repetition.
    pub(super) milliseconds: f64,
    /// How far the result is from the reference; the case says in what.
    pub(super) error: Option<f64>,
    /// What comes out, where all contestants of the case have the same weights and inputs.
    pub(super) outcome: Option<Outcome>,
    /// Names and versions.
    pub(super) about: BTreeMap<String, String>,
}

/// One of the two, started when it is first needed and again after it has ended.
pub(super) struct Side {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    running: Option<Contestant>,
}

impl Side {
    /// Ours: this program once more.
    pub(super) fn ours(place: Place) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let args = vec!["gpu-contestant".to_owned(), place.name().to_owned()];
        Ok(Self { name: "mllm4rec", program, args, running: None })
    }

    /// The twin, if a Python was given.
    pub(super) fn theirs(options: &Options) -> Option<Self> {
        let program = options.python.clone()?;
        let twin = options.project.join("bench/twins/gpu.py");
        let device = if options.device == Place::Cuda { "cuda" } else { "cpu" };
        let args = vec![twin.display().to_string(), device.to_owned()];
        Some(Self { name: "the Python twin", program, args, running: None })
    }

    /// Asks for something. A side that has ended or lost its device is started anew for the next order.
    pub(super) fn ask(&mut self, order: &Order) -> Answer {
        let answer = self.try_ask(order);
        let answer =
            answer.unwrap_or_else(|e| Answer { failed: Some(format!("{e:#}")), lost: true, ..Answer::default() });
        if answer.lost {
            self.stop();
        }
        answer
    }

    fn try_ask(&mut self, order: &Order) -> Result<Answer> {
        let contestant = match &mut self.running {
            Some(running) => running,
            none => none.insert(Contestant::start(self.name, Command::new(&self.program).args(&self.args))?),
        };
        contestant.ask(order)
    }

    /// Ends the process: all memory of the card that it held is free then.
    pub(super) fn stop(&mut self) {
        self.running = None;
    }
}
