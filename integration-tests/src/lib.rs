//! Whole-system tests, fault injection and parity with public libraries.
