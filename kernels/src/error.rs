//! What can go wrong in an operation.

/// The result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation refused its operands.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Shapes do not fit together.
    #[error("{op}: {what} has shape {found:?}, expected {expected}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The operand.
        what: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// What the operation takes, in words or as a shape.
        expected: String,
    },
    /// An operand has another dtype than the operation takes.
    #[error("{op}: {what} is {found:?}, expected {expected:?}")]
    Dtype {
        /// The operation.
        op: &'static str,
        /// The operand.
        what: &'static str,
        /// Its dtype.
        found: crate::Dtype,
        /// What the operation takes.
        expected: crate::Dtype,
    },
    /// An index points outside of its table.
    #[error("{op}: {what} {index} is out of range 0..{len}")]
    Index {
        /// The operation.
        op: &'static str,
        /// The kind of index.
        what: &'static str,
        /// The index.
        index: usize,
        /// The length of the table.
        len: usize,
    },
    /// A setting outside of its domain, for example a dropout rate of 1.
    #[error("{op}: {what}")]
    Setting {
        /// The operation.
        op: &'static str,
        /// What is wrong and what is allowed.
        what: String,
    },
    /// A device has not as much memory as is asked for.
    #[error("out of device memory: {asked} bytes are asked for, {free} of {budget} are free")]
    Memory {
        /// Bytes that are asked for.
        asked: usize,
        /// Bytes that may still be taken.
        free: usize,
        /// Bytes that may be taken in all.
        budget: usize,
    },
    /// The device could not be opened.
    #[error("cannot start the compute threads: {0}")]
    Device(String),
}

impl Error {
    pub(crate) fn shape(op: &'static str, what: &'static str, found: &[usize], expected: impl Into<String>) -> Self {
        Self::Shape { op, what, found: found.to_vec(), expected: expected.into() }
    }
}
