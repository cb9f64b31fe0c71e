//! Members that are threads of one process: everybody lays down what they have, and reads what all have laid down.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::tree::{decode, encode};
use super::{Bucket, Collective, Operation, Tree, elements, on_host};
use crate::{Error, Result, Tensor};

/// A table that the members of a group stand around.
struct Table {
    state: Mutex<State>,
    changed: Condvar,
}

/// What a member has laid down, and for what.
type Laid = (Operation, Arc<Vec<u8>>);

#[derive(Default)]
struct State {
    /// By number of the call and rank.
    laid: BTreeMap<(u64, usize), Laid>,
    /// Calls whose results each rank has taken.
    taken: Vec<u64>,
    /// Why nobody will come any more.
    gone: Option<String>,
}

/// A member; the group ends with the first of them that is dropped.
pub struct Local {
    rank: usize,
    world: usize,
    call: u64,
    table: Arc<Table>,
}

/// A group of so many members, by rank.
#[must_use]
pub fn group(world: usize) -> Vec<Local> {
    let table = table(world);
    (0..world).map(|rank| Local { rank, world, call: 0, table: table.clone() }).collect()
}

/// A group of one.
#[must_use]
pub fn alone() -> Local {
    Local { rank: 0, world: 1, call: 0, table: table(1) }
}

fn table(world: usize) -> Arc<Table> {
    let state = State { taken: vec![0; world], ..State::default() };
    Arc::new(Table { state: Mutex::new(state), changed: Condvar::new() })
}

impl Local {
    /// Lays down bytes and waits for those of the ranks that are asked for.
    fn exchange(
        &mut self,
        operation: Operation,
        own: Vec<u8>,
        wanted: impl Iterator<Item = usize> + Clone,
    ) -> Result<Vec<Arc<Vec<u8>>>> {
        let call = self.call;
        self.call += 1;
        let mut state = self.table.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.laid.insert((call, self.rank), (operation, Arc::new(own)));
        self.table.changed.notify_all();
        loop {
            let mut others = state.laid.range((call, 0)..(call + 1, 0));
            if let Some(((_, rank), (other, _))) = others.find(|(_, (other, _))| *other != operation) {
                return Err(Error::Gang(format!("rank {rank} does {other:?}, rank {} {operation:?}", self.rank)));
            }
            let laid = |rank| state.laid.get(&(call, rank)).map(|(_, bytes)| bytes.clone());
            let found: Option<Vec<_>> = wanted.clone().map(laid).collect();
            if let Some(found) = found {
                state.taken[self.rank] = self.call;
                let done = state.taken.iter().copied().min().unwrap_or_default();
                state.laid.retain(|(call, _), _| *call >= done);
                return Ok(found);
            }
            if let Some(gone) = &state.gone {
                return Err(Error::Gang(gone.clone()));
            }
            state = self.table.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Collective for Local {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn all_reduce(&mut self, own: Tree, like: &[&Tensor]) -> Result<Bucket> {
        if self.world == 1 {
            return own.total(); // where it lies, and not by way of the host
        }
        let elements = elements(like);
        let nodes = on_host(&own, elements)?;
        let mut tree = Tree::new(own.slices());
        for bytes in self.exchange(Operation::AllReduce(own.slices()), encode(&nodes)?, 0..self.world)? {
            for node in decode(&bytes, elements)? {
                tree.push_node(node)?;
            }
        }
        Bucket::from_flat(&tree.total()?.to_flat()?, like)
    }

    fn broadcast(&mut self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let own = if self.rank == root { std::mem::take(bytes) } else { Vec::new() };
        let found = self.exchange(Operation::Broadcast(root), own, std::iter::once(root))?;
        *bytes = found[0].as_ref().clone();
        Ok(())
    }

    fn all_gather(&mut self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let all = self.exchange(Operation::AllGather, own, 0..self.world)?;
        Ok(all.into_iter().map(|bytes| bytes.as_ref().clone()).collect())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let mut state = self.table.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.gone.get_or_insert_with(|| format!("rank {} of {} has left", self.rank, self.world));
        self.table.changed.notify_all();
    }
}
