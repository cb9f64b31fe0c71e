//! Small uploads that travel together.

use super::blocks::{ALIGNMENT, Blocks};
use crate::Result;
use crate::cuda::{Address, Driver};

/// Bytes for blocks that lie side by side, not sent yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    to: Option<Address>,
}

impl Outbox {
    /// Sends values later, if their block lies behind the last one, or else what there was now.
    pub(super) fn post(&mut self, address: Address, values: &[u8], blocks: &Blocks, driver: &dyn Driver) -> Result<()> {
        let end = self.bytes.len().next_multiple_of(ALIGNMENT);
        if self.to.is_some_and(|to| to.offset(end) == address && blocks.share_page(to, address)) {
            self.bytes.resize(end, 0); // within the last block
        } else {
            self.send(driver)?;
            self.to = Some(address);
        }
        self.bytes.extend_from_slice(values);
        Ok(())
    }

    /// Sends what there is.
    pub(super) fn send(&mut self, driver: &dyn Driver) -> Result<()> {
        let Some(to) = self.to.take() else { return Ok(()) };
        let sent = driver.write(to, &self.bytes);
        self.bytes.clear();
        sent
    }
}
