//! What a process tells those who watch it: whether it lives, whether it is ready, and figures for Prometheus.
//!
//! [`Figures`] are counted where something happens, by any crate. A [`Door`] answers `GET` on three paths of a port of its own,
//! without TLS and without a login, because that is how orchestrators ask: nothing that is told there names a user or an item,
//! holds a secret or changes anything.

pub mod certificate;
mod door;
mod figures;
#[cfg(test)]
mod tests;

pub use door::{Door, Watched};
pub use figures::{Figures, StoreCall, figures};
