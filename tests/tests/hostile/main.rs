//! Images made to harm: whatever a file holds, a tool ends by itself, soon, within bounded memory, with a
//! result or an error, and touches nothing but the image.

mod attacks;
mod chains;
mod limits;
mod mutants;
mod options;
mod structures;
