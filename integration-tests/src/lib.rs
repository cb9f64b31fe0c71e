//! Whole-system tests, fault injection and parity with public libraries.
//!
//! The tests are in `tests/`; this library is what they share: a small dataset with awkward rows ([`shop`]) and what it
//! looks like another day ([`log`]), a tiny language model ([`base`]), the real binary ([`program`]), a cluster without it
//! ([`in_process`]) and what they leave behind ([`outputs`]), the servers of cloud stores ([`servers`]) and the troubles that
//! a network makes ([`proxy`]), several hosts on one ([`namespaces`]), thousands of simulated workers ([`fleet`]) and the root of a job that is large enough for
//! them ([`prepared`]). It panics where a library would return an error: whoever calls it is a test.

pub mod base;
pub mod fleet;
pub mod http;
pub mod in_process;
pub mod log;
pub mod namespaces;
pub mod outputs;
pub mod prepared;
pub mod program;
pub mod proxy;
pub mod servers;
pub mod shop;
