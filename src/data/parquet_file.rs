//! Apache Parquet, row group by row group.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::{ReaderIter, TreeBuilder};
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor, Type};
use serde_json::{Map, Value};

use super::format::open;
use super::parquet_pages;
use super::rows::{Place, Row, Rows};
use crate::error::{DataError, Result};

pub(super) fn rows(path: &Path, columns: &[String]) -> Result<Rows> {
    let file = open(path)?;
    let opened = without_panic(|| {
        let reader = SerializedFileReader::new(file.try_clone()?)?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        Ok((project(&schema, columns)?, reader))
    });
    let (schema, reader) = opened.map_err(|e| broken(path, &e))?;
    Ok(Box::new(RowGroups {
        path: path.to_owned(),
        file,
        schema,
        reader,
        next_group: 0,
        group: None,
        row: 0,
    }))
}

/// The number of rows, from the file's own account of them.
pub(super) fn count(path: &Path) -> Result<usize> {
    let file = open(path)?;
    let reader = without_panic(|| SerializedFileReader::new(file));
    let reader = reader.map_err(|e| broken(path, &e))?;
    Ok(usize::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0))
}

/// Runs the parquet library, which panics at some of what a file can be wrong in.
fn without_panic<T>(
    work: impl FnOnce() -> std::result::Result<T, ParquetError>,
) -> std::result::Result<T, ParquetError> {
    // What was being read is let go with the error.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(ParquetError::General(
                text.unwrap_or("malformed").to_owned(),
            ))
        }
    }
}

/// The schema of the columns that are asked for; all if one of them is not there.
fn project(
    schema: &SchemaDescPtr,
    columns: &[String],
) -> std::result::Result<SchemaDescPtr, ParquetError> {
    let root = schema.root_schema();
    let fields = root.get_fields().iter();
    let wanted: Vec<_> = fields
        .filter(|field| columns.iter().any(|name| name == field.name()))
        .cloned()
        .collect();
    if columns.is_empty() || wanted.len() != columns.len() {
        return Ok(schema.clone());
    }
    let root = Type::group_type_builder(root.name())
        .with_fields(wanted)
        .build()?;
    Ok(Arc::new(SchemaDescriptor::new(Arc::new(root))))
}

struct RowGroups {
    path: PathBuf,
    file: File,
    reader: SerializedFileReader<File>,
    schema: SchemaDescPtr,
    next_group: usize,
    group: Option<ReaderIter>,
    row: usize,
}

/// Checks what the pages that are read say that they hold.
fn check_pages(
    file: &File,
    group: &RowGroupMetaData,
    schema: &SchemaDescPtr,
) -> std::result::Result<(), ParquetError> {
    let is_read = |chunk: &&ColumnChunkMetaData| {
        let path = chunk.column_path();
        schema.columns().iter().any(|read| read.path() == path)
    };
    let mut chunks = group.columns().iter().filter(is_read);
    chunks.try_for_each(|chunk| parquet_pages::check(file, chunk))
}

impl RowGroups {
    fn read(&mut self) -> std::result::Result<Option<Row>, ParquetError> {
        loop {
            if let Some(row) = self.group.as_mut().and_then(Iterator::next) {
                self.row += 1;
                let columns = row?.into_columns().into_iter();
                return Ok(Some(Row {
                    place: Place::Row(self.row),
                    values: columns.map(|(name, field)| (name, value(field))).collect(),
                }));
            }
            if self.next_group == self.reader.num_row_groups() {
                return Ok(None);
            }
            let group = self.reader.get_row_group(self.next_group)?;
            check_pages(&self.file, group.metadata(), &self.schema)?;
            self.group = Some(TreeBuilder::new().as_iter(self.schema.clone(), &*group)?);
            self.next_group += 1;
        }
    }
}

impl Iterator for RowGroups {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = without_panic(|| self.read());
        row.map_err(|error| broken(&self.path, &error)).transpose()
    }
}

fn value(field: Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(flag) => flag.into(),
        Field::Byte(number) => number.into(),
        Field::Short(number) => number.into(),
        Field::Int(number) => number.into(),
        Field::Long(number) => number.into(),
        Field::UByte(number) => number.into(),
        Field::UShort(number) => number.into(),
        Field::UInt(number) => number.into(),
        Field::ULong(number) => number.into(),
        Field::Float16(number) => number.to_f32().into(),
        Field::Float(number) => number.into(),
        Field::Double(number) => number.into(),
        Field::Str(text) => text.into(),
        // Texts of writers that do not say that they are texts.
        Field::Bytes(bytes) => match bytes.as_utf8() {
            Ok(text) => text.into(),
            Err(_) => named("binary", format!("{} bytes", bytes.len())),
        },
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect(),
        Field::Group(row) => {
            let fields = row.into_columns().into_iter();
            Value::Object(fields.map(|(name, field)| (name, value(field))).collect())
        }
        other => named("other", other.to_string()),
    }
}

/// A value of a type that neither a text nor a label has.
fn named(kind: &str, shown: String) -> Value {
    Value::Object(Map::from_iter([(kind.to_owned(), shown.into())]))
}

fn broken(path: &Path, error: &ParquetError) -> crate::Error {
    DataError::InvalidFile {
        path: path.to_owned(),
        reason: error.to_string(),
    }
    .into()
}
