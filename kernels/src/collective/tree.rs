//! Sums of slices along a binary tree that knows of no worker.

use std::ops::Range;

use super::Bucket;
use crate::{Error, Result, Tensor};

/// Bytes in front of the values of an encoded node.
const HEADER: usize = 12;

/// The sum of neighbouring slices: those of one node of the tree.
///
/// A node of level l and number n stands for the slices n·2^l up to, and without, (n + 1)·2^l, as far as there are any.
#[derive(Clone, Debug)]
pub struct Node {
    /// The height over single slices.
    pub level: u32,
    /// The place among the nodes of its level.
    pub number: usize,
    /// The sum.
    pub sum: Bucket,
}

impl Node {
    /// A node with a sum of one flat tensor on the host.
    pub(super) fn flat(level: u32, number: usize, values: Vec<f32>) -> Result<Self> {
        Ok(Self { level, number, sum: Bucket::new(vec![Tensor::from_f32(&[values.len()], values)?])? })
    }

    /// Some of the elements of such a sum.
    pub(super) fn part(&self, elements: Range<usize>) -> Result<Self> {
        Self::flat(self.level, self.number, self.values()?[elements].to_vec())
    }

    /// The values of such a sum.
    pub(super) fn values(&self) -> Result<&[f32]> {
        self.sum.tensors()[0].f32()
    }
}

/// Sums that wait for their neighbours, in the order of slices.
#[derive(Clone, Debug)]
pub struct Tree {
    slices: usize,
    nodes: Vec<Node>,
}

impl Tree {
    /// Nothing yet of so many slices.
    #[must_use]
    pub fn new(slices: usize) -> Self {
        Self { slices, nodes: Vec::new() }
    }

    /// The number of slices in all.
    #[must_use]
    pub fn slices(&self) -> usize {
        self.slices
    }

    /// What waits, in the order of slices.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What waits, to be taken apart.
    pub(super) fn into_nodes(self) -> Vec<Node> {
        self.nodes
    }

    /// Adds the sum of one slice.
    ///
    /// # Errors
    /// As [`Tree::push_node`].
    pub fn push(&mut self, slice: usize, sum: Bucket) -> Result<()> {
        self.push_node(Node { level: 0, number: slice, sum })
    }

    /// Adds the sum of the slices that follow those that are there.
    ///
    /// # Errors
    /// [`Error::Gang`] if they do not follow; [`Error::Shape`] if the sums have other shapes.
    pub fn push_node(&mut self, node: Node) -> Result<()> {
        let begins = node.number << node.level;
        if begins >= self.slices || node.level > self.height() {
            let what = format!("there is no node {} at level {} over {} slices", node.number, node.level, self.slices);
            return Err(Error::Gang(what));
        }
        if let Some(due) = self.nodes.last().map(|last| (last.number + 1) << last.level).filter(|due| *due != begins) {
            return Err(Error::Gang(format!("slice {begins} comes where slice {due} is due")));
        }
        self.nodes.push(node);
        self.merge()
    }

    /// The sum of all slices.
    ///
    /// # Errors
    /// [`Error::Gang`] if one is missing.
    pub fn total(mut self) -> Result<Bucket> {
        match self.nodes.pop() {
            Some(node) if node.level == self.height() => Ok(node.sum),
            _ => Err(Error::Gang(format!("not all of {} slices are there", self.slices))),
        }
    }

    /// The level of the root.
    fn height(&self) -> u32 {
        self.slices.next_power_of_two().trailing_zeros()
    }

    /// Adds what stands side by side under one node, until nothing does.
    fn merge(&mut self) -> Result<()> {
        while let Some(last) = self.nodes.pop() {
            let is_root = last.level == self.height();
            let parent = |sum| Node { level: last.level + 1, number: last.number / 2, sum };
            if last.number % 2 == 0 && !is_root && (last.number + 1) << last.level >= self.slices {
                // There is no slice on the other side.
                self.nodes.push(parent(last.sum));
            } else if let Some(mut left) = self
                .nodes
                .pop_if(|left| last.number % 2 == 1 && (left.level, left.number + 1) == (last.level, last.number))
            {
                left.sum.add(&last.sum)?;
                self.nodes.push(parent(left.sum));
            } else {
                self.nodes.push(last);
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The slices of a rank: the first ranks have one more where it does not divide, and those beyond have none.
#[must_use]
pub fn slices_of(rank: usize, world: usize, slices: usize) -> Range<usize> {
    let start = |rank: usize| rank * (slices / world) + rank.min(slices % world);
    start(rank)..start(rank + 1)
}

/// Flat nodes as bytes: level and number, then the values, all little-endian.
pub(super) fn encode(nodes: &[Node]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(nodes.iter().map(|node| HEADER + 4 * node.sum.elements()).sum());
    for node in nodes {
        bytes.extend_from_slice(&node.level.to_le_bytes());
        bytes.extend_from_slice(&(node.number as u64).to_le_bytes());
        bytes.extend(node.values()?.iter().flat_map(|v| v.to_le_bytes()));
    }
    Ok(bytes)
}

/// The nodes of [`encode`], of so many elements each.
pub(super) fn decode(bytes: &[u8], elements: usize) -> Result<Vec<Node>> {
    let nodes = bytes.chunks_exact(HEADER + 4 * elements);
    if !nodes.remainder().is_empty() {
        return Err(Error::Gang(format!("{} bytes are no sums of {elements} elements", bytes.len())));
    }
    let node = |bytes: &[u8]| {
        let level = u32::from_le_bytes(std::array::from_fn(|i| bytes[i]));
        let number = u64::from_le_bytes(std::array::from_fn(|i| bytes[4 + i]));
        match usize::try_from(number) {
            Ok(number) if level < usize::BITS && number <= usize::MAX >> level => {
                Node::flat(level, number, values(&bytes[HEADER..]))
            }
            _ => Err(Error::Gang(format!("there is no node {number} at level {level}"))),
        }
    };
    nodes.map(node).collect()
}

/// Values from little-endian bytes.
pub(super) fn values(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}
