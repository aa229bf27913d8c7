use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use hf_hub::repository::CommitOperation;
use hf_hub::{HFClientBuilder, HFClientSync, RepoTypeModel};
use tempfile::TempDir;

use super::asking::{retrying, retrying_if};
use super::changes::operations;
use super::explain::Explainer;
use super::http::{Failure, Http, chain, client};
use super::repo_id::RepoId;
use super::{HubOptions, in_own_thread, listing};
use crate::error::{HubError, RepoError, Result};
use crate::model::SentenceTransformer;
use crate::repo::{SaveOptions, names};

/// The client looks for a token in the environment unless it is given one, and sends none
/// that cannot stand in a header.
const NO_TOKEN: &str = "\n";

/// How much longer than for a download is waited for an answer: the hub checks what it got
/// before it gives one.
const PATIENCE: u32 = 12;

/// How a model is pushed to a hub.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// The hub, the token of an account that may write there, and the branch, which is made
    /// if it is not there. The subfolder, the cache and `local_files_only` mean nothing here.
    pub hub: HubOptions,
    /// Whether a repository that is made for the model is private.
    pub private: bool,
    /// Whether the repository may be there already.
    pub exist_ok: bool,
    /// The commit's title.
    pub commit_message: Option<String>,
    /// What else the commit, or the pull request, says.
    pub commit_description: Option<String>,
    /// Whether to open a pull request instead of changing the branch.
    pub create_pr: bool,
    /// Whether to replace a model card that is there.
    pub replace_model_card: bool,
    /// A folder to push as it is, instead of saving the model.
    pub folder: Option<PathBuf>,
    /// How the model is saved before it is pushed.
    pub save: SaveOptions,
}

/// What a push came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The repository's full id.
    pub id: String,
    /// The commit's hash, where the hub says it.
    pub commit: Option<String>,
    /// The commit's address, where the hub says it.
    pub commit_url: Option<String>,
    /// The pull request's address, if one was opened.
    pub pull_request_url: Option<String>,
}

impl<B: Backend> SentenceTransformer<B> {
    /// Saves the model and pushes it to a hub, as one commit; the repository is made if it is
    /// not there. With an adapter, the adapter is pushed and not its base.
    ///
    /// `id` is `owner/name`, or a name alone for a repository of the token's account. Weights
    /// that are there under other names are removed in the same commit: they would be read
    /// instead. Files go as the hub asks for them, large ones through its own storage.
    ///
    /// ```no_run
    /// # use burn::backend::NdArray;
    /// # use sentence_burn::SentenceTransformer;
    /// # use sentence_burn::repo::hub::{HubOptions, PushOptions};
    /// # let model = SentenceTransformer::<NdArray>::load("model", &Default::default())?;
    /// let options = PushOptions {
    ///     hub: HubOptions { token: Some("hf_…".into()), ..HubOptions::default() },
    ///     private: true,
    ///     ..PushOptions::default()
    /// };
    /// let pushed = model.push_to_hub("me/my-model", &options)?;
    /// println!("{:?}", pushed.commit_url);
    /// # Ok::<(), sentence_burn::Error>(())
    /// ```
    ///
    /// # Errors
    /// A [`HubError`] naming the repository and what would help, and those of
    /// [`save`](Self::save). The repository is then as it was, or new and empty.
    pub fn push_to_hub(&self, id: &str, options: &PushOptions) -> Result<Pushed> {
        options.hub.validate()?;
        let repo = RepoId::parse_own(id)?;
        let (client, repo) = open(repo, options)?;
        let there = in_own_thread(|| files_there(&repo, options))?;
        let description = match &options.commit_description {
            None if options.create_pr => Some(self.describe(&repo)),
            description => description.clone(),
        };
        let push = |folder: &Path| {
            let operations = operations(&repo, folder, &there)?;
            Ok(commit(
                &client,
                &repo,
                &operations,
                description.as_deref(),
                options,
            )?)
        };
        match &options.folder {
            Some(folder) => push(folder),
            None => {
                let mut model = self.clone();
                model.model_card_data_mut().model_id = Some(repo.to_string());
                push(save(&model, &there, options)?.path())
            }
        }
    }

    /// What a pull request says of a model.
    fn describe(&self, repo: &RepoId) -> String {
        format!(
            "Adds a Sentence Transformers model, which can be tried before this is \
             merged:\n\n```python\nfrom sentence_transformers import SentenceTransformer\n\nmodel = \
             SentenceTransformer(\"{repo}\", revision=\"refs/pr/N\")  # N: this pull request's \
             number\n```\n\n## Full Model Architecture\n\n```\n{}\n```\n",
            crate::repo::model_card::architecture(self)
        )
    }
}

/// Saves a model for a repository where these files are.
fn save<B: Backend>(
    model: &SentenceTransformer<B>,
    there: &BTreeSet<String>,
    options: &PushOptions,
) -> Result<TempDir> {
    let folder = tempfile::tempdir().map_err(|source| RepoError::Io {
        path: std::env::temp_dir(),
        action: "write",
        source,
    })?;
    let has_card = there.contains(names::MODEL_CARD) && !options.replace_model_card;
    let save = SaveOptions {
        model_card: options.save.model_card && !has_card,
        ..options.save.clone()
    };
    model.save_with(folder.path(), &save)?;
    Ok(folder)
}

fn explainer<'a>(repo: &'a RepoId, options: &'a PushOptions) -> Explainer<'a> {
    Explainer {
        repo,
        options: &options.hub,
        access: "write",
    }
}

/// Makes the repository and the branch where they are not there, and says the repository's
/// full id.
fn open(repo: RepoId, options: &PushOptions) -> Result<(HFClientSync, RepoId), HubError> {
    let hub = &options.hub;
    let client = HFClientBuilder::new()
        .endpoint(&hub.endpoint)
        .token(hub.token.as_deref().unwrap_or(NO_TOKEN))
        .client(client(hub.timeout.saturating_mul(PATIENCE))?)
        .user_agent(super::http::USER_AGENT)
        .cache_enabled(false)
        // Tried again here, as long as the hub asks to wait.
        .retry_max_attempts(0)
        .build_sync()
        .map_err(|error| HubError::NoClient {
            reason: chain(&error),
        })?;
    let id = repo.to_string();
    let created = retrying(hub, || {
        client
            .create_repository()
            .repo_id(&id)
            .repo_type(RepoTypeModel)
            .private(options.private)
            .send()
    });
    let may_exist = options.exist_ok || options.create_pr;
    let url = match created {
        Ok(made) => Some(made.url),
        Err(Failure::Answer(answer)) if answer.status == 409 => match may_exist {
            true => answer.url,
            false => return Err(HubError::AlreadyThere { id }),
        },
        // A token may reach one repository and make none.
        Err(Failure::Answer(answer))
            if answer.status == 403 && may_exist && exists(&client, &repo, hub) =>
        {
            None
        }
        Err(failure) => return Err(explainer(&repo, options).explain(failure)),
    };
    // A name alone has got its owner.
    let full = url.as_deref().and_then(|url| {
        let path = url.strip_prefix(hub.endpoint.trim_end_matches('/'))?;
        RepoId::parse_own(path.trim_matches('/')).ok()
    });
    let repo = full.unwrap_or(repo);
    if hub.revision != HubOptions::default().revision {
        let model = client.model(&repo.owner, &repo.name);
        let branch = retrying(hub, || model.create_branch().branch(&hub.revision).send());
        match branch {
            Err(Failure::Answer(answer)) if answer.status == 409 => {}
            Err(failure) => return Err(explainer(&repo, options).explain(failure)),
            Ok(()) => {}
        }
    }
    Ok((client, repo))
}

fn exists(client: &HFClientSync, repo: &RepoId, hub: &HubOptions) -> bool {
    let model = client.model(&repo.owner, &repo.name);
    matches!(retrying(hub, || model.exists().send()), Ok(true))
}

/// The paths of the files on the branch.
fn files_there(repo: &RepoId, options: &PushOptions) -> Result<BTreeSet<String>, HubError> {
    let http = Http::new(&options.hub)?;
    let revision = &options.hub.revision;
    let listed = listing::list(&http, repo, revision, None, explainer(repo, options))?;
    Ok(listed.into_iter().map(|file| file.path).collect())
}

fn commit(
    client: &HFClientSync,
    repo: &RepoId,
    operations: &[CommitOperation],
    description: Option<&str>,
    options: &PushOptions,
) -> Result<Pushed, HubError> {
    let hub = &options.hub;
    let message = options.commit_message.as_deref();
    let model = client.model(&repo.owner, &repo.name);
    // Where an answer got lost, a pull request may have been opened; another commit of the
    // same files changes nothing.
    let may = |failure: &Failure| {
        let is_undone =
            matches!(failure, Failure::Answer(answer) if [429, 503].contains(&answer.status));
        is_undone || !options.create_pr
    };
    let committed = retrying_if(hub, may, || {
        model
            .create_commit()
            .operations(operations.to_vec())
            .commit_message(message.unwrap_or("Add new SentenceTransformer model"))
            .maybe_commit_description(description)
            .revision(&hub.revision)
            .create_pr(options.create_pr)
            .send()
    });
    let commit = committed.map_err(|failure| explainer(repo, options).explain(failure))?;
    let pull_request_url = match commit.pr_url {
        None if options.create_pr => {
            let refs = retrying(hub, || model.list_refs().include_pull_requests(true).send());
            let number = refs.ok().and_then(|refs| {
                let target = commit.commit_oid.as_deref();
                let found = refs.pull_requests.into_iter();
                let mut found = found.filter(|pr| Some(pr.target_commit.as_str()) == target);
                found
                    .next()?
                    .git_ref
                    .strip_prefix("refs/pr/")
                    .map(str::to_owned)
            });
            let endpoint = hub.endpoint.trim_end_matches('/');
            number.map(|number| format!("{endpoint}/{repo}/discussions/{number}"))
        }
        url => url,
    };
    Ok(Pushed {
        id: repo.to_string(),
        commit: commit.commit_oid,
        commit_url: commit.commit_url,
        pull_request_url,
    })
}
