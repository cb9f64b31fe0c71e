//! Operands that do not fit, hold nothing or are no numbers: every operation says what is wrong with which of them, or
//! lets it through as its documentation says. None of them panics.

mod attention;
mod numbers;
mod operations;
mod settings;
mod shapes;
mod sizes;
