//! The Python module `polars_redis._core`: PyO3 and Polars, and nothing that
//! the rest of the crate could do without them.

mod errors;
mod frame;
mod read_stream;
mod runtime;
mod schema;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::read_stream::read_stream;
}
