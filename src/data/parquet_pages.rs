//! What parquet pages say that they hold, before the library makes room for it.
//!
//! A page's header is a structure in Thrift's compact protocol (`PageHeader` of the format's
//! `parquet.thrift`); the library does not show the sizes that it has read from it.

use std::fs::File;
use std::io::{self, Read};

use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::ChunkReader;

type Result<T> = std::result::Result<T, ParquetError>;

/// What a page may become whatever its size in the file is.
const MOST_BYTES: u64 = 64 << 20;

/// What it may become beyond that for each of its bytes in the file.
const MOST_FOR_A_BYTE: u64 = 64;

/// The most structures within each other that are passed over.
const MOST_DEPTH: usize = 8;

/// What a field holds.
enum Holds {
    Int,
    Long,
    Flag,
    Bytes,
    Fields(&'static [Self]),
}

use Holds::{Bytes, Fields, Flag, Int, Long};

/// The fields of a structure, from 1 on.
const STATISTICS: &[Holds] = &[Bytes, Bytes, Long, Long, Bytes, Bytes, Flag, Flag];
const DATA: &[Holds] = &[Int, Int, Int, Int, Fields(STATISTICS)];
const DICTIONARY: &[Holds] = &[Int, Int, Flag];
const DATA_V2: &[Holds] = &[Int, Int, Int, Int, Int, Int, Flag, Fields(STATISTICS)];
const PAGE: &[Holds] = &[
    Int,
    Int,
    Int,
    Int,
    Fields(DATA),
    Fields(&[]),
    Fields(DICTIONARY),
    Fields(DATA_V2),
];

/// The places of what is looked for.
const UNCOMPRESSED: &[usize] = &[2];
const COMPRESSED: &[usize] = &[3];
const DICTIONARY_VALUES: &[usize] = &[7, 1];

/// Checks the pages of a column chunk: that none says to become far larger than it is, and that
/// no dictionary says to have more values than bytes, for as many of which the library makes room.
pub(super) fn check(file: &File, chunk: &ColumnChunkMetaData) -> Result<()> {
    let (mut offset, mut left) = chunk.byte_range();
    while left > 0 {
        let mut header = Header::new(file.get_read(offset)?.take(left));
        header.read(PAGE, &mut Vec::new())?;
        let (uncompressed, compressed) = (header.uncompressed, header.compressed);
        let most = MOST_BYTES.saturating_add(compressed.saturating_mul(MOST_FOR_A_BYTE));
        let column = || chunk.column_path().string();
        if uncompressed > most {
            return Err(ParquetError::General(format!(
                "a page of `{}` says that its {compressed} bytes become {uncompressed}",
                column()
            )));
        }
        let (bytes, values) = match chunk.compression() {
            Compression::UNCOMPRESSED => (compressed, header.dictionary_values),
            _ => (uncompressed, header.dictionary_values),
        };
        if values > bytes {
            return Err(ParquetError::General(format!(
                "the dictionary of `{}` has {values} values in {bytes} bytes",
                column()
            )));
        }
        let length = header.length.saturating_add(compressed);
        left = left
            .checked_sub(length)
            .ok_or_else(|| malformed("a page is longer than its column"))?;
        offset += length;
    }
    Ok(())
}

/// A page's header while it is read.
struct Header<R> {
    input: R,
    /// The bytes so far.
    length: u64,
    uncompressed: u64,
    compressed: u64,
    dictionary_values: u64,
}

impl<R: Read> Header<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            length: 0,
            uncompressed: 0,
            compressed: 0,
            dictionary_values: 0,
        }
    }

    /// Reads a structure at a path of fields. Only what every reader takes for the same thing:
    /// known fields of their own type, in their order.
    fn read(&mut self, fields: &[Holds], path: &mut Vec<usize>) -> Result<()> {
        let mut last = 0;
        while let Some((id, kind)) = self.field(last)? {
            if id <= last {
                return Err(malformed("fields of a page's header are out of order"));
            }
            last = id;
            let index = usize::try_from(id).unwrap_or(0);
            path.push(index);
            match (fields.get(index.wrapping_sub(1)), kind) {
                (Some(Int), 5) => {
                    let number = self.number()?;
                    self.note(path, number)?;
                }
                (Some(Long), 6) => drop(self.number()?),
                (Some(Flag), 1 | 2) => {}
                (Some(Bytes), 8) => self.skip_bytes()?,
                (Some(Fields(fields)), 12) => self.read(fields, path)?,
                (None, kind) => self.skip(kind, 0)?,
                _ => return Err(malformed("a field of a page's header has another type")),
            }
            path.pop();
        }
        Ok(())
    }

    fn note(&mut self, path: &[usize], number: i64) -> Result<()> {
        let place = match path {
            UNCOMPRESSED => &mut self.uncompressed,
            COMPRESSED => &mut self.compressed,
            DICTIONARY_VALUES => &mut self.dictionary_values,
            _ => return Ok(()),
        };
        *place = u64::try_from(number).map_err(|_| malformed("a page has a negative size"))?;
        Ok(())
    }

    /// The id and the type of the field behind the one of id `last`.
    fn field(&mut self, last: i64) -> Result<Option<(i64, u8)>> {
        let head = self.byte()?;
        let (delta, kind) = (i64::from(head >> 4), head & 0x0f);
        match (kind, delta) {
            (0, _) => Ok(None),
            (_, 0) => Ok(Some((self.number()?, kind))),
            _ => Ok(Some((last + delta, kind))),
        }
    }

    /// Passes over a value of a type.
    fn skip(&mut self, kind: u8, depth: usize) -> Result<()> {
        if depth > MOST_DEPTH {
            return Err(malformed("a page's header is nested too deep"));
        }
        match kind {
            1 | 2 => Ok(()),
            3 => self.byte().map(drop),
            4..=6 => self.number().map(drop),
            7 => self.skip_length(8),
            8 => self.skip_bytes(),
            12 => {
                let mut last = 0;
                while let Some((id, kind)) = self.field(last)? {
                    last = id;
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            // Of lists, readers are not of one mind.
            _ => Err(malformed("a page's header has a field of no known type")),
        }
    }

    fn skip_bytes(&mut self) -> Result<()> {
        let length = self.unsigned()?;
        self.skip_length(length)
    }

    fn skip_length(&mut self, length: u64) -> Result<()> {
        let skipped = io::copy(&mut self.input.by_ref().take(length), &mut io::sink())?;
        self.length += skipped;
        match skipped == length {
            true => Ok(()),
            false => Err(malformed("a page's header has no end")),
        }
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        let read = self.input.read_exact(&mut byte);
        read.map_err(|_| malformed("a page's header has no end"))?;
        self.length += 1;
        Ok(byte[0])
    }

    fn number(&mut self) -> Result<i64> {
        let unsigned = self.unsigned()?;
        Ok((unsigned >> 1) as i64 ^ -((unsigned & 1) as i64))
    }

    fn unsigned(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(malformed("a number in a page's header has no end"))
    }
}

fn malformed(what: &str) -> ParquetError {
    ParquetError::General(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A dictionary page's header: 67 bytes in 70, four values.
    const HEADER: [u8; 16] = [
        0x15, 4, 0x15, 0x86, 1, 0x15, 0x8c, 1, 0x4c, 0x15, 8, 0x15, 0, 0x12, 0, 0,
    ];

    /// The sizes, the dictionary's values and the header's own length.
    fn read(bytes: &[u8]) -> Result<[u64; 4]> {
        let mut header = Header::new(bytes);
        header.read(PAGE, &mut Vec::new())?;
        let (uncompressed, compressed) = (header.uncompressed, header.compressed);
        Ok([
            uncompressed,
            compressed,
            header.dictionary_values,
            header.length,
        ])
    }

    #[test]
    fn a_header_says_its_sizes() {
        assert_eq!(read(&HEADER).unwrap(), [67, 70, 4, 16]);
        let mut longer = HEADER.to_vec();
        // A field of another version of the format, a structure of a long and a text.
        longer.splice(15..15, [0x8c, 0x16, 2, 0x18, 2, b'a', b'b', 0]);
        longer.push(b'x');
        assert_eq!(read(&longer).unwrap(), [67, 70, 4, 24]);
    }

    #[test]
    fn what_readers_may_take_for_different_things_is_refused() {
        for end in 0..HEADER.len() {
            assert!(read(&HEADER[..end]).is_err(), "{end}");
        }
        // The size once more behind itself, as a text, as a list, negative, without an end.
        let changes: [(usize, usize, &[u8]); 5] = [
            (8, 8, &[0x05, 4, 2]),
            (2, 3, &[0x18]),
            (15, 15, &[0x99, 0]),
            (3, 5, &[1]),
            (3, 5, &[0xff; 12]),
        ];
        for (from, to, bytes) in changes {
            let mut changed = HEADER.to_vec();
            changed.splice(from..to, bytes.iter().copied());
            assert!(read(&changed).is_err(), "{bytes:x?}");
        }
        let nested = [&HEADER[..15], &[0x8c], &[0x1c; 100_000]].concat();
        assert!(read(&nested).unwrap_err().to_string().contains("too deep"));
    }
}
