use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use burn::tensor::TensorData;

use super::Reason;
use super::pickle::Unpickler;
use super::storage::{Storage, Storages};
use super::tensor::tensors_of;
use super::value::Value;
use crate::kernel::MappedFile;

/// The number that the first pickle holds, as little-endian bytes.
const MAGIC: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Reads the tensors of a file that PyTorch before 1.6 wrote: pickles of a magic number, a
/// version, what machine it was, the dictionary and the storages' keys, and then the storages.
pub(super) fn read(file: &MappedFile) -> Result<Vec<(String, TensorData)>, Reason> {
    let mut pickles = Unpickler::new(file);
    match pickles.load() {
        Ok(Value::Long(magic)) if *magic == *MAGIC => {}
        _ => {
            return Err(
                "it is no file of PyTorch's: neither an archive nor its magic number".to_owned(),
            );
        }
    }
    let version = pickles.load()?;
    if !matches!(version, Value::Int(1001)) {
        return Err("it has another version than 1001".to_owned());
    }
    let machine = pickles.load()?;
    if let Some(Value::Bool(false)) = machine.get("little_endian") {
        return Err("its numbers are not little-endian".to_owned());
    }
    let value = pickles.load()?;
    let keys = pickles.load()?;
    let keys = keys.items().ok_or("there is no list of storages")?;
    let mut places: HashMap<Rc<str>, Range<usize>> = HashMap::new();
    let known: HashMap<Rc<str>, &Storage> = pickles
        .storages()
        .iter()
        .map(|storage| (storage.key.clone(), storage))
        .collect();
    let mut at = pickles.position();
    for key in &keys {
        let key = key.text().ok_or("a storage's key is no text")?;
        let storage = known
            .get(&key)
            .ok_or_else(|| format!("nothing uses storage `{key}`"))?;
        // The number of its elements stands before them.
        let count = file.get(at..at + 8).ok_or("the file is cut short")?;
        let count = count
            .iter()
            .rev()
            .fold(0u64, |n, &byte| n << 8 | u64::from(byte));
        let bytes = usize::try_from(count)
            .ok()
            .and_then(|n| n.checked_mul(storage.dtype.size()));
        let start = at + 8;
        let end = bytes.and_then(|bytes| start.checked_add(bytes));
        let end = end.filter(|&end| end <= file.len());
        let end = end.ok_or_else(|| format!("storage `{key}` ends behind the file"))?;
        places.insert(key, start..end);
        at = end;
    }
    let storages = Storages::new(file, |storage| places.get(&storage.key).cloned());
    tensors_of(&value, &storages)
}
