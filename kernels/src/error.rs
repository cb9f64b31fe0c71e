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
    /// An operand lies in other memory than the operation works on.
    #[error("{op}: {what} is on {found}, expected on {expected}")]
    Place {
        /// The operation.
        op: &'static str,
        /// The operand.
        what: &'static str,
        /// Where it is.
        found: String,
        /// Where the operation works.
        expected: String,
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
    /// The device could not be opened, or failed.
    #[error("device: {0}")]
    Device(String),
    /// The device is lost: whatever it is asked for next fails as well, and what lay in its memory is gone. It may serve again
    /// once it is opened anew, or once the process is.
    #[error("the device is lost: {0}")]
    Lost(String),
    /// Something holds the device and does not let go: only the end of this process frees it.
    #[error("the device is held: {0}")]
    Stuck(String),
    /// A member of a gang is gone or does something else than the others: the group is of no use any more.
    #[error("the gang is broken: {0}")]
    Gang(String),
    /// The device has not as much memory.
    #[error("the device cannot hold {} more: {} of {} are free", Size(*asked), Size(*free), Size(*budget))]
    Memory {
        /// Bytes asked for.
        asked: usize,
        /// Bytes that nothing holds.
        free: usize,
        /// Bytes in all.
        budget: usize,
    },
    /// A kernel could not be compiled or started, or failed.
    #[error("{op}: kernel {kernel}: {what}")]
    Kernel {
        /// The operation.
        op: &'static str,
        /// The kernel.
        kernel: String,
        /// What is wrong.
        what: String,
    },
}

/// Bytes, written in the largest unit of which there is one.
struct Size(usize);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.iter().find(|(bytes, _)| self.0 >= *bytes) {
            Some((bytes, unit)) => write!(f, "{:.1} {unit}", self.0 as f64 / *bytes as f64),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

impl Error {
    /// Whether the device is lost, so that trying again on it is in vain.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// Whether only the end of this process frees the device.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        matches!(self, Self::Stuck(_))
    }

    pub(crate) fn shape(op: &'static str, what: &'static str, found: &[usize], expected: impl Into<String>) -> Self {
        Self::Shape { op, what, found: found.to_vec(), expected: expected.into() }
    }
}
