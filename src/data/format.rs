use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::{DataError, RepoError, Result};

/// What the rows of a data file are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataFormat {
    /// A JSON object a line, or one JSON array of objects.
    Json,
    /// Values between commas, with a header; quoted where they hold commas or lines.
    Csv,
    /// Values between tabs, with a header.
    Tsv,
    /// Apache Parquet.
    Parquet,
}

/// The extensions of data files. Text formats may be gzipped: `.jsonl.gz`.
pub const DATA_EXTENSIONS: [&str; 6] = [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"];

impl DataFormat {
    /// The format that a file's name says, whatever the case of its letters; `None` if it
    /// says none.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let (stem, gzipped) = match name.strip_suffix(".gz") {
            Some(stem) => (stem, true),
            None => (name.as_str(), false),
        };
        let (_, extension) = stem.rsplit_once('.')?;
        Some(match extension {
            "jsonl" | "ndjson" | "json" => Self::Json,
            "csv" => Self::Csv,
            "tsv" => Self::Tsv,
            "parquet" if !gzipped => Self::Parquet,
            _ => return None,
        })
    }

    /// The format of a file.
    ///
    /// # Errors
    /// [`DataError::UnknownFormat`] lists the extensions that are known.
    pub fn of(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(
            Self::of_name(&name).ok_or_else(|| DataError::UnknownFormat {
                path: path.to_owned(),
                known: DATA_EXTENSIONS.to_vec(),
            })?,
        )
    }
}

/// Opens a text file, which is unpacked on the way if its name ends in `.gz`.
pub(super) fn open_text(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    let file = BufReader::new(open(path)?);
    let gzipped = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    Ok(match gzipped {
        true => Box::new(BufReader::new(Unpacked::new(file))),
        false => Box::new(file),
    })
}

/// What every byte of a packed file may unpack to, beside [`ALWAYS_ALLOWED`]: texts pack to a
/// fifth, and what packs to a thousandth is made to fill the memory.
const MOST_OF_A_BYTE: u64 = 200;
const ALWAYS_ALLOWED: u64 = 64 << 20;

/// A gzipped file, unpacked as far as it is a file of texts.
struct Unpacked<R> {
    decoder: MultiGzDecoder<Counted<R>>,
    unpacked: u64,
}

impl<R: BufRead> Unpacked<R> {
    fn new(reader: R) -> Self {
        Self {
            decoder: MultiGzDecoder::new(Counted { reader, bytes: 0 }),
            unpacked: 0,
        }
    }
}

impl<R: BufRead> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.unpacked += read as u64;
        let packed = self.decoder.get_ref().bytes;
        if self.unpacked > ALWAYS_ALLOWED + MOST_OF_A_BYTE * packed {
            let unpacked = self.unpacked;
            let what = format!("{packed} bytes unpack to {unpacked}: these are no texts");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(read)
    }
}

/// Counts the bytes that are read.
struct Counted<R> {
    reader: R,
    bytes: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.bytes += amount as u64;
        self.reader.consume(amount);
    }
}

pub(super) fn open(path: &Path) -> Result<File> {
    Ok(File::open(path).map_err(|source| RepoError::Io {
        path: path.to_owned(),
        action: "open",
        source,
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_the_format() {
        for (name, expected) in [
            ("a.jsonl", Some(DataFormat::Json)),
            ("a.b.JSON.gz", Some(DataFormat::Json)),
            ("train.ndjson", Some(DataFormat::Json)),
            ("x.csv.gz", Some(DataFormat::Csv)),
            ("x.tsv", Some(DataFormat::Tsv)),
            ("0000.parquet", Some(DataFormat::Parquet)),
            ("0000.parquet.gz", None),
            ("csv", None),
            ("a.txt", None),
            ("a.gz", None),
        ] {
            assert_eq!(DataFormat::of_name(name), expected, "{name}");
        }
    }

    #[test]
    fn a_file_that_unpacks_without_an_end_is_no_file_of_texts() {
        let folder = tempfile::tempdir().unwrap();
        let pack = |name: &str, line: &mut dyn FnMut(usize) -> String, lines: usize| {
            let path = folder.path().join(name);
            let file = File::create(&path).unwrap();
            let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::best());
            for number in 0..lines {
                io::Write::write_all(&mut packed, line(number).as_bytes()).unwrap();
            }
            packed.finish().unwrap();
            path
        };
        let unpacked = |path: &Path| io::copy(&mut open_text(path).unwrap(), &mut io::sink());
        let bomb = pack("bomb.jsonl.gz", &mut |_| " ".repeat(1 << 20), 100);
        let error = unpacked(&bomb).unwrap_err();
        assert!(error.to_string().contains("these are no texts"), "{error}");
        let texts = pack(
            "texts.jsonl.gz",
            &mut |n| format!("{{\"text\": \"{n}\"}}\n"),
            5000,
        );
        assert!(unpacked(&texts).unwrap() > 50_000);
    }

    #[test]
    fn an_unknown_extension_is_answered_with_the_known_ones() {
        let error = DataFormat::of(Path::new("some/data.xml")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "some/data.xml: no data file by its extension: expected one of .jsonl, .ndjson, \
             .json, .csv, .tsv, .parquet"
        );
    }
}
