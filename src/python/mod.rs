//! The Python module `polars_redis._core`: PyO3 and Polars, and nothing that
//! the rest of the crate could do without them.

mod acknowledge;
mod arguments;
mod dtypes;
mod errors;
mod frame;
mod infer_stream_schema;
mod iter_stream;
mod iter_stream_async;
mod log;
mod publish;
mod read_stream;
mod row_writer;
mod runtime;
mod scan_stream;
mod taken_frame;
mod write_hashes;
mod write_stream;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::acknowledge::{ack_entries, ack_entries_async};
    #[pymodule_export]
    use super::infer_stream_schema::infer_stream_schema;
    #[pymodule_export]
    use super::iter_stream::StreamIterator;
    #[pymodule_export]
    use super::iter_stream_async::AsyncStreamIterator;
    #[pymodule_export]
    use super::publish::message_writer;
    #[pymodule_export]
    use super::read_stream::read_stream;
    #[pymodule_export]
    use super::row_writer::RowWriter;
    #[pymodule_export]
    use super::scan_stream::{IdBounds, ScanBatches, check_scan, sample_fields, split_range};
    #[pymodule_export]
    use super::write_hashes::hash_writer;
    #[pymodule_export]
    use super::write_stream::entry_writer;
}
