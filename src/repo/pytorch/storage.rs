use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use burn::tensor::{Bytes, DType};

use super::Reason;
use crate::kernel::MappedFile;

/// What a tensor's numbers are kept in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    /// Its key in the file.
    pub(super) key: Rc<str>,
    /// The type of its elements.
    pub(super) dtype: DType,
}

/// The element types by the names of their storages.
const STORAGES: [(&str, DType); 9] = [
    ("FloatStorage", DType::F32),
    ("HalfStorage", DType::F16),
    ("BFloat16Storage", DType::BF16),
    ("DoubleStorage", DType::F64),
    ("LongStorage", DType::I64),
    ("IntStorage", DType::I32),
    ("ShortStorage", DType::I16),
    ("CharStorage", DType::I8),
    ("ByteStorage", DType::U8),
];

/// The element type of a storage of that name.
pub(super) fn storage_dtype(name: &str) -> Option<DType> {
    let found = STORAGES.iter().find(|(known, _)| *known == name);
    match name {
        // One byte each, 0 or 1.
        "BoolStorage" => Some(DType::U8),
        _ => found.map(|&(_, dtype)| dtype),
    }
}

/// Says where a storage's bytes lie.
type Place<'a> = Box<dyn Fn(&Storage) -> Option<Range<usize>> + 'a>;

/// The storages of a file.
pub(super) struct Storages<'a> {
    file: &'a MappedFile,
    place: Place<'a>,
    /// The bytes that may still be copied.
    copies: Cell<usize>,
}

/// How often all bytes of a file may be copied: what several names share is copied for each.
const MOST_COPIES: usize = 8;

impl<'a> Storages<'a> {
    /// The storages whose bytes lie where `place` says.
    pub(super) fn new(
        file: &'a MappedFile,
        place: impl Fn(&Storage) -> Option<Range<usize>> + 'a,
    ) -> Self {
        Self {
            file,
            place: Box::new(place),
            copies: Cell::new(file.len().saturating_mul(MOST_COPIES)),
        }
    }

    /// All bytes of a storage.
    pub(super) fn bytes(&self, storage: &Storage) -> Result<&'a [u8], Reason> {
        let place = self.place(storage)?;
        let bytes = self.file.get(place);
        bytes.ok_or_else(|| format!("storage `{}` ends behind the file", storage.key))
    }

    /// A part of a storage: the mapped one where it lies as its elements must.
    pub(super) fn share(&self, storage: &Storage, part: Range<usize>) -> Result<Bytes, Reason> {
        let place = self.place(storage)?;
        let beyond = || format!("a tensor is more than storage `{}` holds", storage.key);
        if part.end > place.len() {
            return Err(beyond());
        }
        let range = place.start + part.start..place.start + part.end;
        let mapped = self.file.share(range).ok_or_else(beyond)?;
        let is_aligned = mapped.as_ptr().addr().is_multiple_of(storage.dtype.size());
        // As for safetensors: Windows does not replace a file that is mapped.
        match is_aligned && !cfg!(windows) {
            true => Ok(mapped),
            false => {
                self.allow_copy(mapped.len())?;
                Ok(Bytes::from_bytes_vec(mapped.to_vec()))
            }
        }
    }

    /// Allows that many bytes to be copied: a few bytes can name the same tensor any number of
    /// times.
    pub(super) fn allow_copy(&self, bytes: usize) -> Result<(), Reason> {
        let left = self.copies.get().checked_sub(bytes);
        let left = left.ok_or("its tensors are many times as large as the file")?;
        self.copies.set(left);
        Ok(())
    }

    fn place(&self, storage: &Storage) -> Result<Range<usize>, Reason> {
        (self.place)(storage).ok_or_else(|| format!("storage `{}` is missing", storage.key))
    }
}
