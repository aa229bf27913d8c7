use std::collections::HashMap;
use std::ops::Range;

use burn::tensor::TensorData;

use super::Reason;
use super::pickle::Unpickler;
use super::storage::Storages;
use super::tensor::tensors_of;
use crate::kernel::MappedFile;

/// The signatures of a zip archive's records (APPNOTE.TXT, 4.3).
const LOCAL_FILE: &[u8] = b"PK\x03\x04";
const CENTRAL_FILE: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const END_64_LOCATOR: &[u8] = b"PK\x06\x07";

/// The longest comment behind an archive.
const LONGEST_COMMENT: usize = 0xffff;

/// Whether a file begins as an archive does.
pub(super) fn is_archive(file: &[u8]) -> bool {
    file.starts_with(LOCAL_FILE)
}

/// Reads the tensors of an archive that `torch.save` wrote.
pub(super) fn read(file: &MappedFile) -> Result<Vec<(String, TensorData)>, Reason> {
    let entries = entries(file)?;
    let pickles = entries
        .keys()
        .filter_map(|name| name.strip_suffix("data.pkl"));
    let root = pickles.min_by_key(|root| root.len());
    let root = root.ok_or("the archive has no data.pkl")?;
    if let Some(order) = entries.get(&format!("{root}byteorder")) {
        let order = file.get(order.clone()).unwrap_or_default();
        if order != b"little" {
            return Err("its numbers are not little-endian".to_owned());
        }
    }
    let pickle = file.get(entries[&format!("{root}data.pkl")].clone());
    let pickle = pickle.ok_or("data.pkl ends behind the file")?;
    let mut pickles = Unpickler::new(pickle);
    let value = pickles.load()?;
    let storages = Storages::new(file, |storage| {
        entries.get(&format!("{root}data/{}", storage.key)).cloned()
    });
    tensors_of(&value, &storages)
}

/// The entries of an archive by name: where their bytes lie.
fn entries(file: &[u8]) -> Result<HashMap<String, Range<usize>>, Reason> {
    let (mut at, count) = central_directory(file)?;
    let mut entries = HashMap::new();
    for _ in 0..count {
        let record = Record::of(file, at, CENTRAL_FILE)?;
        let (method, flags) = (record.u16(10)?, record.u16(8)?);
        let [name, extra, comment] = [record.u16(28)?, record.u16(30)?, record.u16(32)?];
        let [mut size, mut offset] = [record.u32(24)?, record.u32(42)?];
        let text = record.bytes(46, name)?;
        let name_text = String::from_utf8_lossy(text).into_owned();
        if method != 0 || flags & 1 != 0 {
            return Err(format!("entry `{name_text}` is compressed or encrypted"));
        }
        let extra_at = 46 + name;
        extend(
            &record,
            extra_at..extra_at + extra,
            [&mut size, &mut offset],
        )?;
        // The name and the extra field are once more before the bytes, of another length.
        let local = Record::of(file, offset, LOCAL_FILE)?;
        let start = offset + 30 + local.u16(26)? + local.u16(28)?;
        let end = start.checked_add(size).filter(|&end| end <= file.len());
        let end = end.ok_or_else(|| format!("entry `{name_text}` ends behind the file"))?;
        entries.insert(name_text, start..end);
        at += 46 + name + extra + comment;
    }
    Ok(entries)
}

/// Takes sizes that do not fit 32 bits from the extra field that holds them then.
fn extend(
    record: &Record<'_>,
    mut extra: Range<usize>,
    values: [&mut usize; 2],
) -> Result<(), Reason> {
    let compressed = record.u32(20)?;
    while extra.start + 4 <= extra.end {
        let (id, length) = (record.u16(extra.start)?, record.u16(extra.start + 2)?);
        let mut at = extra.start + 4;
        if id == 1 {
            // In this order: the size, the compressed size, the offset.
            let [size, offset] = values;
            if *size == u32::MAX as usize {
                *size = record.u64(at)?;
                at += 8;
            }
            if compressed == u32::MAX as usize {
                at += 8;
            }
            if *offset == u32::MAX as usize {
                *offset = record.u64(at)?;
            }
            return Ok(());
        }
        extra.start += 4 + length;
    }
    Ok(())
}

/// Where the central directory lies, and the number of its entries.
fn central_directory(file: &[u8]) -> Result<(usize, usize), Reason> {
    let first = file.len().saturating_sub(22 + LONGEST_COMMENT);
    let last = file
        .len()
        .checked_sub(22)
        .ok_or("the archive is cut short")?;
    let end = (first..=last).rev().find(|&at| file[at..].starts_with(END));
    let end = end.ok_or("the archive has no end: it is cut short")?;
    let locator = end.checked_sub(20);
    if let Some(at) = locator.filter(|&at| file[at..].starts_with(END_64_LOCATOR)) {
        let at = Record::of(file, at, END_64_LOCATOR)?.u64(8)?;
        let record = Record::of(file, at, END_64)?;
        return Ok((record.u64(48)?, record.u64(32)?));
    }
    let record = Record::of(file, end, END)?;
    Ok((record.u32(16)?, record.u16(10)?))
}

/// A record of an archive.
struct Record<'a>(&'a [u8]);

impl<'a> Record<'a> {
    fn of(file: &'a [u8], at: usize, signature: &[u8]) -> Result<Self, Reason> {
        let record = file
            .get(at..)
            .filter(|record| record.starts_with(signature));
        Ok(Self(record.ok_or_else(|| {
            format!("no record of an archive at byte {at}")
        })?))
    }

    fn bytes(&self, at: usize, length: usize) -> Result<&'a [u8], Reason> {
        let range = at..at.saturating_add(length);
        Ok(self.0.get(range).ok_or("a record ends behind the file")?)
    }

    fn u16(&self, at: usize) -> Result<usize, Reason> {
        let bytes = self.bytes(at, 2)?;
        Ok(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    }

    fn u32(&self, at: usize) -> Result<usize, Reason> {
        Ok(self.u16(at)? | self.u16(at + 2)? << 16)
    }

    fn u64(&self, at: usize) -> Result<usize, Reason> {
        let number = (self.u32(at)? as u64) | (self.u32(at + 4)? as u64) << 32;
        usize::try_from(number).map_err(|_| format!("{number} is no size"))
    }
}
