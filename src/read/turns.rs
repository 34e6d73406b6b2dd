//! Which of several streams are asked next, and for how many entries of each.
//!
//! A stream whose last reply was as full as it could be is busy: it may have more,
//! as may one that was never asked. The others are quiet. The busy ones and the
//! quiet ones are asked in turn, so that none is starved; once all are quiet, all
//! are asked at once, and the server may wait for entries of any.
//!
//! Nothing here does I/O.

use std::collections::VecDeque;

/// Streams to ask by one command.
#[derive(Debug)]
pub struct Turn {
    /// Their numbers.
    pub streams: Vec<usize>,
    /// Entries of each, at the most.
    pub count: usize,
    pub wait: TurnWait,
    /// Entries that would be enough, of all of them together.
    budget: usize,
    is_of_busy: bool,
}

/// How long the server may wait where these streams have nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnWait {
    /// Not at all, as others may have something.
    No,
    /// A moment: then it is the turn of others that seem to have nothing either.
    Briefly,
    /// As long as one likes: these are all.
    Fully,
}

/// What a command for all streams may bring, at a time when all are quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joint {
    /// An entry of each, though it be more than are asked for.
    MayExceed,
    /// No more than are asked for: where there are more streams than that, the
    /// turns go on, some at a time.
    KeepsTo,
}

/// The streams that are left, in the order of their turns.
#[derive(Debug)]
pub struct Turns {
    busy: VecDeque<usize>,
    quiet: VecDeque<usize>,
    /// Whether the busy ones were asked last.
    busy_were_last: bool,
    /// How many were asked in a row that had nothing, since none is busy.
    silent: usize,
    is_caught_up: bool,
}

impl Turns {
    /// The turns of the streams 0 up to `count`.
    pub fn new(count: usize) -> Self {
        Self {
            busy: (0..count).collect(),
            quiet: VecDeque::new(),
            busy_were_last: false,
            silent: 0,
            is_caught_up: false,
        }
    }

    /// The numbers of the streams that are left.
    pub fn streams(&self) -> impl Iterator<Item = usize> {
        self.busy.iter().chain(&self.quiet).copied()
    }

    /// Whether all that was there has been read, as far as one can know.
    pub fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }

    /// Leaves out the streams that are not wanted any more.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(usize) -> bool) {
        self.busy.retain(|&stream| is_wanted(stream));
        self.quiet.retain(|&stream| is_wanted(stream));
    }

    /// How many streams are left.
    pub fn len(&self) -> usize {
        self.busy.len() + self.quiet.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a stream, which may have entries.
    pub fn add(&mut self, stream: usize) {
        self.busy.push_back(stream);
        self.silent = 0;
        self.is_caught_up = false;
    }

    /// Leaves a stream out; whether it was there.
    pub fn remove(&mut self, stream: usize) -> bool {
        let before = self.len();
        self.retain(|other| other != stream);
        self.len() < before
    }

    /// Whether each of them was asked and had nothing, since this was last so.
    pub fn take_silence(&mut self) -> bool {
        let is_silent = self.silent >= self.len();
        if is_silent {
            self.silent = 0;
        }
        is_silent
    }

    /// Whose turn it is, where `budget` entries would be enough; `None` if there
    /// are no streams left. They are out of the turns until there is a reply.
    pub fn next(&mut self, budget: usize, joint: Joint) -> Option<Turn> {
        let is_of_busy = !self.busy.is_empty() && (self.quiet.is_empty() || !self.busy_were_last);
        let all_are_quiet = self.busy.is_empty();
        self.busy_were_last = is_of_busy;
        let queue = match is_of_busy {
            true => &mut self.busy,
            false => &mut self.quiet,
        };
        let (most, wait) = match joint {
            _ if !all_are_quiet => (budget, TurnWait::No),
            Joint::KeepsTo if queue.len() > budget => (budget, TurnWait::Briefly),
            _ => (queue.len(), TurnWait::Fully),
        };
        let streams: Vec<usize> = queue.drain(..most.min(queue.len())).collect();
        let count = budget.checked_div(streams.len())?.max(1);
        Some(Turn {
            streams,
            count,
            wait,
            budget,
            is_of_busy,
        })
    }

    /// There was a reply: `next` says of each stream of the turn what it is now.
    pub fn replied(&mut self, turn: &Turn, entries: usize, next: impl Fn(usize) -> Next) {
        // As long as some are busy, the others have two turns for one of theirs.
        let mut is_silent = entries == 0 && turn.wait != TurnWait::No;
        for &stream in &turn.streams {
            match next(stream) {
                Next::Busy => {
                    self.busy.push_back(stream);
                    is_silent = false;
                }
                Next::Quiet => self.quiet.push_back(stream),
                Next::Gone => {}
            }
        }
        let was_enough = entries >= turn.budget;
        self.is_caught_up = self.busy.is_empty() || (turn.wait == TurnWait::Fully && !was_enough);
        self.silent = match is_silent {
            true => self.silent + turn.streams.len(),
            false => 0,
        };
    }

    /// The server has not done what was asked: whoever had the turn has it next.
    pub fn put_back(&mut self, turn: Turn) {
        let queue = match turn.is_of_busy {
            true => &mut self.busy,
            false => &mut self.quiet,
        };
        turn.streams
            .into_iter()
            .rev()
            .for_each(|stream| queue.push_front(stream));
        self.busy_were_last = !turn.is_of_busy;
    }

    /// There was no reply, or not all of it: the streams of the turn are busy. The
    /// one at which it broke off has the last turn of all.
    pub fn lost(&mut self, turn: Turn, broke_at: Option<usize>) {
        let others = turn.streams.iter().filter(|&&s| Some(s) != broke_at);
        self.busy.extend(others);
        self.busy.extend(broke_at);
        self.is_caught_up = false;
        self.silent = 0;
    }
}

/// What a stream is after a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It may have more.
    Busy,
    /// It has no more.
    Quiet,
    /// It is not wanted any more.
    Gone,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Plays turns against streams that hold so many entries; the entries of each
    /// turn by stream, and how long the server might have waited.
    fn play(
        turns: &mut Turns,
        held: &mut [usize],
        budget: usize,
        joint: Joint,
    ) -> (Vec<(usize, usize)>, TurnWait) {
        let turn = turns.next(budget, joint).unwrap();
        let mut came = Vec::new();
        for &stream in &turn.streams {
            let entries = held[stream].min(turn.count);
            held[stream] -= entries;
            came.push((stream, entries));
        }
        let of = |stream| came.iter().find(|c| c.0 == stream).map_or(0, |c| c.1);
        let entries = came.iter().map(|c| c.1).sum();
        turns.replied(&turn, entries, |stream| match of(stream) >= turn.count {
            true => Next::Busy,
            false => Next::Quiet,
        });
        (came, turn.wait)
    }

    #[test]
    fn a_busy_stream_takes_turns_with_the_others() {
        let mut held = [0; 100];
        held[3] = 100_000;
        let mut turns = Turns::new(100);
        for _ in 0..20 {
            play(&mut turns, &mut held, 10, Joint::MayExceed);
        }
        held[77] = 1;
        let before = held[3];
        let mut asked = 0;
        while held[77] > 0 {
            play(&mut turns, &mut held, 10, Joint::MayExceed);
            asked += 1;
            assert!(asked <= 20, "each of the others is asked in time");
        }
        assert!(
            before - held[3] >= 10 * (asked - 1) / 2,
            "so is the busy one"
        );
    }

    #[test]
    fn all_are_asked_at_once_when_none_has_anything() {
        let mut held = [0; 30];
        let mut turns = Turns::new(30);
        let mut asked = HashSet::new();
        while asked.len() < 30 {
            let (came, wait) = play(&mut turns, &mut held, 10, Joint::MayExceed);
            assert_eq!((came.len(), wait), (10, TurnWait::No));
            asked.extend(came.into_iter().map(|c| c.0));
            assert!(!turns.take_silence());
        }
        let (came, wait) = play(&mut turns, &mut held, 10, Joint::MayExceed);
        assert_eq!((came.len(), wait), (30, TurnWait::Fully));
        assert!(turns.take_silence());
        assert!(turns.is_caught_up());
        held[5] = 3;
        let (came, wait) = play(&mut turns, &mut held, 10, Joint::MayExceed);
        assert_eq!((came.len(), wait), (30, TurnWait::Fully));
        assert!(turns.is_caught_up(), "it brought less than was wanted");
        let (came, _) = play(&mut turns, &mut held, 10, Joint::MayExceed);
        assert_eq!(came, [(5, 2)], "the rest of it comes before the others");
    }

    #[test]
    fn a_part_of_them_is_asked_where_no_more_may_come() {
        let mut held = [0; 30];
        let mut turns = Turns::new(30);
        let mut asked = 0;
        while !turns.take_silence() {
            let (came, _) = play(&mut turns, &mut held, 10, Joint::KeepsTo);
            assert_eq!(came.len(), 10);
            asked += 10;
        }
        assert!(asked >= 60, "each was asked, and again when none was busy");
        held.fill(1);
        let mut rows = 0;
        for _ in 0..3 {
            let (came, _) = play(&mut turns, &mut held, 10 - rows, Joint::KeepsTo);
            rows += came.iter().map(|c| c.1).sum::<usize>();
            assert!(rows <= 10);
            if rows == 10 {
                break;
            }
        }
        assert_eq!(rows, 10);
    }

    #[test]
    fn where_it_broke_off_comes_last() {
        let mut turns = Turns::new(4);
        let turn = turns.next(4, Joint::MayExceed).unwrap();
        assert!(turns.is_empty(), "they are out until there is a reply");
        turns.lost(turn, Some(1));
        let turn = turns.next(4, Joint::MayExceed).unwrap();
        assert_eq!(turn.streams, [0, 2, 3, 1]);
    }

    #[test]
    fn what_is_gone_is_not_asked() {
        let mut turns = Turns::new(3);
        assert!(turns.remove(1));
        assert!(!turns.remove(1));
        let turn = turns.next(10, Joint::MayExceed).unwrap();
        assert_eq!(turn.streams, [0, 2]);
        turns.replied(&turn, 0, |_| Next::Gone);
        assert!(turns.next(10, Joint::MayExceed).is_none());
        assert!(turns.take_silence(), "nothing is left to be asked");
    }
}
