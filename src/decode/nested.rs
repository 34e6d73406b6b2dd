//! Columns of lists, arrays and structs under construction: columns in a column,
//! filled from JSON.

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
        Self::Struct(Structs {
            rows: 0,
            by_name: (0..)
                .zip(fields)
                .map(|(at, f)| (f.name.clone(), at))
                .collect(),
            names: fields.iter().map(|field| field.name.clone()).collect(),
            columns: fields
                .iter()
                .map(|field| Column::with_room(&field.dtype, 0))
                .collect(),
        })
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
            Self::Struct(structs) => {
                structs.rows = len;
                structs.drop_unfinished();
            }
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
    names: Vec<String>,
    by_name: HashMap<String, usize>,
    /// Each is as long as up to its last value.
    columns: Vec<Column>,
}

impl Structs {
    fn push(&mut self, json: Json<'_>) -> bool {
        // Of a key that is repeated, the last value counts, so none is looked at
        // before all are there.
        let mut values: Vec<Option<Json<'_>>> = vec![None; self.columns.len()];
        let mut next = 0;
        let is_object = json.members(|key, value| {
            if let Some(at) = self.position(&key, next) {
                values[at] = Some(value);
                next = at + 1;
            }
            true
        });
        let row = self.rows;
        let fits = is_object
            && self
                .columns
                .iter_mut()
                .zip(values)
                .all(|(column, value)| value.is_none_or(|value| column.set_json(row, value)));
        if fits {
            self.rows += 1;
        } else {
            self.drop_unfinished();
        }
        fits
    }

    /// Which field has this name: most often the next one.
    fn position(&self, key: &str, next: usize) -> Option<usize> {
        if self.names.get(next).is_some_and(|name| name == key) {
            return Some(next);
        }
        self.by_name.get(key).copied()
    }

    fn drop_unfinished(&mut self) {
        for column in &mut self.columns {
            column.truncate(self.rows);
        }
    }

    fn finish(self, validity: Option<Bitmap>) -> ArrayRef {
        let rows = self.rows;
        let columns = self.columns.into_iter();
        let columns: Vec<ArrayRef> = columns.map(|column| column.finish(rows)).collect();
        let fields = self.names.into_iter().zip(&columns);
        let fields = fields
            .map(|(name, array)| ArrowField::new(name.into(), array.dtype().clone(), true))
            .collect();
        let dtype = ArrowDataType::Struct(fields);
        Box::new(StructArray::new(dtype, rows, columns, validity))
    }
}
