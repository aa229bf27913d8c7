use std::fmt;
use std::sync::{Arc, Mutex};
use std::vec;

use burn::tensor::{Tensor, backend::Backend};

use super::encode::{ENCODING, smaller_batches};
use super::encode_options::{EncodeOptions, EncodeProgress};
use super::{AdapterChoice, SentenceTransformer};
use crate::error::Result;
use crate::kernel::{Reading, finish, is_asynchronous};

/// The texts of a window, in batches: enough that texts of like length meet.
const BATCHES_IN_WINDOW: usize = 256;

impl<B: Backend> SentenceTransformer<B> {
    /// Encodes texts as they come, in memory that their number has no part in.
    ///
    /// A window of texts at a time is read and encoded as
    /// [`encode_with`](Self::encode_with) does it, batched by token counts within the window;
    /// the embeddings are the same, and come in the texts' order. A device that computes
    /// behind the calling thread is given the next window before one is read from it, so that
    /// there two windows are held. Where the options choose adapters by text, their list is
    /// that of all texts; progress counts the texts read so far as all there are.
    ///
    /// ```no_run
    /// # use burn::backend::NdArray;
    /// # use sentence_burn::{EncodeOptions, SentenceTransformer};
    /// use std::io::{BufRead, stdin};
    ///
    /// # let model = SentenceTransformer::<NdArray>::load("all-MiniLM-L6-v2", &Default::default())?;
    /// let lines = stdin().lock().lines().map_while(Result::ok);
    /// for embedding in model.encode_stream(lines, &EncodeOptions::default())? {
    ///     println!("{:?}", embedding?);
    /// }
    /// # Ok::<(), sentence_burn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ModelError`](crate::error::ModelError) for an option out of range. The iterator gives
    /// what [`encode_with`](Self::encode_with) gives, and ends there.
    pub fn encode_stream<I>(
        &self,
        texts: I,
        options: &EncodeOptions,
    ) -> Result<EncodeStream<'_, B, I::IntoIter>>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        options.validate()?;
        let windows = EncodeWindows {
            model: self,
            texts: texts.into_iter(),
            window: options.batch_size.saturating_mul(BATCHES_IN_WINDOW),
            options: options.clone(),
            before: Counts::default(),
            ahead: None,
            ended: false,
        };
        Ok(EncodeStream {
            windows,
            rows: Vec::new().into_iter(),
            reading: None,
        })
    }
}

/// The embeddings of texts that come one by one: of [`SentenceTransformer::encode_stream`].
pub struct EncodeStream<'a, B: Backend, I> {
    windows: EncodeWindows<'a, B, I>,
    /// What is left of the window's embeddings.
    rows: vec::IntoIter<Vec<f32>>,
    /// The window behind it, where one was begun.
    reading: Option<Result<Window<B>>>,
}

/// A window's embeddings, which the device may still be at.
#[derive(Debug)]
struct Window<B: Backend> {
    embeddings: Tensor<B, 2>,
    reading: Reading<B>,
    /// Whether the device has said that it is done with them.
    is_finished: bool,
}

/// The same embeddings, a window at a time, on the device.
pub struct EncodeWindows<'a, B: Backend, I> {
    model: &'a SentenceTransformer<B>,
    texts: I,
    options: EncodeOptions,
    window: usize,
    /// The windows before.
    before: Counts,
    /// A window that was begun before the windows were asked for themselves.
    ahead: Option<Result<Tensor<B, 2>>>,
    ended: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    texts: usize,
    tokens: usize,
}

impl<'a, B: Backend, I> EncodeStream<'a, B, I> {
    /// The same with windows of so many texts, at least one. By default it is 256 batches.
    #[must_use]
    pub fn with_window(mut self, texts: usize) -> Self {
        self.windows.window = texts.max(1);
        self
    }

    /// Gives the embeddings a window at a time instead, as a tensor: from the next window on.
    pub fn by_window(self) -> EncodeWindows<'a, B, I> {
        let mut windows = self.windows;
        windows.ahead = self
            .reading
            .map(|window| window.map(|window| window.embeddings));
        windows
    }

    /// Reads a window's embeddings from the device.
    fn read(&mut self, window: Window<B>) -> Result<vec::IntoIter<Vec<f32>>> {
        let [_, dim] = window.embeddings.dims();
        let (model, options) = (self.windows.model, &self.windows.options);
        let data = window.reading.end(ENCODING, || smaller_batches(options))?;
        if !window.is_finished {
            finish::<B>(&model.device(), ENCODING, || smaller_batches(options))?;
            // The device had been given the window behind it, too.
            if let Some(Ok(next)) = &mut self.reading {
                next.is_finished = true;
            }
        }
        let values: Vec<f32> = data.iter().collect();
        let rows: Vec<Vec<f32>> = values.chunks(dim.max(1)).map(<[f32]>::to_vec).collect();
        Ok(rows.into_iter())
    }
}

impl<B: Backend, I> EncodeStream<'_, B, I>
where
    I: Iterator,
    I::Item: AsRef<str>,
{
    /// Gives the device a window, and has it send the embeddings.
    fn begin(&mut self) -> Option<Result<Window<B>>> {
        let embeddings = self.windows.begin()?;
        Some(embeddings.map(|embeddings| Window {
            reading: Reading::begin(embeddings.clone()),
            embeddings,
            is_finished: false,
        }))
    }
}

impl<B: Backend, I> Iterator for EncodeStream<'_, B, I>
where
    I: Iterator,
    I::Item: AsRef<str>,
{
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.next() {
                return Some(Ok(row));
            }
            let window = match self.reading.take() {
                Some(window) => window,
                None => self.begin()?,
            };
            if window.is_ok() && is_asynchronous::<B>() {
                self.reading = self.begin();
            }
            match window.and_then(|window| self.read(window)) {
                Ok(rows) => self.rows = rows,
                Err(error) => {
                    self.reading = None;
                    self.windows.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl<B: Backend, I> Iterator for EncodeWindows<'_, B, I>
where
    I: Iterator,
    I::Item: AsRef<str>,
{
    /// `[texts, dim]`, texts being those of the window.
    type Item = Result<Tensor<B, 2>>;

    fn next(&mut self) -> Option<Self::Item> {
        let window = match self.ahead.take() {
            Some(window) => window,
            None => self.begin()?,
        };
        let finished = window.and_then(|embeddings| {
            let device = self.model.device();
            finish::<B>(&device, ENCODING, || smaller_batches(&self.options))?;
            Ok(embeddings)
        });
        self.ended |= finished.is_err();
        Some(finished)
    }
}

impl<B: Backend, I> EncodeWindows<'_, B, I>
where
    I: Iterator,
    I::Item: AsRef<str>,
{
    /// The next window's embeddings, with the device perhaps still at them.
    fn begin(&mut self) -> Option<Result<Tensor<B, 2>>> {
        if self.ended {
            return None;
        }
        let texts: Vec<I::Item> = self.texts.by_ref().take(self.window).collect();
        self.ended = texts.len() < self.window;
        let options = self.options_of(texts.len());
        if texts.is_empty() && !has_adapters_left(&options) {
            return None;
        }
        let encoded = self.encode(&texts, options);
        self.ended |= encoded.is_err();
        Some(encoded)
    }

    /// The options of a window: of the adapters that are chosen by text, the window's.
    fn options_of(&self, texts: usize) -> EncodeOptions {
        let mut options = self.options.clone();
        if let Some(AdapterChoice::ByText(lists)) = &self.options.adapters {
            let start = self.before.texts.min(lists.len());
            // Behind the last text there are to be none.
            let end = match self.ended {
                true => lists.len(),
                false => (start + texts).min(lists.len()),
            };
            options.adapters = Some(AdapterChoice::ByText(lists[start..end].to_vec()));
        }
        options
    }

    fn encode(&mut self, texts: &[I::Item], mut options: EncodeOptions) -> Result<Tensor<B, 2>> {
        let (before, report) = (self.before, options.progress.take());
        let tokens = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&tokens);
        options.progress = Some(Arc::new(move |progress: EncodeProgress| {
            *counted.lock().unwrap_or_else(|e| e.into_inner()) = progress.total_tokens;
            if let Some(report) = &report {
                report(EncodeProgress {
                    texts: before.texts + progress.texts,
                    total_texts: before.texts + progress.total_texts,
                    tokens: before.tokens + progress.tokens,
                    total_tokens: before.tokens + progress.total_tokens,
                });
            }
        }));
        let embeddings = self.model.begin_to_encode(None, texts, &options)?;
        self.before.texts += texts.len();
        self.before.tokens += *tokens.lock().unwrap_or_else(|e| e.into_inner());
        Ok(embeddings)
    }
}

fn has_adapters_left(options: &EncodeOptions) -> bool {
    matches!(&options.adapters, Some(AdapterChoice::ByText(lists)) if !lists.is_empty())
}

impl<B: Backend, I> fmt::Debug for EncodeStream<'_, B, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodeStream")
            .field("windows", &self.windows)
            .field("rows", &self.rows.len())
            .finish()
    }
}

impl<B: Backend, I> fmt::Debug for EncodeWindows<'_, B, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodeWindows")
            .field("options", &self.options)
            .field("window", &self.window)
            .field("before", &self.before)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
