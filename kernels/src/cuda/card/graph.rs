//! Operations as one graph of CUDA.
//!
//! The operations are asked for once more while the stream captures instead of running, which makes a chain of nodes. The graph
//! that they were captured in is kept, because its nodes name those of the one that runs, whose arguments can be changed.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::device::Card;
use super::failure::failed;
use super::kernels::with_pointers;
use crate::cuda::{Arg, Graph, Operation};
use crate::{Error, Result};

/// A launch within a graph.
#[derive(Clone, Copy)]
struct Node {
    node: sys::CUgraphNode,
    /// The kernel and its geometry.
    setting: sys::CUDA_KERNEL_NODE_PARAMS,
}

pub(super) struct CardGraph {
    card: Arc<Card>,
    captured: sys::CUgraph,
    runnable: sys::CUgraphExec,
    /// Those of the operations that launch a kernel of ours.
    nodes: Vec<Option<Node>>,
}

// SAFETY: graphs may be used by any thread, one at a time, in the context that every call makes current. The settings hold
// pointers to arguments, which are replaced before they are read.
unsafe impl Send for CardGraph {}

impl fmt::Debug for CardGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a graph of {} operations", self.nodes.len())
    }
}

impl CardGraph {
    /// Of operations that ran before: what they need is loaded, which cannot be done while the stream captures.
    pub(super) fn new(card: Arc<Card>, operations: &[Operation<'static>]) -> Result<Self> {
        let (captured, nodes) = capture(&card, operations)?;
        // SAFETY: the graph was captured; the context is that of this thread.
        match unsafe { result::graph::instantiate(captured, sys::CUgraphInstantiate_flags(0)) } {
            Ok(runnable) => Ok(Self { card, captured, runnable, nodes }),
            Err(e) => {
                // SAFETY: nobody else knows the graph.
                let _ = unsafe { result::graph::destroy(captured) };
                Err(failed("making a graph ready to run", e))
            }
        }
    }
}

/// Captures operations. The stream runs again afterwards, whatever happens.
fn capture(card: &Card, operations: &[Operation<'static>]) -> Result<(sys::CUgraph, Vec<Option<Node>>)> {
    card.enter()?;
    let stream = card.stream();
    // What other threads do meanwhile does not matter: the stream is this card's, and its calls come from one at a time.
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
    // SAFETY: the stream is the card's.
    unsafe { result::stream::begin_capture(stream, mode) }.map_err(|e| failed("beginning a graph", e))?;
    let nodes: Result<Vec<_>> = operations.iter().map(|operation| node(card, operation)).collect();
    // SAFETY: as above; the capture was begun here.
    let captured = unsafe { result::stream::end_capture(stream) }.map_err(|e| failed("ending a graph", e));
    match (nodes, captured) {
        (Ok(nodes), Ok(graph)) => Ok((graph, nodes)),
        (Err(e), Ok(graph)) => {
            // SAFETY: nobody else knows the graph.
            let _ = unsafe { result::graph::destroy(graph) };
            Err(e)
        }
        (Err(e), Err(_)) | (Ok(_), Err(e)) => Err(e),
    }
}

/// Captures an operation.
fn node(card: &Card, operation: &Operation<'static>) -> Result<Option<Node>> {
    // SAFETY: nothing runs, and whoever launches the graph vouches for the memory.
    unsafe { operation.issue(card)? };
    if !matches!(operation, Operation::Launch { .. }) {
        return Ok(None);
    }
    let node = last_node(card.stream())?;
    // SAFETY: numbers and pointers, of which null is one.
    let mut setting: sys::CUDA_KERNEL_NODE_PARAMS = unsafe { std::mem::zeroed() };
    // SAFETY: the node is a kernel's: that of the launch.
    unsafe { sys::cuGraphKernelNodeGetParams_v2(node, &raw mut setting).result() }
        .map_err(|e| failed("asking a graph for its kernel", e))?;
    Ok(Some(Node { node, setting }))
}

/// The node behind which a stream that captures will put the next.
fn last_node(stream: sys::CUstream) -> Result<sys::CUgraphNode> {
    let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    let (mut graph, mut id) = (std::ptr::null_mut(), 0);
    let (mut nodes, mut edges, mut n) = (std::ptr::null(), std::ptr::null(), 0);
    // SAFETY: the stream is alive, and every answer has its place.
    unsafe {
        sys::cuStreamGetCaptureInfo_v3(
            stream,
            &raw mut status,
            &raw mut id,
            &raw mut graph,
            &raw mut nodes,
            &raw mut edges,
            &raw mut n,
        )
        .result()
    }
    .map_err(|e| failed("asking for the node of a launch", e))?;
    if n != 1 || nodes.is_null() {
        return Err(Error::Device(format!("a launch is {n} nodes of a graph")));
    }
    // SAFETY: there is one, which is read before the next call for the stream.
    Ok(unsafe { nodes.read() })
}

impl Graph for CardGraph {
    fn change(&mut self, operation: usize, arguments: &[Arg]) -> Result<()> {
        let Some(Some(Node { node, setting })) = self.nodes.get(operation).copied() else {
            return Err(Error::Device(format!("operation {operation} of a graph is no kernel of ours")));
        };
        self.card.enter()?;
        with_pointers(arguments, |pointers| {
            let mut setting = setting;
            (setting.kernelParams, setting.extra) = (pointers.as_mut_ptr(), std::ptr::null_mut());
            // SAFETY: the node is one of the graph that this one was made of, and the arguments are as many as the kernel
            // has; they are copied before the call returns. Runs that were asked for already keep theirs.
            unsafe { sys::cuGraphExecKernelNodeSetParams_v2(self.runnable, node, &raw const setting).result() }
        })
        .map_err(|e| failed("changing the arguments of a kernel in a graph", e))
    }

    unsafe fn launch(&self) -> Result<()> {
        self.card.enter()?;
        // SAFETY: that of this function; the stream is the card's.
        unsafe { result::graph::launch(self.runnable, self.card.stream()) }.map_err(|e| failed("running a graph", e))
    }
}

impl Drop for CardGraph {
    fn drop(&mut self) {
        if self.card.enter().is_ok() {
            // SAFETY: nobody else knows the graphs; a run under way ends before its graph goes.
            unsafe {
                let _ = result::graph::exec_destroy(self.runnable);
                let _ = result::graph::destroy(self.captured);
            }
        }
    }
}
