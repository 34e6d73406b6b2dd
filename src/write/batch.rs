//! Some rows of a frame.

use polars_arrow::array::StructArray;

use super::values::Values;
use crate::error::{Error, Result, shorten};

/// Some rows of a frame, as one chunk of Arrow a column.
#[derive(Debug)]
pub struct Batch {
    first_row: u64,
    rows: usize,
    columns: Vec<Values>,
}

impl Batch {
    /// Takes an array whose fields are the columns, in the order of `names`. Its
    /// first row is the frame's row `first_row`.
    ///
    /// # Errors
    /// [`Error::Argument`] if a column is of a dtype that has no text.
    pub fn new(first_row: u64, array: &StructArray, names: &[String]) -> Result<Self> {
        let columns = names.iter().zip(array.values()).map(|(name, values)| {
            Values::of(values.as_ref()).ok_or_else(|| {
                let dtype = values.dtype();
                Error::Argument(format!("column {name:?}: {dtype:?} has no text to write"))
            })
        });
        Ok(Self {
            first_row,
            rows: array.len(),
            columns: columns.collect::<Result<_>>()?,
        })
    }

    /// Number of its first row in the frame.
    pub fn first_row(&self) -> u64 {
        self.first_row
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Number in the frame of the row after its last.
    pub fn end(&self) -> u64 {
        self.first_row + self.rows as u64
    }

    /// The values of a column.
    pub fn column(&self, at: usize) -> &Values {
        &self.columns[at]
    }

    /// Whether a column has a text in each row, and one that will do.
    ///
    /// # Errors
    /// [`Error::Argument`], naming the first row that has none.
    pub fn check_texts(
        &self,
        column: usize,
        expected: &str,
        will_do: impl Fn(&[u8]) -> bool,
    ) -> Result<()> {
        let values = &self.columns[column];
        let mut scratch = Vec::new();
        for at in 0..self.rows {
            let row = self.first_row + at as u64;
            if values.is_null(at) {
                return Err(Error::Argument(format!(
                    "{expected} in row {row}, got null"
                )));
            }
            let text = values.text(at, &mut scratch);
            if !will_do(text) {
                let text = shorten(text);
                return Err(Error::Argument(format!(
                    "{expected} in row {row}, got {text}"
                )));
            }
        }
        Ok(())
    }
}
