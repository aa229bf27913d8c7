use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use reqwest::Url;

use super::explain::Explainer;
use super::http::{Failure, Http};
use super::listing::RemoteFile;
use super::retry::Retries;
use crate::error::HubError;

/// How much more than a file's listed size is received: an answer without an end would fill the
/// disk.
const MOST_TOO_LONG: u64 = 1 << 20;

/// One file on its way from the hub.
pub(super) struct Download<'a> {
    pub(super) http: &'a Http,
    pub(super) url: &'a Url,
    pub(super) file: &'a RemoteFile,
    pub(super) retries: usize,
    pub(super) explainer: Explainer<'a>,
}

impl Download<'_> {
    /// Downloads into a file beside `target`, and puts it in its place when it is whole: of
    /// the listed size and the listed digest.
    ///
    /// What an earlier try left is continued, and what this one leaves can be.
    pub(super) fn fetch_into(&self, target: &Path) -> Result<(), HubError> {
        let partial = partial_of(target);
        let unusable = |source| HubError::Cache {
            path: partial.clone(),
            source,
        };
        let mut retries = Retries::new(self.retries);
        let mut was_wrong = false;
        loop {
            let had = length(&partial).map_err(unusable)?;
            if let Err(failure) = self.receive(&partial, had) {
                let has = length(&partial).map_err(unusable)?;
                if has > had {
                    retries.reset();
                }
                if let Failure::Io(source) = failure {
                    return Err(unusable(source));
                }
                if retries.wait(failure.chance()) {
                    continue;
                }
                return Err(self.explainer.explain(failure));
            }
            let found = length(&partial).map_err(unusable)?;
            if found != self.file.size {
                fs::remove_file(&partial).map_err(unusable)?;
                return Err(HubError::Damaged {
                    id: self.explainer.repo.to_string(),
                    file: self.file.path.clone(),
                    expected: self.file.size,
                    found,
                });
            }
            let digest = self.file.digest.of_file(&partial).map_err(unusable)?;
            if digest == self.file.digest {
                return fs::rename(&partial, target).map_err(unusable);
            }
            fs::remove_file(&partial).map_err(unusable)?;
            // What an earlier run left may have been of another file.
            if was_wrong {
                return Err(HubError::Corrupted {
                    id: self.explainer.repo.to_string(),
                    file: self.file.path.clone(),
                    expected: self.file.digest.to_string(),
                    found: digest.to_string(),
                });
            }
            was_wrong = true;
        }
    }

    /// Receives what is missing of a file, as far as it comes in one go.
    fn receive(&self, partial: &Path, had: u64) -> Result<(), Failure> {
        let size = self.file.size;
        let from = if had > size { 0 } else { had };
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(partial)
            .map_err(Failure::Io)?;
        if from == size && size > 0 {
            return Ok(());
        }
        let mut place = file.try_clone().map_err(Failure::Io)?;
        let mut announced = None;
        let at = Cell::new(0u64);
        let received = self.http.stream(
            self.url,
            from,
            |start, of| {
                if start > from {
                    return Err(Failure::Malformed(format!(
                        "{} from byte {start} on instead of {from}",
                        self.file.path
                    )));
                }
                announced = of;
                at.set(start);
                start_at(&mut place, start).map_err(Failure::Io)
            },
            |bytes| {
                file.write_all(bytes).map_err(Failure::Io)?;
                at.set(at.get().saturating_add(bytes.len() as u64));
                match at.get() > size.saturating_add(MOST_TOO_LONG) {
                    true => Err(Failure::Malformed(format!(
                        "{} is too long",
                        self.file.path
                    ))),
                    false => Ok(()),
                }
            },
        );
        if let Err(Failure::Answer(answer)) = &received
            && answer.status == 416
            && from > 0
        {
            // There is no more, or the file is another one: from the beginning.
            start_at(&mut file, 0).map_err(Failure::Io)?;
            return Err(Failure::Broken(
                "the part asked for is not there".to_owned(),
            ));
        }
        // What is too long is found to be so by whoever compares its size.
        match received {
            Err(_) if length(partial).map_err(Failure::Io)? > size => {}
            received => received?,
        }
        file.sync_all().map_err(Failure::Io)?;
        let has = file.metadata().map_err(Failure::Io)?.len();
        // An answer that says how much it is and is all there is whole, of whatever size.
        if has < size && announced != Some(has) {
            return Err(Failure::Broken(format!(
                "the connection ended after {has} of {size} bytes"
            )));
        }
        Ok(())
    }
}

/// Where what has come so far lies, as Python's `huggingface_hub` names it.
fn partial_of(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".incomplete");
    name.into()
}

/// The size of a file; none has none.
fn length(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        metadata => Ok(metadata?.len()),
    }
}

/// Cuts a file off at a byte and goes there.
fn start_at(file: &mut File, byte: u64) -> io::Result<()> {
    file.set_len(byte)?;
    file.seek(SeekFrom::Start(byte)).map(|_| ())
}
