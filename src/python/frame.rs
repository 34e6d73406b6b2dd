//! A frame handed over to Polars, chunk by chunk, without a copy.

use polars_core::prelude::{DataType, IntoSeries, Series, StructChunked};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3_polars::PySeries;

use crate::decode::{FieldType, Table, TableColumn};

/// A table as a `polars.DataFrame`: one series of structs, unnested. One
/// hand-over costs less than one a column, which small batches would feel.
pub fn to_frame(py: Python<'_>, table: Table) -> PyResult<Bound<'_, PyAny>> {
    if table.columns.is_empty() {
        return py.import("polars")?.getattr("DataFrame")?.call0();
    }
    let rows = table.rows;
    let columns: Vec<Series> = table.columns.into_iter().map(to_series).collect();
    // Columns of one length, under different names: the plan sees to that.
    let structs = StructChunked::from_series("".into(), rows, columns.iter())
        .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    PySeries(structs.into_series())
        .into_pyobject(py)?
        .getattr("struct")?
        .call_method0("unnest")
}

fn to_series(column: TableColumn) -> Series {
    let dtype = to_dtype(column.dtype);
    // SAFETY: the builders make the arrays that Polars has for the dtype.
    unsafe { Series::from_chunks_and_dtype_unchecked(column.name.into(), column.chunks, &dtype) }
}

fn to_dtype(dtype: FieldType) -> DataType {
    match dtype {
        FieldType::String => DataType::String,
        FieldType::Binary => DataType::Binary,
        FieldType::Boolean => DataType::Boolean,
        FieldType::Int8 => DataType::Int8,
        FieldType::Int16 => DataType::Int16,
        FieldType::Int32 => DataType::Int32,
        FieldType::Int64 => DataType::Int64,
        FieldType::Int128 => DataType::Int128,
        FieldType::UInt8 => DataType::UInt8,
        FieldType::UInt16 => DataType::UInt16,
        FieldType::UInt32 => DataType::UInt32,
        FieldType::UInt64 => DataType::UInt64,
        FieldType::UInt128 => DataType::UInt128,
        FieldType::Float32 => DataType::Float32,
        FieldType::Float64 => DataType::Float64,
    }
}
