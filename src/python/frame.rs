//! A frame handed over to Polars, column by column and chunk by chunk, without a
//! copy.
//!
//! This does what pyo3-polars does for a frame of this crate's own Polars, and
//! calls the same entry of the user's Polars. But it begins at the arrays, with no
//! series in between, and ends below Polars' constructors, which look at what they
//! are given. A reader that waits for each entry has its frame 30 µs sooner.

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr;

use polars_arrow::datatypes::{ArrowDataType, Field as ArrowField};
use polars_arrow::ffi::{ArrowArray, ArrowSchema, export_array_to_c, export_field_to_c};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::dtypes::{PySchema, to_cast};
use crate::decode::{Field, Table, TableColumn};

/// Makes frames of the tables of one read.
#[derive(Default)]
pub struct Frames {
    /// The dtypes of the columns that Polars has to make, of what is handed over:
    /// Enum and Categorical, and whatever holds them.
    casts: HashMap<String, Py<PyAny>>,
}

impl Frames {
    /// For a schema, as this crate takes it and as Python gave it.
    pub fn new(fields: &[Field], schema: &PySchema<'_>) -> PyResult<Self> {
        let mut casts = HashMap::new();
        for (field, (_, given)) in fields.iter().zip(schema) {
            if field.dtype.is_cast_by_polars() {
                let dtype = to_cast(given, &field.dtype)?;
                casts.insert(field.name.clone(), dtype.unbind());
            }
        }
        Ok(Self { casts })
    }

    /// A table as a `polars.DataFrame`.
    pub fn to_frame<'py>(&self, py: Python<'py>, mut table: Table) -> PyResult<Bound<'py, PyAny>> {
        let polars = Polars::get(py)?;
        let casts = self.casts_of(&table);
        let names = number_columns(&mut table);
        let columns = table.columns.into_iter();
        let mut columns: Vec<_> = columns
            .map(|column| polars.column(py, column))
            .collect::<PyResult<_>>()?;
        for (at, dtype) in casts {
            columns[at] = polars.cast(&columns[at], dtype)?;
        }
        let frame = polars.frame(py, columns)?;
        if let Some(names) = names {
            frame.setattr("columns", names)?;
        }
        Ok(frame)
    }

    /// Which columns of a table are to be cast, and to what.
    fn casts_of(&self, table: &Table) -> Vec<(usize, &Py<PyAny>)> {
        if self.casts.is_empty() {
            return Vec::new();
        }
        let columns = table.columns.iter().enumerate();
        columns
            .filter_map(|(at, column)| Some((at, self.casts.get(&column.name)?)))
            .collect()
    }
}

/// A column as a `polars.Series`.
pub fn to_series(py: Python<'_>, column: TableColumn) -> PyResult<Bound<'_, PyAny>> {
    let polars = Polars::get(py)?;
    let inner = polars.column(py, column)?;
    polars.wrap_column.bind(py).call1((inner,))
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
    /// Puts the outer half around the inner half of a column.
    wrap_column: Py<PyAny>,
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
                wrap_column: series.getattr("_from_pyseries")?.unbind(),
                make_frame: inner_frame.into_any().unbind(),
                wrap_frame: frame.getattr("_from_pydf")?.unbind(),
            })
        })
    }

    fn column<'py>(&self, py: Python<'py>, column: TableColumn) -> PyResult<Bound<'py, PyAny>> {
        let field = export_field_to_c(&to_arrow_field(&column));
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

    /// The same values in another dtype, which they are known to fit.
    fn cast<'py>(
        &self,
        column: &Bound<'py, PyAny>,
        dtype: &Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let column = self.wrap_column.bind(column.py()).call1((column,))?;
        column.call_method1("cast", (dtype,))?.getattr("_s")
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

fn to_arrow_field(column: &TableColumn) -> ArrowField {
    let first = column.chunks.first();
    let dtype = first.map_or(ArrowDataType::Null, |chunk| chunk.dtype().clone());
    ArrowField::new(column.name.as_str().into(), dtype, true)
}
