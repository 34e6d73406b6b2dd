//! Columns handed over to Polars, chunk by chunk, without a copy.

use polars_core::prelude::{DataType, Series};
use pyo3_polars::PySeries;

use crate::decode::{FieldType, Table, TableColumn};

/// A table's columns.
pub fn to_series(table: Table) -> Vec<PySeries> {
    table.columns.into_iter().map(one_series).collect()
}

fn one_series(column: TableColumn) -> PySeries {
    let dtype = to_dtype(column.dtype);
    // SAFETY: the builders make the arrays that Polars has for the dtype.
    let series = unsafe {
        Series::from_chunks_and_dtype_unchecked(column.name.into(), column.chunks, &dtype)
    };
    PySeries(series)
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
