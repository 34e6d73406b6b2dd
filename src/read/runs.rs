//! Puts what arrives out of order in order.
//!
//! Replies come in the order of their requests, which is nearly always that of
//! the IDs. Where a window was asked for again, later IDs are here before
//! earlier ones. A [`Run`] is a stretch of IDs without a gap, with the entries
//! found in it; runs are kept in order and joined by lying side by side, never
//! by copying.

use crate::decode::{Chunk, ChunkBuilder, Plan};
use crate::entry_id::{EntryId, IdRange};

/// A stretch of IDs without a gap, and the entries in it.
#[derive(Debug)]
struct Run {
    start: EntryId,
    /// First ID after it; `None` at the end of all IDs.
    next: Option<EntryId>,
    rows: ChunkBuilder,
}

/// Disjoint runs, in order.
#[derive(Debug)]
pub struct Runs {
    runs: Vec<Run>,
    /// Rows after which a run is full.
    full: usize,
    /// The first ID that is not in what was taken; `None` at the end of all IDs.
    first: Option<EntryId>,
    /// Start of the window whose entries come in now, or came in last.
    open: Option<EntryId>,
}

impl Runs {
    /// No runs yet, of what begins at `start`; one is full at `full` rows.
    pub fn new(start: Option<EntryId>, full: usize) -> Self {
        Self {
            runs: Vec::new(),
            full,
            first: start,
            open: None,
        }
    }

    /// Changes how many rows fill a run.
    pub fn set_full(&mut self, full: usize) {
        self.full = full;
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(|run| run.rows.rows() == 0)
    }

    /// Rows at hand from the first on, up to the first gap in the IDs.
    pub fn rows_from_first(&self) -> usize {
        self.leading().map(|run| run.rows.rows()).sum()
    }

    /// Takes the rows at hand from the first on.
    pub fn take_from_first(&mut self) -> Vec<Chunk> {
        let count = self.leading().count();
        if let Some(last) = self.leading().last() {
            self.first = last.next;
        }
        let taken = self.runs.drain(..count).map(|run| run.rows);
        taken
            .filter(|rows| rows.rows() > 0)
            .map(ChunkBuilder::finish)
            .collect()
    }

    /// The runs without a gap before them.
    fn leading(&self) -> impl Iterator<Item = &Run> {
        let mut next = self.first;
        self.runs.iter().take_while(move |run| {
            let follows = Some(run.start) == next;
            next = run.next;
            follows
        })
    }

    /// Where the entries of a window that begins at `start` go: to the run that
    /// ends there, or to a new one.
    ///
    /// `expected` is how many entries may come, for the room that is set aside.
    pub fn at(&mut self, start: EntryId, plan: &Plan, expected: usize) -> &mut ChunkBuilder {
        let at = self.runs.partition_point(|run| run.start <= start);
        let before = at.checked_sub(1);
        // A run that filled up in the middle of a reply takes the rest of it.
        let full = match self.open.replace(start) == Some(start) {
            true => usize::MAX,
            false => self.full,
        };
        let index = match before {
            Some(before) if self.runs[before].goes_on_at(start, full) => before,
            _ => {
                let rows = self.builder(before, start, plan, expected);
                let next = Some(start);
                self.runs.insert(at, Run { start, next, rows });
                at
            }
        };
        &mut self.runs[index].rows
    }

    /// A builder with room for what is expected. Where the run before is full,
    /// this one will take as much room as that did, most likely.
    fn builder(
        &self,
        before: Option<usize>,
        start: EntryId,
        plan: &Plan,
        expected: usize,
    ) -> ChunkBuilder {
        // Runs end at about their full length, not at it.
        let room = expected.min(self.full + self.full / 16);
        let mut rows = ChunkBuilder::with_room(plan, room);
        if let Some(run) = before.map(|before| &self.runs[before])
            && run.next == Some(start)
        {
            rows.make_room_like(&run.rows);
        }
        rows
    }

    /// The IDs of `covered` have been read, into the run [`at`](Self::at) its
    /// start.
    pub fn cover(&mut self, covered: IdRange) {
        let at = self
            .runs
            .partition_point(|run| run.start <= covered.start());
        if let Some(run) = at.checked_sub(1).and_then(|at| self.runs.get_mut(at)) {
            run.next = covered.end().next();
        }
    }

    /// The IDs of `covered`, in which nothing was found, and those after them in their
    /// run, in which nothing was either, have not been read after all.
    pub fn uncover(&mut self, covered: IdRange) {
        let start = covered.start();
        let at = self.runs.partition_point(|run| run.start <= start);
        if let Some(run) = at.checked_sub(1).and_then(|at| self.runs.get_mut(at))
            && run.next.is_none_or(|next| next > start)
        {
            run.next = Some(start);
        }
    }
}

impl Run {
    fn goes_on_at(&self, start: EntryId, full: usize) -> bool {
        self.next == Some(start) && (self.rows.rows() < full || self.start == start)
    }
}
