//! What a read should make of each entry: which columns, of which dtypes.

use std::collections::HashMap;

use super::dtype::{Field, FieldType};
use crate::error::{Error, Result};

/// Which fields to decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fields {
    /// These, in this order; others are passed over.
    Schema(Vec<Field>),
    /// Every field there is, in order of first appearance, as String unless the
    /// plan says otherwise.
    Discover,
}

/// Which columns to make of the entry ID and the stream's key, under which names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdColumns {
    /// The key of the stream as String.
    pub key: Option<String>,
    /// The whole ID as String.
    pub id: Option<String>,
    /// Its milliseconds as Int64.
    pub timestamp: Option<String>,
    /// Its sequence number as Int64.
    pub sequence: Option<String>,
    /// How often the entry has been delivered, as Int64.
    pub deliveries: Option<String>,
}

impl IdColumns {
    fn names(&self) -> impl Iterator<Item = &str> {
        let columns = [
            &self.key,
            &self.id,
            &self.timestamp,
            &self.sequence,
            &self.deliveries,
        ];
        columns.into_iter().filter_map(|name| name.as_deref())
    }
}

/// What becomes of a text that is not its dtype's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMisfit {
    /// The read fails, naming entry and field.
    Raise,
    /// The value becomes null.
    Null,
}

/// The columns of a read, checked: no two have the same name.
#[derive(Debug, Clone)]
pub struct Plan {
    ids: IdColumns,
    fields: Fields,
    on_misfit: OnMisfit,
    keeps_entry_ids: bool,
    /// What discovered fields become.
    discovered: FieldType,
}

impl Plan {
    /// Checks that no name is given twice.
    pub fn new(ids: IdColumns, fields: Fields, on_misfit: OnMisfit) -> Result<Self> {
        let mut seen = HashMap::new();
        for name in ids.names() {
            if seen.insert(name, "id column").is_some() {
                return Err(Error::Argument(format!(
                    "two id columns are named {name:?}: give them different names by \
                     id_column, timestamp_column, sequence_column, delivery_count_column, \
                     key_column_name"
                )));
            }
        }
        if let Fields::Schema(schema) = &fields {
            for field in schema {
                match seen.insert(&field.name, "field") {
                    None => {}
                    Some("field") => {
                        return Err(Error::Argument(format!(
                            "schema: the field {:?} is given twice",
                            field.name
                        )));
                    }
                    Some(_) => {
                        return Err(Error::Argument(format!(
                            "schema: the field {:?} has the name of an id column: rename the \
                             column (id_column, timestamp_column, sequence_column, \
                             delivery_count_column, key_column_name) or leave it out \
                             (include_id, include_timestamp, include_sequence, \
                             include_delivery_count, include_key)",
                            field.name
                        )));
                    }
                }
            }
        }
        Ok(Self {
            ids,
            fields,
            on_misfit,
            keeps_entry_ids: false,
            discovered: FieldType::String,
        })
    }

    /// The same plan, keeping each row's [`EntryId`](crate::EntryId) beside the
    /// columns.
    pub fn keeping_entry_ids(mut self) -> Self {
        self.keeps_entry_ids = true;
        self
    }

    /// The same plan, with discovered fields as Binary.
    pub fn discovering_bytes(mut self) -> Self {
        self.discovered = FieldType::Binary;
        self
    }

    /// The dtype of discovered fields.
    pub(crate) fn discovered(&self) -> &FieldType {
        &self.discovered
    }

    /// Whether each row's ID is kept beside the columns.
    pub fn keeps_entry_ids(&self) -> bool {
        self.keeps_entry_ids
    }

    /// The columns made of the entry ID.
    pub fn ids(&self) -> &IdColumns {
        &self.ids
    }

    /// The fields to decode.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// What becomes of a text that is not its dtype's.
    pub fn on_misfit(&self) -> OnMisfit {
        self.on_misfit
    }

    /// Whether an id column has this name.
    pub(crate) fn is_id_column(&self, name: &str) -> bool {
        self.ids.names().any(|id| id == name)
    }
}
