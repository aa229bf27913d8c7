//! Data set repositories: what files there are, and those that are asked for.

use std::path::PathBuf;

use super::HubOptions;
use super::repo_id::RepoId;
use crate::error::{HubError, Result};

#[cfg(feature = "hub")]
pub(crate) use self::on_hub::DatasetRepository;
#[cfg(not(feature = "hub"))]
pub(crate) use self::without_hub::DatasetRepository;

#[cfg(not(feature = "hub"))]
mod without_hub {
    use std::convert::Infallible;

    use super::*;

    /// No data set repository: this build cannot download one.
    #[derive(Debug)]
    pub(crate) struct DatasetRepository(Infallible);

    impl DatasetRepository {
        pub(crate) fn open(id: &str, _options: &HubOptions) -> Result<Self> {
            let id = RepoId::parse_dataset(id)?.address();
            Err(HubError::Disabled { id }.into())
        }

        pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
            std::iter::empty()
        }

        pub(crate) fn fetch(&self, _path: &str) -> Result<PathBuf> {
            match self.0 {}
        }
    }
}

#[cfg(feature = "hub")]
mod on_hub {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::repo::hub::cache::RepoCache;
    use crate::repo::hub::digest::Digest;
    use crate::repo::hub::listing::RemoteFile;
    use crate::repo::hub::remote::{Listing, Remote};
    use crate::repo::hub::{in_own_thread, is_plain_path};

    /// A data set repository at one commit.
    #[derive(Debug)]
    pub(crate) struct DatasetRepository {
        repo: RepoId,
        options: HubOptions,
        cache: RepoCache,
        cache_dir: PathBuf,
        commit: String,
        files: Vec<KnownFile>,
    }

    /// A file of the repository.
    #[derive(Debug)]
    struct KnownFile {
        path: String,
        size: u64,
        /// As the hub lists it; `None` where only what is in the cache may be used.
        digest: Option<Digest>,
    }

    impl From<RemoteFile> for KnownFile {
        fn from(file: RemoteFile) -> Self {
            Self {
                path: file.path,
                size: file.size,
                digest: Some(file.digest),
            }
        }
    }

    impl DatasetRepository {
        /// Asks the hub what a repository's revision holds, or the cache where it may not
        /// ask or gets no answer.
        ///
        /// # Errors
        /// A [`HubError`] naming the repository and what would help.
        pub(crate) fn open(id: &str, options: &HubOptions) -> Result<Self> {
            let repo = RepoId::parse_dataset(id)?;
            options.validate()?;
            let cache_dir = options.cache_dir()?;
            let cache = RepoCache::new(&cache_dir, &repo);
            let list = || Remote::new(&repo, options)?.list_all();
            let found = match options.local_files_only {
                true => None,
                false => match in_own_thread(list) {
                    Err(error @ (HubError::Network { .. } | HubError::RateLimited { .. })) => {
                        let found = cached(&cache, options);
                        if found.is_none() {
                            return Err(error.into());
                        }
                        log::warn!(
                            "{} cannot be reached: `{repo}` is taken as it is in the cache",
                            options.endpoint
                        );
                        found
                    }
                    listing => {
                        let listing = listing?;
                        remember(&cache, options, &listing)?;
                        let files = listing.files.into_iter().map(KnownFile::from);
                        Some((listing.commit, files.collect()))
                    }
                },
            };
            let (commit, files) = found
                .or_else(|| cached(&cache, options))
                .ok_or_else(|| not_cached(&repo, options, &cache_dir))?;
            Ok(Self {
                repo,
                options: options.clone(),
                cache,
                cache_dir,
                commit,
                files,
            })
        }

        /// The paths of the repository's files.
        pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
            self.files.iter().map(|file| file.path.as_str())
        }

        /// Downloads a file unless it is in the cache, and returns where it is.
        ///
        /// # Errors
        /// A [`HubError`] naming the repository and what would help.
        pub(crate) fn fetch(&self, path: &str) -> Result<PathBuf> {
            let local = self.cache.file(&self.commit, path);
            let file = self.files.iter().find(|file| file.path == path);
            let there = fs::metadata(&local).map(|metadata| metadata.len()).ok();
            match file {
                Some(file) if there == Some(file.size) => {}
                Some(KnownFile {
                    path,
                    size,
                    digest: Some(digest),
                }) => {
                    let file = RemoteFile {
                        path: path.clone(),
                        size: *size,
                        digest: digest.clone(),
                    };
                    in_own_thread(|| {
                        let remote = Remote::new(&self.repo, &self.options)?;
                        remote.fetch(&self.commit, &file, &self.cache)
                    })?;
                }
                _ => return Err(not_cached(&self.repo, &self.options, &self.cache_dir).into()),
            }
            Ok(local)
        }
    }

    fn not_cached(repo: &RepoId, options: &HubOptions, cache_dir: &Path) -> HubError {
        HubError::NotCached {
            id: repo.address(),
            revision: options.revision.clone(),
            cache_dir: cache_dir.to_owned(),
        }
    }

    /// Notes what a commit holds, of which only some files are downloaded.
    fn remember(
        cache: &RepoCache,
        options: &HubOptions,
        listing: &Listing,
    ) -> Result<(), HubError> {
        let path = cache.listing(&listing.commit);
        let failed = |source| HubError::Cache {
            path: path.clone(),
            source,
        };
        if !path.is_file() {
            let files: Vec<(&str, u64)> = listing
                .files
                .iter()
                .map(|file| (file.path.as_str(), file.size))
                .collect();
            let text = serde_json::to_string(&files).map_err(|e| failed(e.into()))?;
            let folder = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder).map_err(failed)?;
            let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
            std::io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)?;
            file.persist(&path).map_err(|e| failed(e.error))?;
        }
        cache.remember(&options.revision, &listing.commit)
    }

    /// What is in the cache of a revision: by the list that was noted, or, where Python
    /// downloaded it, the files that are there.
    fn cached(cache: &RepoCache, options: &HubOptions) -> Option<(String, Vec<KnownFile>)> {
        let commit = cache.commit_of(&options.revision)?;
        let noted = fs::read_to_string(cache.listing(&commit)).ok();
        let noted = noted.and_then(|text| serde_json::from_str::<Vec<(String, u64)>>(&text).ok());
        let files = match noted {
            Some(files) => files
                .into_iter()
                .filter(|(path, _)| is_plain_path(path))
                .map(|(path, size)| KnownFile {
                    path,
                    size,
                    digest: None,
                })
                .collect(),
            None => files_below(&cache.folder(&commit, None)?, ""),
        };
        Some((commit, files))
    }

    fn files_below(folder: &Path, prefix: &str) -> Vec<KnownFile> {
        let Ok(entries) = fs::read_dir(folder) else {
            return Vec::new();
        };
        let mut files = Vec::new();
        for entry in entries.flatten() {
            let Ok(metadata) = fs::metadata(entry.path()) else {
                continue;
            };
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match metadata.is_dir() {
                true => files.extend(files_below(&entry.path(), &format!("{path}/"))),
                false => files.push(KnownFile {
                    path,
                    size: metadata.len(),
                    digest: None,
                }),
            }
        }
        files
    }
}
