//! Gangs: workers that train one model together, and what happens to them. Whatever it is, the model is that of one worker whom
//! nobody disturbed, to the bit.

mod faults;
mod members;
mod training;
