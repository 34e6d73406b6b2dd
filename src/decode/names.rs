//! Which column a field name belongs to.

use std::collections::HashMap;
use std::sync::Arc;

use super::plan::{Fields, Plan};
use crate::error::Misfit;

/// What to do with a field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// It goes to this column.
    Column(usize),
    /// Nobody asked for it.
    Skip,
}

/// Field names and their columns; where fields are discovered, new names get
/// the next column.
#[derive(Debug, Clone)]
pub struct Names {
    columns: HashMap<Box<[u8]>, usize>,
    names: Vec<Arc<str>>,
    discover: bool,
}

impl Names {
    /// The names that a plan knows at the start.
    pub fn new(plan: &Plan) -> Self {
        let names: Vec<Arc<str>> = match plan.fields() {
            Fields::Schema(fields) => fields.iter().map(|f| f.name.as_str().into()).collect(),
            Fields::Discover => Vec::new(),
        };
        Self {
            columns: names
                .iter()
                .enumerate()
                .map(|(column, name)| (name.as_bytes().into(), column))
                .collect(),
            names,
            discover: *plan.fields() == Fields::Discover,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The name of a column.
    pub fn name(&self, column: usize) -> &Arc<str> {
        &self.names[column]
    }

    /// Where the values of a field go.
    pub(super) fn target(&mut self, name: &[u8], plan: &Plan) -> Result<Target, Misfit> {
        if let Some(&column) = self.columns.get(name) {
            return Ok(Target::Column(column));
        }
        if !self.discover {
            return Ok(Target::Skip);
        }
        let Ok(text) = std::str::from_utf8(name) else {
            return Err(Misfit::NameNotUtf8);
        };
        if plan.is_id_column(text) {
            return Err(Misfit::NameClash);
        }
        let column = self.names.len();
        self.names.push(text.into());
        self.columns.insert(name.into(), column);
        Ok(Target::Column(column))
    }
}

/// What the n-th field of an entry was last time, so that entries of one shape
/// need no look-up: a header and name that equal the last ones are recognised
/// by two comparisons of 16 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prediction {
    wanted: [u128; 2],
    mask: [u128; 2],
    len: usize,
    target: Target,
}

/// Bytes a prediction looks at.
const WINDOW: usize = 32;

impl Prediction {
    /// A prediction that never holds.
    pub(super) const NONE: Self = Self {
        wanted: [1; 2],
        mask: [0; 2],
        len: 0,
        target: Target::Skip,
    };

    /// A prediction for the field `name`; one that never holds if the name is
    /// too long for one.
    pub(super) fn new(name: &[u8], target: Target) -> Self {
        let mut token = format!("${}\r\n", name.len()).into_bytes();
        token.extend_from_slice(name);
        token.extend_from_slice(b"\r\n");
        let len = token.len();
        if len > WINDOW {
            return Self::NONE;
        }
        let mut wanted = [0; WINDOW];
        let mut mask = [0; WINDOW];
        wanted[..len].copy_from_slice(&token);
        mask[..len].fill(0xff);
        Self {
            wanted: halves(&wanted),
            mask: halves(&mask),
            len,
            target,
        }
    }

    /// If `input` begins with the whole name token that was predicted: where its
    /// value goes, and the token's length.
    #[inline(always)]
    pub(super) fn check(&self, input: &[u8]) -> Option<(Target, usize)> {
        let [head, tail] = halves(input.first_chunk()?);
        let differs =
            ((head & self.mask[0]) ^ self.wanted[0]) | ((tail & self.mask[1]) ^ self.wanted[1]);
        (differs == 0).then_some((self.target, self.len))
    }
}

#[inline(always)]
fn halves(window: &[u8; WINDOW]) -> [u128; 2] {
    let (head, tail) = window.split_at(WINDOW / 2);
    [head, tail].map(|half| {
        let mut bytes = [0; WINDOW / 2];
        bytes.copy_from_slice(half);
        u128::from_ne_bytes(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_holds_for_its_own_token_only() {
        let prediction = Prediction::new(b"user_id", Target::Column(3));
        let pad = [b'x'; WINDOW];
        let input = |text: &str| [text.as_bytes(), &pad].concat();
        assert_eq!(
            prediction.check(&input("$7\r\nuser_id\r\n")),
            Some((Target::Column(3), 13))
        );
        assert_eq!(prediction.check(&input("$7\r\nuser_ie\r\n")), None);
        assert_eq!(prediction.check(&input("$8\r\nuser_id1\r\n")), None);
        assert_eq!(
            prediction.check(b"$7\r\nuser_id\r\n"),
            None,
            "too short to see"
        );
        let long = Prediction::new(&[b'n'; 40], Target::Skip);
        let token = format!("$40\r\n{}\r\n", "n".repeat(40));
        assert_eq!(long.check(token.as_bytes()), None);
    }
}
