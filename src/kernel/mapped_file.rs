use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use burn::tensor::{AllocationProperty, Bytes};
use memmap2::Mmap;

/// A file mapped into memory: its bytes are read when they are used.
#[derive(Debug, Clone)]
pub struct MappedFile(bytes::Bytes);

impl MappedFile {
    /// Maps a file.
    ///
    /// # Errors
    /// Where the file cannot be opened or mapped.
    #[allow(unsafe_code, reason = "mapping a file is unsafe by nature; see SAFETY")]
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is private to this process and never written through. Another
        // process that writes into the file or truncates it while it is mapped would change
        // what is read, or make reads fault; weights are replaced by renaming a new file into
        // place (as this crate's own `save` and the hub's caches do), which leaves the mapped
        // one whole.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self(bytes::Bytes::from_owner(map)))
    }

    /// A part of the file without a copy of it; `None` where the file is shorter.
    ///
    /// The file stays mapped as long as one of its parts is in use. Writing to a part
    /// copies it first.
    pub fn share(&self, range: Range<usize>) -> Option<Bytes> {
        self.0.get(range.clone())?;
        let part = self.0.slice(range);
        Some(Bytes::from_shared(part, AllocationProperty::File))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn parts_outlive_the_file_and_are_copied_when_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, b"abcdef").unwrap();
        let file = MappedFile::open(&path).unwrap();
        let (part, mut written) = (file.share(1..4).unwrap(), file.share(1..4).unwrap());
        assert_eq!(part.as_ptr(), file[1..].as_ptr());
        assert!(file.share(5..7).is_none());
        drop(file);
        written[0] = b'X';
        assert_eq!((&written[..], &part[..]), (&b"Xcd"[..], &b"bcd"[..]));
        assert_eq!(fs::read(&path).unwrap(), b"abcdef");
        #[cfg(unix)]
        {
            fs::remove_file(&path).unwrap();
            assert_eq!(&part[..], b"bcd");
        }
    }
}
