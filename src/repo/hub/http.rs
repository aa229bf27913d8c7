use std::io;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LINK, RANGE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::HubOptions;
use super::retry::{Chance, Retries};
use crate::error::HubError;

/// How this crate calls itself.
pub(super) const USER_AGENT: &str = concat!("sentence-burn/", env!("CARGO_PKG_VERSION"));

/// Requests to a hub, from one thread.
pub(super) struct Http {
    client: Client,
    runtime: Runtime,
    endpoint: Url,
    /// Goes to the hub alone: not to where it redirects to, if that is another host.
    authorization: Option<HeaderValue>,
    retries: usize,
}

/// Why a request brought nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// An answer, but of an error.
    Answer(Answer),
    /// No answer, or one that stopped.
    Broken(String),
    /// An answer of success that says something else than asked.
    Malformed(String),
    /// What came cannot be written.
    Io(io::Error),
}

/// An answer of an error.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// What the hub calls the error.
    pub(super) code: Option<String>,
    /// What the hub says about it.
    pub(super) message: String,
    /// How long the hub wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// Where what is in the way lies.
    pub(super) url: Option<String>,
}

impl Failure {
    /// Whether the next try may succeed.
    pub(super) fn chance(&self) -> Chance {
        match self {
            Self::Answer(answer) => Chance::of_status(answer.status, answer.retry_after),
            Self::Broken(_) => Chance::MayPass(None),
            Self::Malformed(_) | Self::Io(_) => Chance::Stays,
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        let text = chain(&error);
        match error.is_builder() || error.is_redirect() {
            true => Self::Malformed(text),
            false => Self::Broken(text),
        }
    }
}

impl Http {
    pub(super) fn new(options: &HubOptions) -> Result<Self, HubError> {
        let endpoint = endpoint(options)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| HubError::NoClient {
                reason: error.to_string(),
            })?;
        let token = options.token.as_ref();
        let authorization = token.map(|token| HeaderValue::from_str(&format!("Bearer {token}")));
        Ok(Self {
            client: client(options.timeout)?,
            runtime,
            endpoint,
            // `HubOptions::validate` let only printable characters through.
            authorization: authorization.and_then(Result::ok),
            retries: options.retries,
        })
    }

    /// An address below the hub's, of parts that may hold any character.
    pub(super) fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            let parts = parts.into_iter().filter(|part| !part.is_empty());
            path.pop_if_empty().extend(parts);
        }
        url
    }

    /// Asks for JSON, again where that may help, and says where the next page is.
    pub(super) fn json<T: DeserializeOwned>(&self, url: &Url) -> Result<(T, Option<Url>), Failure> {
        let mut retries = Retries::new(self.retries);
        loop {
            let page = self.runtime.block_on(async {
                let response = self.send(url, 0).await?;
                let next = next_page(response.headers());
                let body = body_of(response, url).await?;
                let value: T = serde_json::from_slice(&body).map_err(|error| {
                    Failure::Malformed(format!("{url}: not the JSON that was asked for: {error}"))
                })?;
                Ok::<_, Failure>((value, next))
            });
            match page {
                Err(failure) if retries.wait(failure.chance()) => {}
                page => break self.same_host(page),
            }
        }
    }

    /// A next page elsewhere would get the token.
    fn same_host<T>(
        &self,
        page: Result<(T, Option<String>), Failure>,
    ) -> Result<(T, Option<Url>), Failure> {
        let (value, next) = page?;
        let Some(next) = next else {
            return Ok((value, None));
        };
        let url = self.endpoint.join(&next).ok();
        match url.filter(|url| url.origin() == self.endpoint.origin()) {
            Some(url) => Ok((value, Some(url))),
            None => Err(Failure::Malformed(format!("a next page at `{next}`"))),
        }
    }

    /// Asks once for a file from a byte on, and hands on what comes, with the byte that it
    /// begins at and how many the whole file has, where the answer says so.
    pub(super) fn stream(
        &self,
        url: &Url,
        from: u64,
        begin: impl FnOnce(u64, Option<u64>) -> Result<(), Failure>,
        mut write: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let mut response = self.send(url, from).await?;
            let (start, size) = match response.status() {
                StatusCode::PARTIAL_CONTENT => {
                    content_range(response.headers()).ok_or_else(|| {
                        Failure::Malformed(format!("{url}: a part without saying which"))
                    })?
                }
                _ => (0, response.content_length()),
            };
            begin(start, size)?;
            while let Some(bytes) = response.chunk().await? {
                write(&bytes)?;
            }
            Ok(())
        })
    }

    async fn send(&self, url: &Url, from: u64) -> Result<Response, Failure> {
        let mut request = self.client.get(url.clone());
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let response = request.send().await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let text = |name: &str| {
            let value = response.headers().get(name)?;
            Some(value.to_str().ok()?.to_owned())
        };
        let retry_after = text(RETRY_AFTER.as_str()).and_then(|value| value.trim().parse().ok());
        Err(Failure::Answer(Answer {
            status: response.status().as_u16(),
            code: text("x-error-code"),
            message: text("x-error-message").unwrap_or_default(),
            retry_after: retry_after.map(Duration::from_secs),
            url: None,
        }))
    }
}

/// The most bytes of an answer that is kept in memory: a page of the hub's has a thousand
/// entries.
const MOST_BYTES: usize = 64 << 20;

/// All of an answer, if it is not too large to be one.
async fn body_of(mut response: Response, url: &Url) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await? {
        if body.len() + bytes.len() > MOST_BYTES {
            return Err(Failure::Malformed(format!(
                "{url}: more than {MOST_BYTES} bytes of JSON"
            )));
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}

/// The hub's address.
pub(super) fn endpoint(options: &HubOptions) -> Result<Url, HubError> {
    let url = Url::parse(&options.endpoint).ok();
    url.filter(|url| url.has_host())
        .ok_or_else(|| HubError::InvalidOption {
            option: "endpoint",
            expected: "an address",
            found: options.endpoint.clone(),
        })
}

/// A client that waits so long for a connection and for each piece of an answer.
pub(super) fn client(timeout: Duration) -> Result<Client, HubError> {
    Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(timeout)
        .read_timeout(timeout)
        .build()
        .map_err(|error| HubError::NoClient {
            reason: chain(&error),
        })
}

/// The next page's address, of a `Link` header.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = headers.get(LINK)?.to_str().ok()?;
    links.split(',').find_map(|link| {
        let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.contains("rel=\"next\"") || parameters.contains("rel=next");
        is_next.then(|| address.to_owned())
    })
}

/// The first byte that a part begins at and the size of the whole, of `bytes 5-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let range = headers.get("content-range")?.to_str().ok()?;
    let (range, size) = range.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    Some((start, size.parse().ok()))
}

/// An error's message with those of its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
    }

    #[test]
    fn a_link_to_another_page_is_found_if_it_is_the_next() {
        let next = |value| next_page(&headers("link", value));
        let links =
            "<https://hub/a?cursor=1>; rel=\"prev\", <https://hub/a?cursor=2>; rel=\"next\"";
        assert_eq!(next(links).as_deref(), Some("https://hub/a?cursor=2"));
        assert_eq!(next("<https://hub/a>; rel=\"prev\""), None);
        assert_eq!(next("nonsense"), None);
    }

    #[test]
    fn a_part_says_where_it_begins() {
        let range = |value| content_range(&headers("content-range", value));
        assert_eq!(range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(range("items 5-9/10"), None);
        assert_eq!(range("bytes */10"), None);
    }

    #[test]
    fn parts_of_an_address_cannot_lead_out_of_it() {
        let options = HubOptions {
            endpoint: "http://hub/prefix/".to_owned(),
            ..HubOptions::default()
        };
        let http = Http::new(&options).unwrap();
        let url = http.url(["api", "", "a/b", "ä ?#%"]);
        assert_eq!(
            url.as_str(),
            "http://hub/prefix/api/a%2Fb/%C3%A4%20%3F%23%25"
        );
    }
}
