//! A gang from its member's side: the workers that train one model together.
//!
//! ```text
//! training thread   load ─► Ready ─► wait at the seat ─► ring ─► heal ─► step, step, … ─► regroup or break ─► Ready
//! session           Generation, Regroup, Abort ─► seat                    seat ─► a step that hangs ends the worker
//! ```
//!
//! The coordinator says who belongs to a generation; gradients, states and words go from member to member, over streams that
//! only members of the generation can open ([`identity`]).

mod faults;
mod identity;
mod links;
mod meeting;
mod resting;
mod seat;
mod words;

pub(crate) use faults::{Fault, Phase, meet};
pub(crate) use links::within;
pub use meeting::host_and_port;
pub(crate) use meeting::{Meeting, Met, Reach};
pub(crate) use resting::Resting;
pub(crate) use seat::{Closer, Seat, Watched};
pub(crate) use words::{Healing, Standing, Verdict, Word, decode, encode};
