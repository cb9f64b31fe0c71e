//! Coordinators and workers that know each other over a network, in this process and as processes of their own.
#![allow(clippy::unwrap_used)]

mod access;
mod bound;
mod certificates;
mod cluster;
mod deaths;
mod jobs;
mod observed;
mod refusals;
mod rounds;
mod secrets;
mod secured_job;
mod silence;
mod site;
mod traces;
