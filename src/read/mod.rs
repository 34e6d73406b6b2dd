//! Which command comes next.

mod extent;
mod range;
mod runs;
mod windows;

pub use range::{RangeQuery, read_range};
