//! Sessions inside the process: single messages and their answers, hostile clients, random sequences.

#![expect(clippy::cast_possible_truncation, reason = "numbers of tests are small")]

mod hostile;
mod peer;
mod random;
mod requests;
