use burn::tensor::{Tensor, backend::Backend};

use super::{Mode, SentenceTransformer};
use crate::adapter::Pass;
use crate::error::Result;
use crate::modules::{Features, SENTENCE_EMBEDDING, TokenFeatures};
use crate::text::{Encoding, TokenBatch};

impl<B: Backend> SentenceTransformer<B> {
    /// Turns a batch into sentence embeddings, before any `truncate_dim`; differentiable.
    ///
    /// # Shapes
    /// - batch: `[tokens]`, at least one text
    /// - output: `[texts, dim]`
    pub fn forward(&self, batch: &TokenBatch<B>, mode: Mode) -> Tensor<B, 2> {
        self.forward_pass(batch, Pass::new(mode))
    }

    /// Turns a batch into sentence embeddings, through the adapters that `pass` says.
    ///
    /// # Shapes
    /// - batch: `[tokens]`, at least one text
    /// - output: `[texts, dim]`
    pub fn forward_pass(&self, batch: &TokenBatch<B>, pass: Pass<'_>) -> Tensor<B, 2> {
        self.embed(batch, self.read(batch, pass), pass.mode)
    }

    /// Turns a batch into the sentence embeddings that each of the encoder's layers would
    /// give, were it the last: first those of the encoder's input, last those of
    /// [`forward_pass`](Self::forward_pass).
    ///
    /// # Shapes
    /// - batch: `[tokens]`, at least one text
    /// - output: `[texts, dim]` each
    pub fn forward_layers(&self, batch: &TokenBatch<B>, pass: Pass<'_>) -> Vec<Tensor<B, 2>> {
        let layers = self.read_layers(batch, pass);
        let embed = |features| self.embed(batch, features, pass.mode);
        layers.into_iter().map(embed).collect()
    }

    /// Applies the modules behind what reads a batch.
    fn embed(&self, batch: &TokenBatch<B>, features: Features<B>, mode: Mode) -> Tensor<B, 2> {
        let way = self.way(batch.way());
        let mut features = self.run_modules(way, features, usize::MAX, mode);
        // The ways were followed to their ends when the model was put together.
        let sentences = features.take(SENTENCE_EMBEDDING);
        sentences.unwrap_or_else(|| Tensor::zeros([batch.len(), way.output_dim], &batch.device()))
    }

    /// Turns a batch into token embeddings, as the last module that changes them leaves them.
    pub(super) fn forward_tokens(
        &self,
        batch: &TokenBatch<B>,
        pass: Pass<'_>,
    ) -> Option<TokenFeatures<B>> {
        let way = self.way(batch.way());
        let modules = way.way.modules.iter();
        let writes = modules.map(|&module| self.modules[module].writes_tokens());
        let end = writes.enumerate().filter(|(_, writes)| *writes).last();
        let end = end.map_or(0, |(place, _)| place + 1);
        let features = self.run_modules(way, self.read(batch, pass), end, pass.mode);
        features.tokens()
    }

    /// Tokenizes texts into one batch for [`forward`](Self::forward), each with `prompt`
    /// in front: special tokens around them, cut at
    /// [`max_seq_length`](Self::max_seq_length).
    ///
    /// # Errors
    /// [`TextError`](crate::error::TextError) if the tokenizer fails on a text, or knows a
    /// token that the encoder does not.
    pub fn tokenize<T: AsRef<str>>(
        &self,
        texts: &[T],
        prompt: Option<&str>,
        device: &B::Device,
    ) -> Result<TokenBatch<B>> {
        self.tokenize_for(None, texts, prompt, device)
    }

    /// The same for texts that are encoded for a task, `query` or `document`, which a Router
    /// chooses a route by.
    ///
    /// # Errors
    /// As [`tokenize`](Self::tokenize), and
    /// [`ModuleError::NoRoute`](crate::error::ModuleError).
    pub fn tokenize_for<T: AsRef<str>>(
        &self,
        task: Option<&str>,
        texts: &[T],
        prompt: Option<&str>,
        device: &B::Device,
    ) -> Result<TokenBatch<B>> {
        let way = self.way_for(task)?;
        let tokenizer = self.input(self.way(way)).tokenizer;
        let encodings = tokenizer.encode(texts, prompt)?;
        let prompt_tokens = tokenizer.prompt_tokens(prompt.unwrap_or_default())?;
        let encodings: Vec<&Encoding> = encodings.iter().collect();
        self.pack(way, &encodings, prompt_tokens, device)
    }

    /// Packs texts that were tokenized for a way.
    pub(super) fn pack(
        &self,
        way: usize,
        encodings: &[&Encoding],
        prompt_tokens: usize,
        device: &B::Device,
    ) -> Result<TokenBatch<B>> {
        let encoder = self.input(self.way(way)).config;
        let tables = [encoder.vocab_size(), encoder.type_vocab_size()];
        let batch = match encoder.is_static() {
            true => TokenBatch::pack_bags(encodings, prompt_tokens, tables, device)?,
            false => TokenBatch::pack(encodings, prompt_tokens, tables, device)?,
        };
        Ok(batch.with_way(way))
    }
}
