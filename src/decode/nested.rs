//! Columns of lists, arrays and structs under construction: columns in a column,
//! filled from JSON.

use std::borrow::Cow;
use std::collections::HashMap;

use polars_arrow::array::{ArrayRef, FixedSizeListArray, ListArray, StructArray};
use polars_arrow::bitmap::Bitmap;
use polars_arrow::datatypes::{ArrowDataType, Field as ArrowField};
use polars_arrow::offset::OffsetsBuffer;

use super::column::Column;
use super::dtype::{Field, FieldType};
use super::json::Json;

/// Rows of lists, of arrays, or of structs.
#[derive(Debug)]
pub enum Nested {
    List(Lists),
    Array(Arrays),
    Struct(Structs),
}

impl Nested {
    pub fn list(inner: &FieldType) -> Self {
        Self::List(Lists {
            ends: Vec::new(),
            values: Column::with_room(inner, 0),
        })
    }

    pub fn array(inner: &FieldType, width: usize) -> Self {
        Self::Array(Arrays {
            width,
            rows: 0,
            values: Column::with_room(inner, 0),
        })
    }

    pub fn structs(fields: &[Field]) -> Self {
        Self::Struct(Structs::new(fields, 0))
    }

    /// Adds a row, or nothing if the value does not fit.
    pub fn push(&mut self, json: Json<'_>) -> bool {
        match self {
            Self::List(lists) => lists.push(json),
            Self::Array(arrays) => arrays.push(json),
            Self::Struct(structs) => structs.push(json),
        }
    }

    /// Adds rows that are null.
    pub fn extend_null(&mut self, additional: usize) {
        match self {
            Self::List(lists) => lists
                .ends
                .resize(lists.ends.len() + additional, lists.values.len()),
            Self::Array(arrays) => arrays.rows += additional,
            Self::Struct(structs) => structs.rows += additional,
        }
    }

    /// Drops the rows from `len` on.
    pub fn truncate(&mut self, len: usize) {
        match self {
            Self::List(lists) => {
                lists.ends.truncate(len);
                lists.values.truncate(lists.end());
            }
            Self::Array(arrays) => {
                arrays.rows = len;
                arrays.values.truncate(len * arrays.width);
            }
            Self::Struct(structs) => structs.truncate(len),
        }
    }

    pub fn finish(self, validity: Option<Bitmap>) -> ArrayRef {
        match self {
            Self::List(lists) => lists.finish(validity),
            Self::Array(arrays) => arrays.finish(validity),
            Self::Struct(structs) => structs.finish(validity),
        }
    }
}

/// Lists of any length, one after another in one column.
#[derive(Debug)]
pub struct Lists {
    /// Where each row ends in the column of values; it begins where the one before
    /// ended.
    ends: Vec<usize>,
    values: Column,
}

impl Lists {
    fn end(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn push(&mut self, json: Json<'_>) -> bool {
        let values = &mut self.values;
        if !json.elements(|element| values.push_json(element)) {
            self.values.truncate(self.end());
            return false;
        }
        self.ends.push(self.values.len());
        true
    }

    fn finish(self, validity: Option<Bitmap>) -> ArrayRef {
        let end = self.end();
        let values = self.values.finish(end);
        let mut offsets = Vec::with_capacity(self.ends.len() + 1);
        offsets.push(0i64);
        // No memory holds more values than that.
        offsets.extend(self.ends.into_iter().map(|end| end as i64));
        // SAFETY: there is one, and each row ends at or behind the end of the one
        // before.
        let offsets = unsafe { OffsetsBuffer::new_unchecked(offsets.into()) };
        let dtype = ListArray::<i64>::default_datatype(values.dtype().clone());
        Box::new(ListArray::new(dtype, offsets, values, validity))
    }
}

/// Lists of one length, one after another in one column.
#[derive(Debug)]
pub struct Arrays {
    width: usize,
    rows: usize,
    /// Rows that are null at the end are left out, and made when a value comes.
    values: Column,
}

impl Arrays {
    fn push(&mut self, json: Json<'_>) -> bool {
        let begin = self.rows * self.width;
        let values = &mut self.values;
        values.fill_up(begin);
        let mut width = 0;
        let fits = json.elements(|element| {
            width += 1;
            width <= self.width && values.push_json(element)
        });
        if !fits || width != self.width {
            values.truncate(begin);
            return false;
        }
        self.rows += 1;
        true
    }

    fn finish(self, validity: Option<Bitmap>) -> ArrayRef {
        if self.width == 0 {
            return self.into_empty_lists().finish(validity);
        }
        let values = self.values.finish(self.rows * self.width);
        let dtype = FixedSizeListArray::default_datatype(values.dtype().clone(), self.width);
        Box::new(FixedSizeListArray::new(dtype, self.rows, values, validity))
    }

    /// Polars takes no arrays of no values from another library; but it makes them
    /// of lists.
    fn into_empty_lists(self) -> Lists {
        Lists {
            ends: vec![0; self.rows],
            values: self.values,
        }
    }
}

/// Structs: a column a field.
#[derive(Debug)]
pub struct Structs {
    rows: usize,
    fields: Vec<Field>,
    by_name: HashMap<String, usize>,
    /// Each is as long as up to its last value.
    columns: Vec<Column>,
}

/// Why a value is not the struct that is due.
pub enum Unfit<'a> {
    /// It is no object.
    Whole,
    /// Its value of this field does not fit.
    Member { field: &'a Field, got: Json<'a> },
}

impl Structs {
    /// No rows, with room for about `room` of them.
    pub fn new(fields: &[Field], room: usize) -> Self {
        let names = fields.iter().map(|field| field.name.clone());
        let columns = fields.iter();
        Self {
            rows: 0,
            by_name: names.zip(0..).collect(),
            columns: columns
                .map(|field| Column::with_room(&field.dtype, room))
                .collect(),
            fields: fields.to_vec(),
        }
    }

    /// Adds a row, or nothing if the value does not fit.
    fn push(&mut self, json: Json<'_>) -> bool {
        let row = self.rows;
        let fits = self
            .values(|take| json.members(take))
            .is_some_and(|values| {
                let mut columns = self.columns.iter_mut().zip(values);
                columns.all(|(column, value)| value.is_none_or(|value| column.set_json(row, value)))
            });
        if fits {
            self.rows += 1;
        } else {
            self.drop_unfinished();
        }
        fits
    }

    /// Adds a row whatever the text is: what does not fit becomes null, and the
    /// first of that is told.
    pub fn push_what_fits<'a>(&'a mut self, text: &'a [u8]) -> Result<(), Unfit<'a>> {
        let row = self.rows;
        self.rows += 1;
        let Some(values) = self.values(|take| Json::members_of(text, take)) else {
            return Err(Unfit::Whole);
        };
        let mut result = Ok(());
        for ((column, value), field) in self.columns.iter_mut().zip(values).zip(&self.fields) {
            if let Some(got) = value
                && !column.set_json(row, got)
                && result.is_ok()
            {
                result = Err(Unfit::Member { field, got });
            }
        }
        result
    }

    /// The value of each field, if all members are given.
    fn values<'a>(
        &self,
        members: impl FnOnce(&mut dyn FnMut(Cow<'a, str>, Json<'a>) -> bool) -> bool,
    ) -> Option<Vec<Option<Json<'a>>>> {
        // Of a key that is repeated, the last value counts, so none is looked at
        // before all are there.
        let mut values = vec![None; self.columns.len()];
        let mut next = 0;
        let are_given = members(&mut |key, value| {
            if let Some(at) = self.position(&key, next) {
                values[at] = Some(value);
                next = at + 1;
            }
            true
        });
        are_given.then_some(values)
    }

    /// Which field has this name: most often the next one.
    fn position(&self, key: &str, next: usize) -> Option<usize> {
        if self.fields.get(next).is_some_and(|field| field.name == key) {
            return Some(next);
        }
        self.by_name.get(key).copied()
    }

    fn drop_unfinished(&mut self) {
        for column in &mut self.columns {
            column.truncate(self.rows);
        }
    }

    /// Drops the rows from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.rows = len;
        self.drop_unfinished();
    }

    /// The finished array of each field.
    pub fn finish_columns(self) -> Vec<ArrayRef> {
        let columns = self.columns.into_iter();
        columns.map(|column| column.finish(self.rows)).collect()
    }

    fn finish(mut self, validity: Option<Bitmap>) -> ArrayRef {
        let (rows, names) = (self.rows, std::mem::take(&mut self.fields));
        let columns = self.finish_columns();
        let fields = names.into_iter().zip(&columns);
        let fields = fields
            .map(|(field, array)| ArrowField::new(field.name.into(), array.dtype().clone(), true))
            .collect();
        let dtype = ArrowDataType::Struct(fields);
        Box::new(StructArray::new(dtype, rows, columns, validity))
    }
}

#[cfg(test)]
mod tests {
    use super::super::dtype::TimeUnit;
    use super::*;

    /// A dtype, texts that fit, and texts that do not.
    fn kinds() -> Vec<(FieldType, [&'static str; 3], [&'static str; 2])> {
        let point = FieldType::Struct(vec![
            Field {
                name: "x".to_owned(),
                dtype: FieldType::Int64,
            },
            Field {
                name: "near".to_owned(),
                dtype: FieldType::List(Box::new(FieldType::String)),
            },
        ]);
        let lists = FieldType::List(Box::new(FieldType::Int64));
        vec![
            (
                lists.clone(),
                ["[1, 2]", "[]", "[null, 3]"],
                ["[1, x]", "[1, 2.5]"],
            ),
            (
                FieldType::Array(Box::new(lists), 2),
                ["[[1], [2, 3]]", "[null, []]", "[[4], null]"],
                ["[[1], [2], [3]]", "[[1], [2, \"x\"]]"],
            ),
            (
                FieldType::Array(Box::new(FieldType::Int64), 0),
                ["[]", " []", "[ ]"],
                ["[1]", "{}"],
            ),
            (
                point.clone(),
                [
                    "{\"x\": 1, \"near\": [\"a\"]}",
                    "{}",
                    "{\"near\": [null, \"long enough to be apart\"]}",
                ],
                [
                    "{\"x\": 1, \"near\": [\"a\", 2]}",
                    "{\"near\": [\"a\"], \"x\": \"1\"}",
                ],
            ),
            (
                FieldType::List(Box::new(point)),
                ["[{\"x\": 1}, null]", "[{\"near\": [\"a\"]}]", "[]"],
                [
                    "[{\"x\": 1, \"near\": [\"a\"]}, 5]",
                    "[{\"near\": [\"a\"], \"x\": 1.5}]",
                ],
            ),
            (
                FieldType::Duration(TimeUnit::Microseconds),
                ["PT1S", "-5", "P1D"],
                ["P1Y", "1.5"],
            ),
        ]
    }

    /// The array of these texts, none of which is replaced or taken back.
    fn plainly(dtype: &FieldType, rows: &[Option<&str>]) -> String {
        let mut column = Column::with_room(dtype, 0);
        for (row, text) in rows.iter().enumerate() {
            if let Some(text) = text {
                assert!(column.set(row, text.as_bytes()), "{dtype}: {text}");
            }
        }
        format!("{:?}", column.finish(rows.len()))
    }

    #[test]
    fn rows_are_left_out_replaced_refused_and_taken_back() {
        for (dtype, [a, b, c], bad) in kinds() {
            let mut column = Column::with_room(&dtype, 0);
            assert!(column.set(0, a.as_bytes()));
            for text in bad {
                assert!(!column.set(2, text.as_bytes()), "{dtype}: {text}");
            }
            assert!(column.set(2, a.as_bytes()));
            assert!(column.set(2, b.as_bytes()));
            for text in bad {
                assert!(column.set(3, c.as_bytes()));
                assert!(!column.set(3, text.as_bytes()), "{dtype}: {text}");
            }
            assert!(column.set(4, a.as_bytes()));
            assert!(column.set(7, b.as_bytes()));
            column.truncate(7);
            assert!(column.set(5, c.as_bytes()));
            let rows = [Some(a), None, Some(b), None, Some(a), Some(c), None, None];
            let array = column.finish(rows.len());
            assert_eq!(format!("{array:?}"), plainly(&dtype, &rows), "{dtype}");
            assert_eq!(array.null_count(), 4, "{dtype}");
        }
    }

    #[test]
    fn what_is_null_is_no_misfit() {
        for (dtype, [a, ..], _) in kinds() {
            let mut column = Column::with_room(&dtype, 0);
            let is_json = !matches!(dtype, FieldType::Duration(_));
            assert_eq!(column.set(0, b"null"), is_json);
            assert_eq!(column.set(1, b" null\n"), is_json);
            assert!(column.set(2, a.as_bytes()));
            let array = column.finish(3);
            assert_eq!(
                format!("{array:?}"),
                plainly(&dtype, &[None, None, Some(a)])
            );
        }
    }

    #[test]
    fn a_column_without_rows_has_its_dtype() {
        for (dtype, [a, ..], _) in kinds() {
            let empty = Column::with_room(&dtype, 0).finish(0);
            let mut column = Column::with_room(&dtype, 0);
            column.set(0, a.as_bytes());
            assert_eq!(empty.dtype(), column.finish(1).dtype());
            assert_eq!(Column::with_room(&dtype, 0).finish(5).null_count(), 5);
        }
    }
}
