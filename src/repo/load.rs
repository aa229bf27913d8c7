use std::path::Path;

use burn::tensor::backend::Backend;

use super::adapter_folder::AdapterFolder;
use super::arrival::check_arrival;
use super::hub::HubOptions;
use super::input_folder::LoadedInput;
use super::names;
use super::pipeline::{EmbeddingConfig, Pipeline};
use super::source::Source;
use crate::adapter::DEFAULT_ADAPTER;
use crate::error::Result;
use crate::model::{
    AdapterLoadReport, AdapterSettings, AdapterWeights, ModelCardData, ModelConfig, ModelParts,
    Routing, SentenceTransformer, SimilarityFunction,
};
use crate::text::Prompts;

/// How a model is loaded; what is `None` is as the folder says.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Where and how to find what is not a folder.
    pub hub: HubOptions,
    /// The base model of an adapter folder, instead of the one that the folder names: a
    /// folder or a hub id.
    pub base: Option<String>,
    /// The number of tokens a text is cut to.
    pub max_seq_length: Option<usize>,
    /// The named prompts, instead of the folder's.
    pub prompts: Option<Prompts>,
    /// How embeddings are compared.
    pub similarity_fn: Option<SimilarityFunction>,
    /// The number of dimensions embeddings are cut to.
    pub truncate_dim: Option<usize>,
    /// What the model card will say beside what the model itself knows.
    pub model_card_data: ModelCardData,
    /// Whether weights may hold NaN or infinity, which make NaN of every embedding they meet;
    /// else they are an error that names the tensor.
    pub allow_non_finite: bool,
}

/// How an adapter is loaded into a model.
#[derive(Debug, Clone)]
pub struct LoadAdapterOptions {
    /// Its name in the model.
    pub name: String,
    /// Whether it trains further; one that does not stays frozen.
    pub is_trainable: bool,
    /// Whether a weight that the file lacks, or has in another shape, is an error; else it
    /// stays fresh, and the report says so.
    pub strict: bool,
    /// Whether the adapter takes the place of the one of the same name, which stays active or
    /// not. It may be of another type, on other layers, of other ranks.
    pub hotswap: bool,
    /// Whether weights may hold NaN or infinity, which make NaN of every embedding they meet;
    /// else they are an error that names the tensor.
    pub allow_non_finite: bool,
    /// Where and how to find what is not a folder.
    pub hub: HubOptions,
}

impl Default for LoadAdapterOptions {
    fn default() -> Self {
        Self {
            name: DEFAULT_ADAPTER.to_owned(),
            is_trainable: false,
            strict: true,
            hotswap: false,
            allow_non_finite: false,
            hub: HubOptions::default(),
        }
    }
}

impl<B: Backend> SentenceTransformer<B> {
    /// Loads a model: a folder, or a Hugging Face Hub id.
    ///
    /// Reads folders of both Sentence Transformers generations; bare Hugging Face folders,
    /// which get mean pooling, or the last token's where they are causal language models;
    /// and adapter folders, whose base is looked for relative to the folder, then to the
    /// working directory, then on the hub. An adapter folder that Sentence Transformers
    /// saved keeps its own tokenizer, pooling and prompts; one with only PEFT's two files
    /// takes its base's.
    ///
    /// On a CPU, f32 weights stay in their file, which is mapped as long as the model lives:
    /// to change a model that is in use, replace its files (as [`save`](Self::save) does)
    /// rather than write into them.
    ///
    /// ```no_run
    /// use burn::backend::NdArray;
    /// use sentence_burn::SentenceTransformer;
    ///
    /// let model = SentenceTransformer::<NdArray>::load(
    ///     "tomaarsen/bert-base-uncased-gooaq-peft",
    ///     &Default::default(),
    /// )?;
    /// # Ok::<(), sentence_burn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error`](crate::Error) naming the file, and what was expected and found there;
    /// [`DeviceError`](crate::error::DeviceError) if the device's memory does not suffice.
    pub fn load(source: impl AsRef<Path>, device: &B::Device) -> Result<Self> {
        Self::load_with(source, &LoadOptions::default(), device)
    }

    /// Loads a model with options; see [`load`](Self::load).
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(
        source: impl AsRef<Path>,
        options: &LoadOptions,
        device: &B::Device,
    ) -> Result<Self> {
        let source = Source::resolve(&source.as_ref().to_string_lossy(), &options.hub)?;
        let pipeline = Pipeline::read(&source.folder)?;
        let adapter = AdapterFolder::find(pipeline.own_folder())?;
        let mut model = match &adapter {
            // Its own encoder beside the adapter, or no adapter at all.
            None => load_whole(&source, pipeline, &source, options, device)?,
            Some(_) if pipeline.own_folder().join(names::CONFIG).exists() => {
                load_whole(&source, pipeline, &source, options, device)?
            }
            Some(adapter) => {
                let base = match &options.base {
                    Some(base) => Source::resolve(base, &HubOptions::default_on(&options.hub))?,
                    None => adapter.base(&options.hub)?,
                };
                if pipeline.is_bare() {
                    let pipeline = Pipeline::read(&base.folder)?;
                    load_whole(&base, pipeline, &base, options, device)?
                } else {
                    load_whole(&source, pipeline, &base, options, device)?
                }
            }
        };
        if let Some(adapter) = adapter {
            let (config, tensors) = adapter.into_parts(options.allow_non_finite);
            model.add_adapter_with_weights(config, AdapterWeights::new(tensors))?;
        }
        check_arrival(&model, device)?;
        Ok(model)
    }

    /// Loads an adapter into the model under the name `default` and makes it the only
    /// active one. It is frozen.
    ///
    /// Only the adapter is read, and the prompts that the folder brings: they go before the
    /// model's own where this adapter is used. The folder's own tokenizer and pooling, if it
    /// has such, are for loading it [directly](Self::load).
    ///
    /// # Errors
    /// [`Error`](crate::Error) naming the file, the field or the tensor that is wrong; the
    /// model is then as it was.
    pub fn load_adapter(&mut self, source: impl AsRef<Path>) -> Result<AdapterLoadReport> {
        self.load_adapter_with(source, &LoadAdapterOptions::default())
    }

    /// Loads an adapter under any name, to be trained further or not; see
    /// [`load_adapter`](Self::load_adapter).
    ///
    /// # Errors
    /// As [`load_adapter`](Self::load_adapter).
    pub fn load_adapter_with(
        &mut self,
        source: impl AsRef<Path>,
        options: &LoadAdapterOptions,
    ) -> Result<AdapterLoadReport> {
        let source = Source::resolve(&source.as_ref().to_string_lossy(), &options.hub)?;
        let adapter = AdapterFolder::read(&source.folder)?;
        let prompts = adapter.prompts()?;
        let (config, tensors) = adapter.into_parts(options.allow_non_finite);
        self.add_adapter_with_weights(
            config,
            AdapterWeights {
                name: options.name.clone(),
                tensors,
                trainable: options.is_trainable,
                strict: options.strict,
                replace: options.hotswap,
                prompts,
            },
        )
    }
}

/// Loads a model whose pipeline is `pipeline`, of `source`, and whose own encoder is that of
/// `base`.
fn load_whole<B: Backend>(
    source: &Source,
    mut pipeline: Pipeline,
    base: &Source,
    options: &LoadOptions,
    device: &B::Device,
) -> Result<SentenceTransformer<B>> {
    let base_pipeline = Pipeline::read(&base.folder)?;
    let mut inputs = pipeline.inputs.iter().enumerate().map(|(index, input)| {
        let weights = match index {
            0 => base_pipeline.own_folder(),
            _ => &input.folder,
        };
        LoadedInput::<B>::load(input, weights, options, device)
    });
    let Some(own) = inputs.next() else {
        // `Pipeline::read` has found at least one.
        return Err(crate::error::ModuleError::InvalidPipeline {
            reason: "no module reads texts".to_owned(),
        }
        .into());
    };
    let (own, others) = (own?, inputs.collect::<Result<Vec<_>>>()?);
    let embedding = EmbeddingConfig::read(&source.folder)?;
    let hidden = own.config.encoder.hidden_size();
    let modules = pipeline.load_modules(hidden, &own.config.encoder_fields, options, device)?;
    let parts = ModelParts {
        tokenizer: own.tokenizer,
        encoder: own.encoder,
        modules,
        config: ModelConfig {
            encoder: own.config.encoder,
            encoder_fields: own.config.encoder_fields,
            prompts: options.prompts.clone().unwrap_or(embedding.prompts),
            adapters: AdapterSettings::default(),
            similarity_fn: options.similarity_fn.unwrap_or(embedding.similarity_fn),
            truncate_dim: options.truncate_dim.or(embedding.truncate_dim),
            do_lower_case: own.config.do_lower_case,
            tokenizer_files: own.config.tokenizer_files,
            name_or_path: Some(base.name.clone()),
            revision: base.revision.clone(),
            card: options.model_card_data.clone(),
            weights: own.weights,
        },
    };
    let routing = Routing {
        inputs: others.into_iter().map(LoadedInput::into_route).collect(),
        steps: pipeline.steps,
    };
    SentenceTransformer::from_routed_parts(parts, routing)
}

#[cfg(all(test, not(windows)))]
mod tests {
    use super::*;
    use crate::encoder::Params;
    use crate::state_dict::ParamVisitor;
    use burn::backend::NdArray;
    use burn::module::Param;
    use burn::tensor::Tensor;

    /// The values of the parameters that are borrowed, and of those that are not.
    #[derive(Default)]
    struct Counts {
        borrowed: usize,
        owned: usize,
    }

    impl ParamVisitor<NdArray> for Counts {
        fn visit<const D: usize>(
            &mut self,
            _: String,
            param: &mut Param<Tensor<NdArray, D>>,
        ) -> Result<()> {
            let tensor = param.val().into_primitive().tensor();
            let count = param.val().shape().num_elements();
            match tensor.is_borrowed() {
                true => self.borrowed += count,
                false => self.owned += count,
            }
            Ok(())
        }
    }

    #[test]
    fn a_loaded_model_s_matrices_are_those_of_its_file() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny_bert/v6");
        let model = SentenceTransformer::<NdArray>::load(folder, &Default::default()).unwrap();
        let mut counts = Counts::default();
        let mut encoder = model.encoder().clone();
        encoder.visit_layers(&mut Params(&mut counts)).unwrap();
        assert!(
            counts.owned > 0 && counts.borrowed > 10 * counts.owned,
            "{} borrowed, {} owned",
            counts.borrowed,
            counts.owned
        );
    }
}
