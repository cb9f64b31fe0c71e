//! Coordinators and workers that know each other over a network.
#![allow(clippy::unwrap_used)]

mod access;
mod certificates;
mod secrets;
mod secured_job;
mod silence;
mod site;
