use serde_json::{Map, Value};

use burn::tensor::{Tensor, backend::Backend};

use super::{Layout, Mode, ModelConfig, Pass, RouteInput, SentenceTransformer};
use crate::encoder::{Encoder, EncoderConfig};
use crate::error::Result;
use crate::kernel::Packing;
use crate::modules::{
    FeatureShapes, Features, PoolingConfig, PoolingMode, SentenceModule, Step, TokenFeatures, Way,
    check_pipeline,
};
use crate::text::{TextTokenizer, TokenBatch};

/// A way through the model, and what is known of it.
#[derive(Debug, Clone)]
pub(super) struct ModelWay {
    pub(super) way: Way,
    /// The size of the sentence embedding, before any `truncate_dim`.
    pub(super) output_dim: usize,
    /// Whether a module reads the outputs of all of the encoder's layers.
    needs_layers: bool,
}

/// What reads texts, the model's own or another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a, B: Backend> {
    pub(super) encoder: &'a Encoder<B>,
    pub(super) tokenizer: &'a TextTokenizer,
    pub(super) config: &'a EncoderConfig,
}

/// The steps of a model with one encoder and no choice: its modules in their order.
pub(super) fn plain_steps(modules: usize) -> Vec<Step> {
    let modules = (0..modules).map(Step::Module);
    [Step::Input(0)].into_iter().chain(modules).collect()
}

/// Every way through a model, each followed to its end.
///
/// # Errors
/// [`ModuleError`](crate::error::ModuleError) where the parts do not fit each other.
pub(super) fn model_ways<B: Backend>(
    steps: &[Step],
    config: &ModelConfig,
    inputs: &[RouteInput<B>],
    modules: &[SentenceModule<B>],
) -> Result<Vec<ModelWay>> {
    let layout = layout(steps, config, inputs, modules);
    let follow = |way: Way| {
        let (encoder, fields) = match way.input {
            0 => (&config.encoder, &config.encoder_fields),
            other => {
                let config = &inputs[other - 1].config;
                (&config.encoder, &config.encoder_fields)
            }
        };
        let layers = hidden_states(fields);
        let shapes = match encoder.is_static() {
            true => FeatureShapes::of_sentences(encoder.hidden_size()),
            false => FeatureShapes::of_tokens(encoder.hidden_size(), layers),
        };
        let reads = way.modules.iter().map(|&module| &modules[module]);
        let names = way
            .modules
            .iter()
            .map(|&module| layout.modules[module].as_str());
        let weighs =
            |module: &&SentenceModule<B>| matches!(module, SentenceModule::WeightedLayerPooling(_));
        Ok(ModelWay {
            output_dim: check_pipeline(names.zip(reads.clone()), shapes)?,
            needs_layers: layers.is_some() && reads.clone().any(|module| weighs(&module)),
            way,
        })
    };
    let ways: Vec<ModelWay> = Way::all(steps)?
        .into_iter()
        .map(follow)
        .collect::<Result<_>>()?;
    if let Some(other) = ways.iter().find(|way| way.output_dim != ways[0].output_dim) {
        log::warn!(
            "the routes' embeddings have different sizes: {} and {}",
            ways[0].output_dim,
            other.output_dim
        );
    }
    Ok(ways)
}

/// The number of outputs that Python's encoder gives, its input included, where its
/// configuration asks for them.
fn hidden_states(fields: &Map<String, Value>) -> Option<usize> {
    if fields.get("output_hidden_states") != Some(&Value::Bool(true)) {
        return None;
    }
    let names = ["num_hidden_layers", "n_layers", "n_layer"];
    let layers = names.iter().find_map(|name| fields.get(*name));
    let layers = layers.and_then(Value::as_u64).unwrap_or_default();
    Some(
        usize::try_from(layers)
            .unwrap_or(usize::MAX)
            .saturating_add(1),
    )
}

fn layout<B: Backend>(
    steps: &[Step],
    config: &ModelConfig,
    inputs: &[RouteInput<B>],
    modules: &[SentenceModule<B>],
) -> Layout {
    let type_name = |step: &Step| step_type(step, config, inputs, modules);
    Layout::of(steps, &type_name)
}

fn step_type<B: Backend>(
    step: &Step,
    config: &ModelConfig,
    inputs: &[RouteInput<B>],
    modules: &[SentenceModule<B>],
) -> &'static str {
    let input_type = |config: &EncoderConfig| match config.is_static() {
        true => "StaticEmbedding",
        false => "Transformer",
    };
    match step {
        Step::Input(0) => input_type(&config.encoder),
        Step::Input(input) => input_type(&inputs[input - 1].config.encoder),
        Step::Module(module) => modules[*module].type_name(),
        Step::Router(_) => "Router",
    }
}

impl<B: Backend> SentenceTransformer<B> {
    /// The model's steps; more than its modules in their order only where a Router chooses
    /// between routes.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What reads texts beside the model's own encoder, for a Router's other routes.
    pub fn route_inputs(&self) -> &[RouteInput<B>] {
        &self.others
    }

    /// Where the model's parts lie in its folder.
    pub(crate) fn layout(&self) -> Layout {
        layout(&self.steps, &self.config, &self.others, &self.modules)
    }

    /// The type of a step, as the last part of its Python path.
    pub(crate) fn step_type(&self, step: &Step) -> &'static str {
        step_type(step, &self.config, &self.others, &self.modules)
    }

    /// The number of the way that texts of a task take.
    ///
    /// # Errors
    /// [`ModuleError::NoRoute`](crate::error::ModuleError).
    pub(super) fn way_for(&self, task: Option<&str>) -> Result<usize> {
        if !self.is_routed() {
            return Ok(0);
        }
        let way = Way::of(&self.steps, task)?;
        let known = self.ways.iter().position(|known| known.way == way);
        Ok(known.unwrap_or_default())
    }

    /// Whether a Router chooses between routes.
    pub(crate) fn is_routed(&self) -> bool {
        let mut steps = self.steps.iter();
        steps.any(|step| matches!(step, Step::Router(_)))
    }

    /// The tokenizer of texts that are for a task.
    ///
    /// # Errors
    /// [`ModuleError::NoRoute`](crate::error::ModuleError).
    #[cfg(feature = "train")]
    pub(crate) fn tokenizer_for(&self, task: Option<&str>) -> Result<&TextTokenizer> {
        let way = self.way_for(task)?;
        Ok(self.input(self.way(way)).tokenizer)
    }

    /// The number of a way that the model's own encoder reads the texts of.
    pub(super) fn own_way(&self) -> usize {
        let own = self.ways.iter().position(|way| way.way.input == 0);
        own.unwrap_or_default()
    }

    /// The way of that number.
    pub(super) fn way(&self, number: usize) -> &ModelWay {
        // A batch of another model's goes the first way.
        self.ways.get(number).unwrap_or(&self.ways[0])
    }

    /// What reads the texts of a way.
    pub(super) fn input(&self, way: &ModelWay) -> Input<'_, B> {
        match way.way.input {
            0 => Input {
                encoder: &self.encoder,
                tokenizer: &self.tokenizer,
                config: &self.config.encoder,
            },
            other => {
                let input = &self.others[other - 1];
                Input {
                    encoder: &input.encoder,
                    tokenizer: &input.tokenizer,
                    config: &input.config.encoder,
                }
            }
        }
    }

    /// What a batch's input makes of it.
    pub(super) fn read(&self, batch: &TokenBatch<B>, pass: Pass<'_>) -> Features<B> {
        let way = self.way(batch.way());
        let input = self.input(way);
        let packing = batch.packing().clone();
        if way.needs_layers {
            let layers = input.encoder.forward_layers(batch, &packing, pass);
            return features(input.config, batch, packing, layers, usize::MAX);
        }
        if input.config.is_static() && batch.tokens() == 0 {
            let zeros = Tensor::zeros([batch.len(), input.config.hidden_size()], &batch.device());
            return Features::of_sentences(zeros, packing);
        }
        let embeddings = input.encoder.forward(batch, &packing, pass);
        features(input.config, batch, packing, vec![embeddings], usize::MAX)
    }

    /// What a batch's input would give, were each of its layers the last.
    pub(super) fn read_layers(&self, batch: &TokenBatch<B>, pass: Pass<'_>) -> Vec<Features<B>> {
        let way = self.way(batch.way());
        let input = self.input(way);
        if input.config.is_static() {
            return vec![self.read(batch, pass)];
        }
        let packing = batch.packing().clone();
        let layers = input.encoder.forward_layers(batch, &packing, pass);
        let each = (0..layers.len())
            .map(|layer| features(input.config, batch, packing.clone(), layers.clone(), layer));
        each.collect()
    }

    /// Applies the first `end` modules of a way.
    pub(super) fn run_modules(
        &self,
        way: &ModelWay,
        features: Features<B>,
        end: usize,
        mode: Mode,
    ) -> Features<B> {
        let modules = way.way.modules.iter().take(end);
        modules.fold(features, |features, &module| {
            self.modules[module].forward(features, mode)
        })
    }
}

/// The features that an encoder's outputs make: the tokens' of the output `chosen`, or of the
/// last; for a table alone the texts' means.
fn features<B: Backend>(
    config: &EncoderConfig,
    batch: &TokenBatch<B>,
    packing: Packing<B>,
    layers: Vec<Tensor<B, 2>>,
    chosen: usize,
) -> Features<B> {
    let chosen = chosen.min(layers.len() - 1);
    let tokens = TokenFeatures {
        embeddings: layers[chosen].clone(),
        packing: packing.clone(),
        prompt_tokens: batch.prompt_tokens(),
    };
    if config.is_static() {
        let mean = PoolingConfig::new(config.hidden_size(), [PoolingMode::Mean]).init();
        return Features::of_sentences(mean.forward(tokens), packing);
    }
    let features = Features::of_tokens(tokens);
    match layers.len() {
        1 => features,
        _ => features.with_layers(layers),
    }
}
