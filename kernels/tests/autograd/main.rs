//! Every operation, forward and backward, against the automatic differentiation of candle.
//!
//! Candle computes in double precision, and only with primitive operations: its fused norms, softmax and rotation drop
//! gradients silently. The finite differences beside each operation look at single coordinates, this looks at all of
//! them, with shapes that are no multiple of any tile, lane or panel.

mod activations;
mod attention;
mod classes;
mod lookups;
mod norms;
mod oracle;
mod products;
mod recurrence;
