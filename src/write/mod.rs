//! Rows of a frame as commands, and what became of them.
//!
//! A [`Batch`] holds some rows as Arrow columns. A [`Statement`] says what is sent
//! for a row: an entry of a stream ([`Entries`]), a hash ([`Hashes`]), a message
//! ([`Messages`]). A [`Writer`] sends the rows of
//! batch after batch, a bounded number of bytes ahead of the replies, to whichever
//! servers have their keys, and tells at the end, or after a failure, what became
//! of each row: an [`Outcome`].
//!
//! No row is ever sent twice, but for what a server of a cluster has refused
//! because another one has its key.

mod batch;
mod entries;
mod guarded;
mod hashes;
mod json;
mod lane;
mod messages;
mod outcome;
mod replies;
mod statement;
mod target;
mod temporal;
mod values;
mod writer;

pub use batch::Batch;
pub use entries::{Entries, Nulls, Trim};
pub use hashes::{Hashes, IfExists};
pub use messages::{Messages, Reach};
pub use outcome::{Outcome, RowFate};
pub use statement::{Place, Statement};
pub use target::Target;
pub use values::Values;
pub use writer::{Failure, Writer};
