use burn::tensor::backend::Backend;

use super::SentenceTransformer;
use super::adapter_choice::TextAdapters;
use super::encode::Task;
use super::encode_options::EncodeOptions;
use crate::error::Result;
use crate::text::{Encoding, TextTokenizer};

/// Texts with the same prompt, tokenized.
pub(super) struct PromptGroup {
    /// Their places in the call.
    pub(super) texts: Vec<usize>,
    pub(super) encodings: Vec<Encoding>,
    pub(super) prompt_tokens: usize,
}

impl<B: Backend> SentenceTransformer<B> {
    /// Tokenizes the texts, those that have the same prompt together.
    pub(super) fn encode_by_prompt<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &EncodeOptions,
        (way, task): (usize, Option<Task>),
        adapters: Option<&TextAdapters>,
    ) -> Result<Vec<PromptGroup>> {
        let tokenizer = self.input(self.way(way)).tokenizer;
        let prompt_with = |adapters: &[String]| -> Result<Option<String>> {
            let prompts = self.prompts_with(adapters);
            let prompt = options.prompt.clone().or_else(|| match task {
                Some(Task::Query) => prompts.query(),
                Some(Task::Document) => prompts.document(),
                None => None,
            });
            Ok(prompts.resolve(prompt.as_ref())?.map(str::to_owned))
        };
        let Some(adapters) = adapters else {
            let applied: &[String] = match self.way(way).way.input {
                0 => self.adapters.applied(),
                _ => &[],
            };
            let prompt = prompt_with(applied)?;
            let group = encode_group(tokenizer, texts, (0..texts.len()).collect(), prompt)?;
            return Ok(vec![group]);
        };
        let prompts = adapters.lists().iter().map(|list| prompt_with(list));
        let prompts = prompts.collect::<Result<Vec<_>>>()?;
        // What all tokens of a batch share can only be that of one list of adapters.
        let is_shared = self.config.encoder.shares_a_table();
        let key = |list: usize| (&prompts[list], is_shared.then_some(list));
        let mut different: Vec<_> = (0..prompts.len()).map(key).collect();
        different.sort();
        different.dedup();
        let groups = different.into_iter().map(|group| {
            let has_it = |&text: &usize| key(adapters.list_of(text)) == group;
            let members = (0..texts.len()).filter(has_it).collect();
            encode_group(tokenizer, texts, members, group.0.clone())
        });
        groups.collect()
    }
}

fn encode_group<T: AsRef<str>>(
    tokenizer: &TextTokenizer,
    texts: &[T],
    members: Vec<usize>,
    prompt: Option<String>,
) -> Result<PromptGroup> {
    let prompt = prompt.as_deref();
    let encodings = if members.len() == texts.len() {
        tokenizer.encode(texts, prompt)?
    } else {
        let texts: Vec<&str> = members.iter().map(|&text| texts[text].as_ref()).collect();
        tokenizer.encode(&texts, prompt)?
    };
    Ok(PromptGroup {
        encodings,
        texts: members,
        prompt_tokens: tokenizer.prompt_tokens(prompt.unwrap_or_default())?,
    })
}
