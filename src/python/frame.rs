//! A frame handed over to Polars, chunk by chunk, without a copy.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr;

use polars_arrow::array::{Array, StructArray};
use polars_arrow::datatypes::{ArrowDataType, Field};
use polars_arrow::ffi::{ArrowArray, ArrowSchema, export_array_to_c, export_field_to_c};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::decode::{Table, TableColumn};

/// A table as a `polars.DataFrame`: one series of structs, unnested. One
/// hand-over costs less than one a column, which small batches would feel.
pub fn to_frame(py: Python<'_>, mut table: Table) -> PyResult<Bound<'_, PyAny>> {
    if table.columns.is_empty() {
        return py.import("polars")?.getattr("DataFrame")?.call0();
    }
    let names = number_columns(&mut table);
    let series = to_series(py, table)?;
    let frame = series.getattr(intern!(py, "struct"))?.call_method0(intern!(py, "unnest"))?;
    if let Some(names) = names {
        frame.setattr("columns", names)?;
    }
    Ok(frame)
}

/// Names that the C interface cannot carry, as a name in C ends at a zero byte:
/// all are returned then, and numbers are put in their place.
fn number_columns(table: &mut Table) -> Option<Vec<String>> {
    if !table.columns.iter().any(|column| column.name.contains('\0')) {
        return None;
    }
    let number = |(at, column): (usize, &mut TableColumn)| {
        std::mem::replace(&mut column.name, at.to_string())
    };
    Some(table.columns.iter_mut().enumerate().map(number).collect())
}

/// A `polars.Series` as Polars takes it from another library. pyo3-polars uses
/// this form, too, but makes it from a series, by way of two conversions: from
/// the arrays themselves it takes a third of the time, which is what a reader
/// that waits for each entry feels most.
#[repr(C)]
struct SeriesExport {
    field: *const ArrowSchema,
    /// One a chunk. Polars moves the arrays out.
    arrays: *const *mut ArrowArray,
    len: usize,
    /// What Polars would call at the end. This side frees what it made.
    release: Option<unsafe extern "C" fn(*mut SeriesExport)>,
    private_data: *mut c_void,
}

/// The rows as structs.
fn to_series(py: Python<'_>, table: Table) -> PyResult<Bound<'_, PyAny>> {
    let dtype = ArrowDataType::Struct(table.columns.iter().map(to_field).collect());
    let mut arrays: Vec<_> = to_structs(&dtype, table.columns)
        .map(|array| ManuallyDrop::new(export_array_to_c(array)))
        .collect();
    let pointers: Vec<*mut ArrowArray> = arrays.iter_mut().map(|array| &raw mut **array).collect();
    let field = export_field_to_c(&Field::new("".into(), dtype, true));
    let export = SeriesExport {
        field: &raw const field,
        arrays: pointers.as_ptr(),
        len: pointers.len(),
        release: None,
        private_data: ptr::null_mut(),
    };
    series_type(py)?.call_method1(intern!(py, "_import"), ((&raw const export).addr(),))
}

fn series_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static SERIES: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    SERIES.import(py, "polars", "Series")
}

fn to_field(column: &TableColumn) -> Field {
    let first = column.chunks.first();
    let dtype = first.map_or(ArrowDataType::Null, |chunk| chunk.dtype().clone());
    Field::new(column.name.as_str().into(), dtype, true)
}

/// One array of structs a chunk. The chunks of all columns have the same lengths.
fn to_structs(
    dtype: &ArrowDataType,
    columns: Vec<TableColumn>,
) -> impl Iterator<Item = Box<dyn Array>> {
    let mut columns: Vec<_> = columns.into_iter().map(|column| column.chunks.into_iter()).collect();
    std::iter::from_fn(move || {
        let values: Vec<_> = columns.iter_mut().map_while(Iterator::next).collect();
        let rows = values.first()?.len();
        Some(StructArray::new(dtype.clone(), rows, values, None).boxed())
    })
}
