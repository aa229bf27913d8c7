use std::time::Duration;

use super::HubOptions;
use super::http::{Answer, Failure};
use super::repo_id::RepoId;
use super::retry::LONGEST_WISH;
use crate::error::HubError;

/// What a failure means for whoever asked for a repository.
#[derive(Debug, Clone, Copy)]
pub(super) struct Explainer<'a> {
    pub(super) repo: &'a RepoId,
    pub(super) options: &'a HubOptions,
    /// What a token must allow.
    pub(super) access: &'static str,
}

impl Explainer<'_> {
    pub(super) fn explain(&self, failure: Failure) -> HubError {
        match failure {
            Failure::Answer(answer) => self.explain_answer(answer),
            Failure::Broken(reason) => self.network(reason),
            Failure::Malformed(reason) => self.unexpected(reason),
            Failure::Io(source) => HubError::Cache {
                path: self.options.cache_dir.clone().unwrap_or_default(),
                source,
            },
        }
    }

    fn explain_answer(&self, answer: Answer) -> HubError {
        let id = self.repo.to_string();
        let endpoint = self.options.endpoint.clone();
        let revision = self.options.revision.clone();
        let said = format!("HTTP {} {}", answer.status, answer.message);
        let said = said.trim_end().to_owned();
        match (
            answer.code.as_deref(),
            answer.status,
            &self.options.subfolder,
        ) {
            (Some("GatedRepo"), ..) => HubError::Gated {
                id: self.repo.address(),
                endpoint,
            },
            (Some("RepoNotFound"), ..) => HubError::RepoNotFound { id, endpoint },
            (Some("RevisionNotFound"), ..) => HubError::RevisionNotFound { id, revision },
            (Some("EntryNotFound"), _, Some(subfolder)) => HubError::SubfolderNotFound {
                id,
                revision,
                subfolder: subfolder.clone(),
            },
            (_, 401 | 403, _) => HubError::Unauthorized {
                id,
                reason: said,
                access: self.access,
            },
            // A hub that does not say what it lacks.
            (_, 404, _) if revision != HubOptions::default().revision => {
                HubError::RevisionNotFound { id, revision }
            }
            (_, 404, _) => HubError::RepoNotFound { id, endpoint },
            (_, 429, _) => HubError::RateLimited {
                id,
                endpoint,
                wait: answer
                    .retry_after
                    .filter(|wish| *wish > LONGEST_WISH)
                    .unwrap_or(Duration::from_secs(60)),
            },
            (_, 400 | 409 | 413 | 422, _) => HubError::Refused {
                id,
                endpoint,
                reason: said,
            },
            _ => self.network(said),
        }
    }

    pub(super) fn network(&self, reason: String) -> HubError {
        HubError::Network {
            id: self.repo.to_string(),
            endpoint: self.options.endpoint.clone(),
            reason,
        }
    }

    pub(super) fn unexpected(&self, reason: String) -> HubError {
        HubError::InvalidResponse {
            id: self.repo.to_string(),
            endpoint: self.options.endpoint.clone(),
            reason,
        }
    }
}
