//! A pass under way.

use super::blocks::Purpose;
use super::log::{Allocation, Log};
use crate::Result;
use crate::cuda::operation::Fit;
use crate::cuda::{Address, Operation};

/// ```text
/// begin ──> Recording ── memory is short, or the device fails ──> Plain
///   └─────> Replaying ── something else is asked for ──> Recording
///               └─────── the device fails ──> Plain
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// What is asked for is executed and logged.
    Recording,
    /// What is asked for is compared with the log, and waits until all of its stretch was asked for.
    Replaying,
    /// What is asked for is executed, and the log is lost.
    Plain,
}

#[derive(Debug)]
pub(super) struct Pass {
    pub(super) mode: Mode,
    pub(super) log: Log,
    /// Operations of the log that were asked for.
    pub(super) met: usize,
    /// Allocations of the log that were asked for.
    pub(super) allocated: usize,
    /// The stretch of the next operation. Those of it that were met wait.
    pub(super) stretch: usize,
    /// Memory that was given back while operations waited, which may use it.
    pub(super) freed: Vec<Address>,
    /// Why the log did not fit.
    pub(super) difference: Option<String>,
}

impl Pass {
    /// With the log of an earlier pass, or without.
    pub(super) fn new(log: Option<Log>) -> Self {
        let mode = if log.is_some() { Mode::Replaying } else { Mode::Recording };
        let log = log.unwrap_or_default();
        Self { mode, log, met: 0, allocated: 0, stretch: 0, freed: Vec::new(), difference: None }
    }

    /// The operations that wait.
    pub(super) fn waiting(&self) -> std::ops::Range<usize> {
        if self.mode == Mode::Replaying { self.log.begin(self.stretch)..self.met } else { 0..0 }
    }

    /// Compares an operation with the next of the log; one that runs a kernel with other arguments changes the log, and its
    /// graph.
    ///
    /// # Errors
    /// Says what differs.
    pub(super) fn meet(&mut self, asked: &Operation<'_>) -> Result<(), String> {
        let begin = self.log.begin(self.stretch);
        let Some(recorded) = self.log.operations.get_mut(self.met) else {
            return Err(format!("{asked} is asked for behind the end of what was recorded"));
        };
        match (recorded.fit(asked), asked) {
            (Fit::Same, _) => {}
            (Fit::Arguments, Operation::Launch { arguments, .. }) => {
                if let Some(graph) = &mut self.log.stretches[self.stretch].graph {
                    let refused = |e| format!("{asked} does not take other arguments: {e}");
                    graph.change(self.met - begin, arguments).map_err(refused)?;
                }
                recorded.set_arguments(arguments);
            }
            _ => return Err(format!("{asked} is asked for where there was {recorded}")),
        }
        self.met += 1;
        Ok(())
    }

    /// The next allocation of the log.
    ///
    /// # Errors
    /// Says what differs.
    pub(super) fn next_allocation(&self, purpose: Purpose, bytes: usize) -> Result<Address, String> {
        match self.log.allocations.get(self.allocated) {
            Some(recorded) if (recorded.purpose, recorded.bytes) == (purpose, bytes) => Ok(recorded.address),
            Some(Allocation { bytes: were, .. }) => Err(format!("{bytes} bytes are asked for where {were} were")),
            None => Err(format!("{bytes} bytes are asked for behind the end of what was recorded")),
        }
    }

    /// Goes on as a recording that begins with what was asked for so far, and has been executed; the stretch that was under
    /// way goes on too.
    pub(super) fn depart(&mut self, stretch: usize, difference: String) {
        self.mode = Mode::Recording;
        self.log.operations.truncate(self.met);
        self.log.allocations.truncate(self.allocated);
        self.log.stretches.truncate(stretch);
        self.difference = Some(difference);
    }
}
