use hf_hub::{HFError, HFResult};
use serde_json::Value;

use super::HubOptions;
use super::http::{Answer, Failure, chain};
use super::retry::Retries;

/// Asks the hub, again where that may help.
pub(super) fn retrying<T>(hub: &HubOptions, ask: impl Fn() -> HFResult<T>) -> Result<T, Failure> {
    retrying_if(hub, |_| true, ask)
}

/// Asks the hub, again where that may help and may be done.
pub(super) fn retrying_if<T>(
    hub: &HubOptions,
    may: impl Fn(&Failure) -> bool,
    ask: impl Fn() -> HFResult<T>,
) -> Result<T, Failure> {
    let mut retries = Retries::new(hub.retries);
    loop {
        match ask().map_err(failure) {
            Err(failure) if may(&failure) && retries.wait(failure.chance()) => {}
            answer => return answer,
        }
    }
}

fn failure(error: HFError) -> Failure {
    let (context, retry_after) = match error {
        HFError::RateLimited {
            context,
            retry_after,
        } => (context, retry_after),
        HFError::Http { context }
        | HFError::AuthRequired { context }
        | HFError::Forbidden { context }
        | HFError::Conflict { context }
        | HFError::RepoNotFound {
            context: Some(context),
            ..
        }
        | HFError::RevisionNotFound {
            context: Some(context),
            ..
        }
        | HFError::EntryNotFound {
            context: Some(context),
            ..
        } => (context, None),
        HFError::Request { source, .. } => return source.into(),
        HFError::Io(source) => {
            return Failure::Malformed(format!("cannot read what is to be pushed: {source}"));
        }
        error @ HFError::Xet { .. } => return Failure::Broken(chain(&error)),
        other => return Failure::Malformed(chain(&other)),
    };
    let body: Option<Value> = serde_json::from_str(&context.body).ok();
    let url = body.as_ref().and_then(|body| body.get("url")?.as_str());
    Failure::Answer(Answer {
        url: url.map(str::to_owned),
        status: context.status.as_u16(),
        code: context.error_code,
        message: context.server_message.unwrap_or_default(),
        retry_after,
    })
}
