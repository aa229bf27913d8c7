use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use super::encode_options::{EncodeOptions, EncodeProgress};
use super::prompt_groups::PromptGroup;
use super::{Mode, Pass, SentenceTransformer};
use crate::error::{ModelError, Result};
use crate::kernel::{
    batches_at_once, check_usable, finish, is_asynchronous, map_batches, near_threads, normalize,
};
use crate::text::{BatchLimits, Encoding, TokenBatch, plan};

/// The work of one batch in tokens: large enough that a batch fills the machine, small
/// enough that its activations stay near 100 MB in a base-sized encoder.
const BATCH_COST: usize = 8192;

/// The same where every core has a batch of its own.
const CORE_BATCH_COST: usize = 512;

/// How many batches a device that computes behind the calling thread is given before it is
/// waited for: what it has not begun takes memory, and a failure is not to go unnoticed longer.
const BATCHES_AHEAD: usize = 16;

impl<B: Backend> SentenceTransformer<B> {
    /// Encodes texts, one row each, in their order.
    ///
    /// # Shapes
    /// - output: `[texts, dim]`
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode<T: AsRef<str>>(&self, texts: &[T]) -> Result<Tensor<B, 2>> {
        self.encode_with(texts, &EncodeOptions::default())
    }

    /// Encodes one text.
    ///
    /// # Shapes
    /// - output: `[dim]`
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_one(&self, text: &str) -> Result<Tensor<B, 1>> {
        Ok(self.encode(&[text])?.squeeze_dim(0))
    }

    /// Encodes queries: with the model's `query` prompt, where it has one, and by the route of
    /// queries, where it has a Router.
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_query<T: AsRef<str>>(&self, texts: &[T]) -> Result<Tensor<B, 2>> {
        self.encode_query_with(texts, &EncodeOptions::default())
    }

    /// Encodes queries: with the model's `query` prompt, where it has one and the options
    /// give none.
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_query_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &EncodeOptions,
    ) -> Result<Tensor<B, 2>> {
        self.encode_for(Some(Task::Query), texts, options)
    }

    /// Encodes documents: with the model's `document`, `passage` or `corpus` prompt, where
    /// it has one, and by the route of documents, where it has a Router.
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_document<T: AsRef<str>>(&self, texts: &[T]) -> Result<Tensor<B, 2>> {
        self.encode_document_with(texts, &EncodeOptions::default())
    }

    /// Encodes documents: with the model's `document`, `passage` or `corpus` prompt, where
    /// it has one and the options give none.
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with).
    pub fn encode_document_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &EncodeOptions,
    ) -> Result<Tensor<B, 2>> {
        self.encode_for(Some(Task::Document), texts, options)
    }

    /// Encodes texts, one row each, in their order.
    ///
    /// Texts are tokenized first and batched by their token counts. No gradient flows
    /// through the result; [`forward`](Self::forward) is for training.
    ///
    /// # Shapes
    /// - output: `[texts, dim]`; `[0, dim]` for no texts
    ///
    /// # Errors
    /// [`ModelError`] for an unknown prompt or an option out of range,
    /// [`AdapterError`](crate::error::AdapterError) for an adapter that the model does not
    /// have, [`TextError`](crate::error::TextError) if the tokenizer fails on a text,
    /// [`ModuleError::NoRoute`](crate::error::ModuleError) where a Router has no route for what
    /// they are encoded for, [`DeviceError`](crate::error::DeviceError) if the device's memory
    /// does not suffice.
    pub fn encode_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &EncodeOptions,
    ) -> Result<Tensor<B, 2>> {
        self.encode_for(None, texts, options)
    }

    fn encode_for<T: AsRef<str>>(
        &self,
        task: Option<Task>,
        texts: &[T],
        options: &EncodeOptions,
    ) -> Result<Tensor<B, 2>> {
        let embeddings = self.begin_to_encode(task, texts, options)?;
        finish::<B>(&self.device(), ENCODING, || smaller_batches(options))?;
        Ok(embeddings)
    }

    /// Encodes texts, with the device perhaps still at it.
    pub(super) fn begin_to_encode<T: AsRef<str>>(
        &self,
        task: Option<Task>,
        texts: &[T],
        options: &EncodeOptions,
    ) -> Result<Tensor<B, 2>> {
        options.validate()?;
        let way = self.way_of_call(options, task)?;
        let output_dim = self.way(way).output_dim;
        let dim = options.truncate_dim.or(self.config.truncate_dim);
        let dim = dim.map_or(output_dim, |dim| dim.min(output_dim));
        let (order, embeddings) = self.map_batches(texts, options, task, |batch, pass| {
            let sentences = self.forward_pass(batch, pass).detach();
            let cut = match dim < output_dim {
                true => sentences.narrow(1, 0, dim),
                false => sentences,
            };
            match options.normalize {
                true => normalize(cut),
                false => cut,
            }
        })?;
        let device = self.device();
        if order.is_empty() {
            return Ok(Tensor::empty([0, dim], &device));
        }
        let mut places = vec![0i32; order.len()];
        for (place, &text) in order.iter().enumerate() {
            places[text] = place as i32;
        }
        let places: Tensor<B, 1, Int> =
            Tensor::from_data(TensorData::new(places, [order.len()]), &device);
        Ok(Tensor::cat(embeddings, 0).select(0, places))
    }

    /// Encodes texts to token embeddings: for each text its tokens' embeddings, special
    /// tokens included.
    ///
    /// # Shapes
    /// - each: `[tokens, hidden]`
    ///
    /// # Errors
    /// As [`encode_with`](Self::encode_with), and [`ModelError::NoTokenEmbeddings`] where the
    /// texts' route has none.
    pub fn encode_tokens<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &EncodeOptions,
    ) -> Result<Vec<Tensor<B, 2>>> {
        options.validate()?;
        let way = self.way(self.way_of_call(options, None)?);
        if self.input(way).config.is_static() {
            return Err(ModelError::NoTokenEmbeddings.into());
        }
        let (order, batches) = self.map_batches(texts, options, None, |batch, pass| {
            let Some(tokens) = self.forward_tokens(batch, pass) else {
                return Vec::new();
            };
            let starts = tokens.packing.starts().into_iter();
            let rows = starts
                .zip(tokens.packing.lengths())
                .map(|(start, &length)| {
                    let rows = tokens.embeddings.clone().narrow(0, start, length);
                    rows.detach()
                });
            rows.collect::<Vec<_>>()
        })?;
        let mut embeddings: Vec<Option<Tensor<B, 2>>> = vec![None; texts.len()];
        for (text, rows) in order.into_iter().zip(batches.into_iter().flatten()) {
            embeddings[text] = Some(rows);
        }
        finish::<B>(&self.device(), ENCODING, || smaller_batches(options))?;
        Ok(embeddings.into_iter().flatten().collect())
    }

    /// Runs over the texts in batches; gives the texts' order, all batches strung together,
    /// and what `run` made of each batch.
    fn map_batches<T: AsRef<str>, R: Send>(
        &self,
        texts: &[T],
        options: &EncodeOptions,
        task: Option<Task>,
        run: impl Fn(&TokenBatch<B>, Pass<'_>) -> R + Sync,
    ) -> Result<(Vec<usize>, Vec<R>)> {
        let way = self.way_of_call(options, task)?;
        // Adapters are on the model's own encoder alone.
        let adapters = match self.way(way).way.input {
            0 => self.text_adapters(texts.len(), options, task)?,
            _ => None,
        };
        let groups = self.encode_by_prompt(texts, options, (way, task), adapters.as_ref())?;
        let lengths = |group: &PromptGroup| group.encodings.iter().map(Encoding::len).collect();
        let lengths: Vec<Vec<usize>> = groups.iter().map(lengths).collect();
        let total_tokens = lengths.iter().flatten().sum();
        let limits = BatchLimits {
            texts: options.batch_size,
            cost: batch_cost(total_tokens, batches_at_once::<B>()),
            hidden_size: self.input(self.way(way)).config.hidden_size(),
        };
        let mut batches: Vec<(&PromptGroup, Vec<usize>)> = Vec::new();
        for (group, lengths) in groups.iter().zip(&lengths) {
            for mut members in plan(lengths, &limits) {
                if let Some(adapters) = &adapters {
                    // Texts of the same adapters next to each other.
                    members.sort_by_key(|&member| adapters.list_of(group.texts[member]));
                }
                batches.push((group, members));
            }
        }
        let device = self.device();
        check_usable::<B>(&device)?;
        let begun = AtomicUsize::new(0);
        let progress = Mutex::new(EncodeProgress {
            texts: 0,
            total_texts: texts.len(),
            tokens: 0,
            total_tokens,
        });
        let run_batch = |(group, members): &(&PromptGroup, Vec<usize>)| {
            let encodings: Vec<&Encoding> = members.iter().map(|&m| &group.encodings[m]).collect();
            let batch = self.pack(way, &encodings, group.prompt_tokens, &device)?;
            let texts: Vec<usize> = members.iter().map(|&member| group.texts[member]).collect();
            let routes = adapters
                .as_ref()
                .map(|adapters| adapters.routes(&texts, batch.packing().layout()));
            let pass = Pass {
                mode: Mode::Inference,
                routes: routes.as_deref(),
            };
            let result = run(&batch, pass);
            let is_ahead =
                begun.fetch_add(1, Ordering::Relaxed) % BATCHES_AHEAD == BATCHES_AHEAD - 1;
            if is_asynchronous::<B>() && is_ahead {
                finish::<B>(&device, ENCODING, || smaller_batches(options))?;
            }
            if let Some(report) = &options.progress {
                let mut progress = progress.lock().unwrap_or_else(|e| e.into_inner());
                progress.texts += batch.len();
                progress.tokens += batch.tokens();
                report(*progress);
            }
            Ok(result)
        };
        let results = near_threads::<B, _>(|| map_batches::<B, _, _>(&batches, run_batch));
        let results = results.into_iter().collect::<Result<_>>()?;
        let order = batches
            .iter()
            .flat_map(|(group, members)| members.iter().map(|&member| group.texts[member]));
        Ok((order.collect(), results))
    }

    /// The number of the way that the texts of a call take.
    fn way_of_call(&self, options: &EncodeOptions, task: Option<Task>) -> Result<usize> {
        let of_method = task.map(Task::name);
        self.way_for(options.task.as_deref().or(of_method))
    }
}

/// What a device was at when it failed.
pub(super) const ENCODING: &str = "encoding";

/// What takes less of a device's memory.
pub(super) fn smaller_batches(options: &EncodeOptions) -> String {
    let size = options.batch_size;
    format!("a smaller `batch_size` than {size} takes less, and so do shorter texts")
}

/// What texts are encoded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// To search with.
    Query,
    /// To be found.
    Document,
}

impl Task {
    /// The name that a Router knows the task by.
    fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Document => "document",
        }
    }
}

/// The most work in a batch, in tokens.
///
/// Where several batches run at once, each on a core of its own, a batch is to stay in
/// that core's cache, and there are to be enough of them to keep all cores busy to the end.
fn batch_cost(total_tokens: usize, at_once: usize) -> usize {
    match at_once {
        1 => BATCH_COST,
        _ => (total_tokens / (8 * at_once)).clamp(CORE_BATCH_COST / 2, CORE_BATCH_COST),
    }
}
