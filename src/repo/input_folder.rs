use std::path::Path;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use serde_json::{Map, Value, json};

use super::file::{FolderWriter, read_json, read_optional_fields};
use super::load::LoadOptions;
use super::names;
use super::pipeline::InputFolder;
use super::sharding::stage_weights;
use super::text_config::TextConfig;
use super::weights::read_weights;
use crate::encoder::{Encoder, EncoderConfig, StaticEmbeddingConfig};
use crate::error::{RepoError, Result};
use crate::model::{InputConfig, Layout, RouteInput, WeightsReport};
use crate::text::TextTokenizer;

/// The tokens that model2vec cuts texts to where its `config.json` does not say.
const MODEL2VEC_LENGTH: usize = 512;

/// What reads texts, as its folder holds it.
#[derive(Debug)]
pub(super) struct LoadedInput<B: Backend> {
    pub(super) tokenizer: TextTokenizer,
    pub(super) encoder: Encoder<B>,
    pub(super) config: InputConfig,
    pub(super) weights: WeightsReport,
}

impl<B: Backend> LoadedInput<B> {
    /// Loads a Transformer or a StaticEmbedding, whose encoder's files lie in `encoder_folder`
    /// and whose texts are cut to the tokens that the options give, if they do.
    ///
    /// # Errors
    /// [`Error`](crate::Error) naming the file, and what was expected and found there.
    pub(super) fn load(
        input: &InputFolder,
        encoder_folder: &Path,
        options: &LoadOptions,
        device: &B::Device,
    ) -> Result<Self> {
        match input.is_static {
            true => Self::load_static(&input.folder, options, device),
            false => Self::load_transformer(&input.folder, encoder_folder, options, device),
        }
    }

    fn load_transformer(
        folder: &Path,
        encoder_folder: &Path,
        options: &LoadOptions,
        device: &B::Device,
    ) -> Result<Self> {
        let fields: Map<String, Value> = read_json(
            &encoder_folder.join(names::CONFIG),
            "it says what encoder this is",
        )?;
        let encoder_config = EncoderConfig::from_json(&fields)?;
        let text = TextConfig::read(folder, &encoder_config)?;
        let read_tokenizer =
            || load_tokenizer(folder, &text, &encoder_config, options.max_seq_length);
        let mut tokenizer = None;
        // Both take time: the one builds tables, the other looks through all weights, which the
        // calling thread does, as on a device they are the tensors of who makes them.
        let (encoder, tensors) = rayon::in_place_scope(|scope| -> Result<_> {
            scope.spawn(|_| tokenizer = Some(read_tokenizer()));
            let mut tensors = read_weights(encoder_folder, options)?;
            Ok((encoder_config.load(&mut tensors, device)?, tensors))
        })?;
        let tokenizer = tokenizer.unwrap_or_else(read_tokenizer)?;
        let unused: Vec<String> = tensors.keys().map(str::to_owned).collect();
        if let Some(first) = unused.first() {
            log::warn!(
                "{}: {} tensors belong to no layer of a `{}` encoder and are not used, the first \
                 is `{first}`",
                encoder_folder.display(),
                unused.len(),
                encoder_config.model_type()
            );
        }
        Ok(Self {
            tokenizer,
            encoder,
            config: InputConfig {
                encoder: encoder_config,
                encoder_fields: fields,
                do_lower_case: text.do_lower_case,
                tokenizer_files: text.tokenizer_files,
            },
            weights: WeightsReport { unused },
        })
    }

    fn load_static(folder: &Path, options: &LoadOptions, device: &B::Device) -> Result<Self> {
        let mut text = TextConfig::of_static(folder)?;
        let path = folder.join(names::TOKENIZER);
        if let Some(truncation) = model2vec_truncation(folder)? {
            let mut json: Map<String, Value> = read_json(&path, "it is the tokenizer")?;
            json.insert("truncation".to_owned(), truncation);
            let json = Value::Object(json).to_string().into_bytes();
            text.tokenizer_files = vec![(names::TOKENIZER.to_owned(), json.into())];
        }
        let tokenizer = TextTokenizer::of_bags(tokenizer_json(&text), &path)?;
        let mut tensors = read_weights(folder, options)?;
        let config = StaticEmbeddingConfig::from_weights(&mut tensors)?;
        let embedding = config.load(&mut tensors, device)?;
        for key in tensors.keys() {
            log::warn!("{}: tensor `{key}` is not used", folder.display());
        }
        Ok(Self {
            tokenizer,
            encoder: Encoder::StaticEmbedding(embedding),
            config: InputConfig {
                encoder: EncoderConfig::StaticEmbedding(config),
                encoder_fields: Map::new(),
                do_lower_case: false,
                tokenizer_files: text.tokenizer_files,
            },
            weights: WeightsReport::default(),
        })
    }

    /// The input of a route.
    pub(super) fn into_route(self) -> RouteInput<B> {
        RouteInput {
            encoder: self.encoder,
            tokenizer: self.tokenizer,
            config: Arc::new(self.config),
        }
    }
}

/// How texts are cut in a folder that only model2vec knows to read, one without
/// `modules.json`: as `tokenizer.json` has it, whose own says nothing there.
fn model2vec_truncation(folder: &Path) -> Result<Option<Value>> {
    let file = folder.join(names::CONFIG);
    if folder.join(names::MODULES).exists() {
        return Ok(None);
    }
    let fields = read_optional_fields(&file)?.unwrap_or_default();
    if fields.get("model_type").and_then(Value::as_str) != Some("model2vec") {
        return Ok(None);
    }
    let max_length = match fields.get("max_length") {
        None => MODEL2VEC_LENGTH,
        Some(Value::Null) => return Ok(Some(Value::Null)),
        Some(value) => value
            .as_u64()
            .filter(|&length| length > 0)
            .and_then(|length| usize::try_from(length).ok())
            .ok_or_else(|| RepoError::InvalidField {
                path: file,
                field: "max_length".to_owned(),
                expected: "a number of tokens".to_owned(),
                found: value.to_string(),
            })?,
    };
    Ok(Some(json!({
        "direction": "Right",
        "max_length": max_length,
        "strategy": "LongestFirst",
        "stride": 0,
    })))
}

fn tokenizer_json(text: &TextConfig) -> &[u8] {
    let mut files = text.tokenizer_files.iter();
    let file = files.find(|(name, _)| name == names::TOKENIZER);
    file.map_or(&[], |(_, json)| json)
}

fn load_tokenizer(
    folder: &Path,
    text: &TextConfig,
    encoder: &EncoderConfig,
    max_seq_length: Option<usize>,
) -> Result<TextTokenizer> {
    let path = folder.join(names::TOKENIZER);
    let tokenizer = TextTokenizer::from_json(tokenizer_json(text), &path, text.max_seq_length)?;
    let tokenizer = match max_seq_length {
        Some(length) => tokenizer.with_max_length(length, encoder.token_limit())?,
        None => tokenizer,
    };
    if text.do_lower_case {
        tokenizer.with_lowercase()
    } else {
        Ok(tokenizer)
    }
}

/// What reads texts, on its way into a folder.
#[derive(Debug, Clone, Copy)]
pub(super) struct SavedInput<'a, B: Backend> {
    pub(super) tokenizer: &'a TextTokenizer,
    pub(super) encoder: &'a Encoder<B>,
    pub(super) config: &'a EncoderConfig,
    pub(super) encoder_fields: &'a Map<String, Value>,
    pub(super) do_lower_case: bool,
    pub(super) tokenizer_files: &'a [(String, Arc<[u8]>)],
}

impl<B: Backend> SavedInput<'_, B> {
    /// Stages the encoder's files, its weights in files of at most `limit` bytes of tensors.
    ///
    /// # Errors
    /// [`RepoError`] naming the file.
    pub(super) fn stage_encoder(
        &self,
        path: &str,
        limit: u64,
        writer: &mut FolderWriter,
    ) -> Result<()> {
        let within = Layout::within(path);
        let tensors = self.config.state_dict(self.encoder)?;
        // Python writes those of a StaticEmbedding, as of any module but a Transformer, whole.
        let limit = if self.config.is_static() {
            u64::MAX
        } else {
            limit
        };
        stage_weights(&tensors, &within, limit, writer)?;
        if self.config.is_static() {
            return Ok(());
        }
        let fields = Value::Object(self.encoder_fields.clone());
        writer.stage_json(&format!("{within}{}", names::CONFIG), &fields)
    }

    /// Stages the files that say how texts are read.
    ///
    /// # Errors
    /// [`RepoError`] naming the file.
    pub(super) fn stage_texts(&self, path: &str, writer: &mut FolderWriter) -> Result<()> {
        let within = Layout::within(path);
        if !self.config.is_static() {
            let sentence_bert = json!({
                "max_seq_length": self.tokenizer.max_length(),
                "do_lower_case": self.do_lower_case,
            });
            writer.stage_json(&format!("{within}{}", names::SENTENCE_BERT), &sentence_bert)?;
        }
        for (name, content) in self.tokenizer_files {
            writer.stage(&format!("{within}{name}"), content)?;
        }
        Ok(())
    }
}
