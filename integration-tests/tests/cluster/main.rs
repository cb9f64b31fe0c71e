//! Coordinators and workers as processes of their own.
#![allow(clippy::unwrap_used)]

mod cluster;
mod deaths;
mod jobs;
mod refusals;
