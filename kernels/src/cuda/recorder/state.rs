//! What is recorded, replayed and executed, and when.

use std::collections::HashMap;
use std::sync::Arc;

use super::blocks::{Blocks, PAGE_BYTES, Purpose, SMALL_BYTES};
use super::log::{Allocation, Log};
use super::outbox::Outbox;
use super::pass::{Mode, Pass};
use crate::cuda::{Address, Driver, Operation, RawStream};
use crate::{Error, Result};

/// A driver, the logs of earlier passes and the pass under way.
///
/// Between two calls, operations that wait are those of the pass's stretch that were met; nothing of them is executed. What
/// is asked for outside of passes and what is not to be replayed goes to the driver at once.
#[derive(Debug)]
pub(super) struct State {
    pass: Option<Pass>,
    logs: HashMap<u64, Log>,
    blocks: Blocks,
    /// Uploads that wait with the operations.
    outbox: Outbox,
    driver: Arc<dyn Driver>,
}

impl State {
    pub(super) fn new(driver: Arc<dyn Driver>) -> Self {
        Self { pass: None, logs: HashMap::new(), blocks: Blocks::default(), outbox: Outbox::default(), driver }
    }

    pub(super) fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    pub(super) fn raw_stream(&self) -> Option<Arc<dyn RawStream>> {
        Arc::clone(&self.driver).raw_stream()
    }

    /// Begins a pass with the log of a recording, if there is one; none begins within another.
    pub(super) fn begin(&mut self, recording: u64) -> bool {
        if self.pass.is_some() {
            return false;
        }
        self.pass = Some(Pass::new(self.logs.remove(&recording)));
        true
    }

    /// Ends the pass and keeps its log; says how it went, and why not otherwise.
    ///
    /// # Errors
    /// Those of the operations that waited. The pass is under way still.
    pub(super) fn end(&mut self, recording: u64) -> Result<(Mode, Option<String>)> {
        self.execute_waiting()?;
        let Some(mut pass) = self.pass.take() else { return Ok((Mode::Plain, None)) };
        self.blocks.end_of_pass();
        match pass.mode {
            Mode::Plain => self.drop_log(pass.log),
            Mode::Replaying => drop(self.logs.insert(recording, pass.log)),
            Mode::Recording => {
                pass.log.end_stretch();
                for address in pass.log.unnamed() {
                    self.let_go(address);
                }
                self.logs.insert(recording, pass.log);
            }
        }
        Ok((pass.mode, pass.difference))
    }

    /// Ends a pass that failed. What it asked for before is executed, as it would have been without a recording.
    pub(super) fn abandon(&mut self) {
        // The pass has an error to tell already.
        let _ = self.execute_waiting();
        if let Some(pass) = self.pass.take() {
            self.blocks.end_of_pass();
            self.drop_log(pass.log);
        }
    }

    /// Forgets a recording.
    pub(super) fn forget(&mut self, recording: u64) {
        if let Some(log) = self.logs.remove(&recording) {
            self.drop_log(log);
        }
    }

    /// Memory, which holds whatever it held.
    pub(super) fn allocate(&mut self, purpose: Purpose, bytes: usize) -> Result<Address> {
        if let Some(pass) = self.pass.as_mut().filter(|pass| pass.mode == Mode::Replaying) {
            match pass.next_allocation(purpose, bytes) {
                Ok(address) if self.blocks.take(address) => {
                    pass.allocated += 1;
                    return Ok(address);
                }
                Ok(_) => self.depart(format!("the {bytes} bytes that are asked for are still in use"))?,
                Err(difference) => self.depart(difference)?,
            }
        }
        let address = match self.find_block(purpose, bytes)? {
            Some(address) => address,
            None => self.allocate_from_driver(bytes)?,
        };
        self.log_allocation(Allocation { address, bytes, purpose });
        Ok(address)
    }

    /// A block that is there, or part of a page, while there is a recording.
    fn find_block(&mut self, purpose: Purpose, bytes: usize) -> Result<Option<Address>> {
        if !self.recording() {
            return Ok(None);
        }
        if let Some(address) = self.blocks.find(purpose, bytes) {
            return Ok(Some(address));
        }
        if purpose == Purpose::Work || bytes > SMALL_BYTES {
            return Ok(None);
        }
        if let Some(address) = self.blocks.carve(bytes) {
            return Ok(Some(address));
        }
        match self.driver.allocate(PAGE_BYTES) {
            Ok(page) => self.blocks.open(page),
            Err(Error::Memory { .. }) => return Ok(None),
            Err(e) => return Err(e),
        }
        Ok(self.blocks.carve(bytes))
    }

    /// Takes down memory that is handed out, if there is a recording: one that had to give way to it is no more.
    fn log_allocation(&mut self, allocation: Allocation) {
        let Some(pass) = self.pass.as_mut().filter(|pass| pass.mode == Mode::Recording) else { return };
        self.blocks.add(allocation);
        pass.log.allocations.push(allocation);
        if pass.log.held.insert(allocation.address) {
            self.blocks.hold(allocation.address);
        }
    }

    /// Numbers of the host, in memory of their own.
    pub(super) fn upload(&mut self, values: &[u8]) -> Result<Address> {
        let address = self.allocate(Purpose::Upload, values.len().max(1))?;
        // Nothing that waits uses a block for uploads that was not live: the copy may go ahead.
        let sent = if self.replaying() && values.len() <= SMALL_BYTES {
            self.outbox.post(address, values, &self.blocks, &*self.driver)
        } else {
            self.driver.write(address, values)
        };
        if sent.is_err() {
            self.free(address);
            self.after_waiting(sent)?;
        }
        Ok(address)
    }

    /// Takes memory back.
    pub(super) fn free(&mut self, address: Address) {
        if let Some(address) = self.blocks.give_back(address, self.pass.is_some()) {
            self.release(address);
        }
    }

    /// Executes an operation, or lets it wait for the rest of its stretch.
    ///
    /// # Safety
    /// As [`Operation::issue`].
    pub(super) unsafe fn ask(&mut self, operation: Operation<'_>) -> Result<()> {
        if let Some(pass) = self.pass.as_mut().filter(|pass| pass.mode == Mode::Replaying) {
            match pass.meet(&operation) {
                Ok(()) => return self.launch_if_complete(),
                Err(difference) => self.depart(difference)?,
            }
        }
        // SAFETY: the caller's promise.
        unsafe { operation.issue(&*self.driver)? };
        if let Some(pass) = self.pass.as_mut().filter(|pass| pass.mode == Mode::Recording) {
            pass.log.operations.push(operation.kept());
        }
        Ok(())
    }

    /// Makes all that was asked for known to the driver: a read or a wait follows. It is where a stretch ends.
    pub(super) fn settle(&mut self) -> Result<()> {
        if let Some(pass) = self.pass.as_mut().filter(|pass| pass.mode == Mode::Recording) {
            pass.log.end_stretch();
        }
        self.execute_waiting()
    }

    fn replaying(&self) -> bool {
        self.pass.as_ref().is_some_and(|pass| pass.mode == Mode::Replaying)
    }

    fn recording(&self) -> bool {
        self.pass.as_ref().is_some_and(|pass| pass.mode == Mode::Recording)
    }

    /// Runs the stretch whose last operation was met.
    fn launch_if_complete(&mut self) -> Result<()> {
        let Some(pass) = &mut self.pass else { return Ok(()) };
        let waiting = pass.waiting();
        let stretch = &mut pass.log.stretches[pass.stretch];
        if pass.met < stretch.end {
            return Ok(());
        }
        let made = match stretch.graph.take() {
            Some(graph) => Ok(graph),
            None => Arc::clone(&self.driver).record(&pass.log.operations[waiting]),
        };
        let graph = match made {
            Ok(graph) => stretch.graph.insert(graph),
            Err(e) => return self.depart(format!("no graph can be made: {e}")),
        };
        pass.stretch += 1;
        let sent = self.outbox.send(&*self.driver);
        // SAFETY: `ask` was promised so of every operation of the stretch, with these arguments. Of the memory that they use,
        // blocks stay with the log, and what else was given back since is in `freed`.
        let launched = sent.and_then(|()| unsafe { graph.launch() });
        self.after_waiting(launched)
    }

    /// Executes the operations that wait one by one, as their stretch ends before it was recorded to end. It is two from
    /// now on.
    fn execute_waiting(&mut self) -> Result<()> {
        let sent = self.outbox.send(&*self.driver);
        if sent.is_err() {
            return self.after_waiting(sent);
        }
        let Some(pass) = self.pass.as_mut().filter(|pass| !pass.waiting().is_empty()) else { return Ok(()) };
        let waiting = pass.waiting();
        pass.log.split(pass.stretch, pass.met);
        pass.stretch += 1;
        // SAFETY: as in `launch_if_complete`.
        let issue = |operation: &Operation<'static>| unsafe { operation.issue(&*self.driver) };
        let executed = pass.log.operations[waiting].iter().try_for_each(issue);
        self.after_waiting(executed)
    }

    /// Goes on as a recording.
    fn depart(&mut self, difference: String) -> Result<()> {
        let stretch = self.pass.as_ref().map_or(0, |pass| pass.stretch);
        self.execute_waiting()?;
        if let Some(pass) = &mut self.pass {
            pass.depart(stretch, difference);
        }
        Ok(())
    }

    /// Gives to the driver what was given back meanwhile; if the device failed, nothing is recorded or replayed any more.
    fn after_waiting(&mut self, result: Result<()>) -> Result<()> {
        let Some(pass) = &mut self.pass else { return result };
        if result.is_err() {
            pass.mode = Mode::Plain;
        }
        for address in std::mem::take(&mut pass.freed) {
            self.driver.free(address);
        }
        result
    }

    /// Memory of the driver, which recordings give way to.
    fn allocate_from_driver(&mut self, bytes: usize) -> Result<Address> {
        loop {
            match self.driver.allocate(bytes) {
                Err(Error::Memory { .. }) if self.give_way() => {}
                result => return result,
            }
        }
    }

    /// Gives up the recordings of other passes, or at last that of this one; says whether there was any.
    fn give_way(&mut self) -> bool {
        let mut logs: Vec<Log> = self.logs.drain().map(|(_, log)| log).collect();
        if let Some(pass) = self.pass.as_mut().filter(|pass| logs.is_empty() && pass.mode == Mode::Recording) {
            pass.mode = Mode::Plain;
            pass.difference = Some("there is not enough memory to keep that of a recording".to_owned());
            logs.push(std::mem::take(&mut pass.log));
        }
        let any = !logs.is_empty();
        logs.into_iter().for_each(|log| self.drop_log(log));
        any
    }

    fn drop_log(&mut self, log: Log) {
        drop(log.stretches);
        log.held.into_iter().for_each(|address| self.let_go(address));
    }

    fn let_go(&mut self, address: Address) {
        if let Some(address) = self.blocks.let_go(address) {
            self.release(address);
        }
    }

    /// Gives memory to the driver, behind the operations that may use it.
    fn release(&mut self, address: Address) {
        match self.pass.as_mut().filter(|pass| !pass.waiting().is_empty()) {
            Some(pass) => pass.freed.push(address),
            None => self.driver.free(address),
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        while self.give_way() {}
    }
}
