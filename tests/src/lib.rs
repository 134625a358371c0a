//! Helpers that every whole-suite test shares.
