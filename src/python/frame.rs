//! A frame handed over to Polars, column by column and chunk by chunk, without a
//! copy.
//!
//! This does what pyo3-polars does for a frame of this crate's own Polars, and
//! calls the same entry of the user's Polars. But it begins at the arrays, with no
//! series in between, and ends below Polars' constructors, which look at what they
//! are given. A reader that waits for each entry has its frame 30 µs sooner.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr;

use polars_arrow::datatypes::{ArrowDataType, Field};
use polars_arrow::ffi::{ArrowArray, ArrowSchema, export_array_to_c, export_field_to_c};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::decode::{Table, TableColumn};

/// A table as a `polars.DataFrame`.
pub fn to_frame(py: Python<'_>, mut table: Table) -> PyResult<Bound<'_, PyAny>> {
    let polars = Polars::get(py)?;
    let names = number_columns(&mut table);
    let columns = table.columns.into_iter();
    let columns: Vec<_> = columns
        .map(|column| polars.column(py, column))
        .collect::<PyResult<_>>()?;
    let frame = polars.frame(py, columns)?;
    if let Some(names) = names {
        frame.setattr("columns", names)?;
    }
    Ok(frame)
}

/// The names of all columns, where one of them cannot be handed over, as a name
/// in C ends at a zero byte; numbers are put in their place.
fn number_columns(table: &mut Table) -> Option<Vec<String>> {
    let is_cut = |column: &TableColumn| column.name.contains('\0');
    if !table.columns.iter().any(is_cut) {
        return None;
    }
    let columns = table.columns.iter_mut().enumerate();
    let names = columns.map(|(at, column)| std::mem::replace(&mut column.name, at.to_string()));
    Some(names.collect())
}

/// What is called of the user's Polars.
struct Polars {
    /// Takes a column, by the address of its [`SeriesExport`].
    import_column: Py<PyAny>,
    /// Makes the inner half of a frame from those of its columns.
    make_frame: Py<PyAny>,
    /// Puts the outer half around it.
    wrap_frame: Py<PyAny>,
}

impl Polars {
    fn get(py: Python<'_>) -> PyResult<&Self> {
        static POLARS: PyOnceLock<Polars> = PyOnceLock::new();
        POLARS.get_or_try_init(py, || {
            let polars = py.import("polars")?;
            let (series, frame) = (polars.getattr("Series")?, polars.getattr("DataFrame")?);
            let inner_series = series.call0()?.getattr("_s")?.get_type();
            let inner_frame = frame.call0()?.getattr("_df")?.get_type();
            Ok(Self {
                import_column: inner_series.getattr("_import")?.unbind(),
                make_frame: inner_frame.into_any().unbind(),
                wrap_frame: frame.getattr("_from_pydf")?.unbind(),
            })
        })
    }

    fn column<'py>(&self, py: Python<'py>, column: TableColumn) -> PyResult<Bound<'py, PyAny>> {
        let field = export_field_to_c(&to_field(&column));
        let chunks = column.chunks.into_iter();
        let mut arrays: Vec<_> = chunks
            .map(|chunk| ManuallyDrop::new(export_array_to_c(chunk)))
            .collect();
        let arrays: Vec<*mut ArrowArray> =
            arrays.iter_mut().map(|array| &raw mut **array).collect();
        let export = SeriesExport {
            field: &raw const field,
            arrays: arrays.as_ptr(),
            len: arrays.len(),
            release: None,
            private_data: ptr::null_mut(),
        };
        self.import_column
            .bind(py)
            .call1(((&raw const export).addr(),))
    }

    fn frame<'py>(
        &self,
        py: Python<'py>,
        columns: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.make_frame.bind(py).call1((columns,))?;
        self.wrap_frame.bind(py).call1((inner,))
    }
}

/// A column in the form in which Polars takes it from another library.
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

fn to_field(column: &TableColumn) -> Field {
    let first = column.chunks.first();
    let dtype = first.map_or(ArrowDataType::Null, |chunk| chunk.dtype().clone());
    Field::new(column.name.as_str().into(), dtype, true)
}
