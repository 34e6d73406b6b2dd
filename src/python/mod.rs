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
mod iteration;
mod log;
mod progress;
mod publish;
mod pubsub;
mod read_stream;
mod read_streams;
mod row_writer;
mod runtime;
mod scan_batches;
mod scan_stream;
mod stream_info;
mod streams;
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
    use super::pubsub::{AsyncPubSubIterator, PubSubIterator, collect_pubsub};
    #[pymodule_export]
    use super::read_stream::read_stream;
    #[pymodule_export]
    use super::read_streams::{check_streams, find_keys, read_streams, sample_streams};
    #[pymodule_export]
    use super::row_writer::RowWriter;
    #[pymodule_export]
    use super::scan_batches::ScanBatches;
    #[pymodule_export]
    use super::scan_stream::{IdBounds, check_scan, sample_fields, split_range};
    #[pymodule_export]
    use super::stream_info::stream_info;
    #[pymodule_export]
    use super::write_hashes::hash_writer;
    #[pymodule_export]
    use super::write_stream::{entry_fields, entry_writer};
}
