//! Every store that a job may live on: the same promises, with and without trouble on the way, and whole jobs.
//!
//! The servers are those of `servers`; what is not installed is said and passed over.
#![allow(clippy::unwrap_used)]

mod artifact;
mod disk;
mod doctor;
mod jobs;
mod promises;
mod trouble;
