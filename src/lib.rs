//! Redis Streams as Polars DataFrames, decoded straight into Arrow columns.
//!
//! Bytes flow one way:
//!
//! ```text
//! server ──bytes──▶ connection ──bytes──▶ resp ──tokens──▶ decode ──columns──▶ read ──frames──▶ python
//!                   I/O, auth             no I/O           no I/O              which command    PyO3, Polars
//! ```
//!
//! A layer knows those to its left and none to its right. `resp` and `decode`
//! do no I/O: bytes are pushed in, columns come out, and the state between
//! pushes lives in them.
//!
//! - [`entry_id`]: entry IDs and ranges of them.
//! - [`deployment`]: what a URL names; [`address`]: where one server is.
//! - [`connection`]: bytes to and from one server.
//! - [`command`]: the stream commands.
//! - [`resp`]: RESP tokens from bytes.
//! - [`decode`]: entries to columns.
//! - [`read`]: range reads, and batch after batch as a tail or a consumer of a group.
//! - [`mod@write`]: the other way, rows of a frame to commands.
//!
//! The Python half is the feature `python`; without it nothing here needs
//! Python.

pub mod address;
pub mod command;
pub mod connection;
pub mod decode;
pub mod deployment;
pub mod entry_id;
pub mod error;
mod per_process;
#[cfg(feature = "python")]
mod python;
pub mod read;
pub mod resp;
mod url;
pub mod write;

pub use address::Address;
pub use deployment::{Deployment, ReadFrom};
pub use entry_id::{End, EntryId, IdRange, InvalidId, Start};
pub use error::{DecodeError, Error, Misfit, Result};
