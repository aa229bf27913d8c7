use burn::tensor::backend::Backend;
use burn::tensor::{DType, TensorData};

use super::{Mode, Pass, SentenceTransformer};
use crate::adapter::eva::{EvaAdapter, EvaLayer, EvaPass, inputs_digest};
use crate::adapter::{
    AdaptedLinear, AdapterRoute, InitLoraWeights, InitScheme, InputRecorder, LoraConfig, Matrix,
    ModuleNames,
};
use crate::encoder::{Linears, Params};
use crate::error::{AdapterError, Result};
use crate::kernel::Layout;
use crate::state_dict::{ParamVisitor, StateDict};
use crate::text::{Encoding, TokenBatch};

/// The rounds over the texts that EVA may take: vectors that are not found by then are not
/// going to be.
const MOST_ROUNDS: usize = 100;

/// A layer that an adapter is on, with what it is updated by.
struct EvaSite {
    path: String,
    recorder: InputRecorder,
}

impl<B: Backend> SentenceTransformer<B> {
    /// Draws a fresh adapter's weights from what its layers see of these texts, and spreads
    /// its ranks over the layers accordingly (EVA, <https://arxiv.org/abs/2410.07170>; PEFT's
    /// `initialize_lora_eva_weights`).
    ///
    /// The adapter must have been added with `init_lora_weights` `eva`. Texts go through the
    /// base model in batches of `batch_size`, again and again until the directions found no
    /// longer change. A layer that gets no rank is no longer adapted.
    ///
    /// # Errors
    /// [`AdapterError::InvalidField`] where the adapter is another one,
    /// [`AdapterError::NotConverged`] where the directions keep changing; the model is then
    /// as it was.
    pub fn initialize_eva<T: AsRef<str>>(
        &mut self,
        name: &str,
        texts: &[T],
        batch_size: usize,
    ) -> Result<()> {
        let entry = self.adapters.get(name)?.clone();
        let is_eva = |config: &&LoraConfig| {
            config.init_lora_weights == InitLoraWeights::Scheme(InitScheme::Eva)
        };
        let Some(config) = entry.config.as_lora().filter(is_eva).cloned() else {
            return Err(AdapterError::InvalidField {
                field: "init_lora_weights".to_owned(),
                expected: "eva".to_owned(),
                found: format!("that of the {} adapter `{name}`", entry.config.peft_type()),
            }
            .into());
        };
        let batches = self.eva_batches(texts, batch_size)?;
        let mut sites = Vec::new();
        let mut ranks = Vec::new();
        let mut alphas = Vec::new();
        self.try_each_linear(|path, layer| {
            let Some(update) = layer.low_rank(name) else {
                return Ok(());
            };
            let (factors, scaling) = update.factors();
            let r = factors.r();
            // The layer's own, by whatever pattern.
            let alpha = match config.use_rslora {
                true => scaling * (r as f64).sqrt(),
                false => scaling * r as f64,
            };
            ranks.push(r);
            alphas.push(alpha);
            let recorder = InputRecorder::default();
            layer.record_inputs(Some(recorder.clone()));
            let path = path.to_owned();
            sites.push(EvaSite { path, recorder });
            Ok(())
        })?;
        let found = self.find_eva(&config, &sites, &ranks, &batches);
        self.try_each_linear(|_, layer| {
            layer.record_inputs(None);
            Ok(())
        })?;
        let found = found?;
        let (config, tensors) = eva_adapter(&config, &ranks, &alphas, found);
        let mut config = config.into();
        let mut tensors = tensors;
        let source = Some((&mut tensors, false));
        let (made, _) = self.make_adapter(name, &mut config, source)?;
        let mut entry = entry;
        entry.config = config;
        self.attach_adapter(entry, made)
    }

    /// The texts in batches, in their order.
    fn eva_batches<T: AsRef<str>>(
        &self,
        texts: &[T],
        batch_size: usize,
    ) -> Result<Vec<TokenBatch<B>>> {
        let encodings = self.tokenizer.encode(texts, None)?;
        let (way, device) = (self.own_way(), self.device());
        let batches = encodings.chunks(batch_size.max(1));
        batches
            .map(|batch| self.pack(way, &batch.iter().collect::<Vec<&Encoding>>(), 0, &device))
            .collect()
    }

    fn find_eva(
        &self,
        config: &LoraConfig,
        sites: &[EvaSite],
        ranks: &[usize],
        batches: &[TokenBatch<B>],
    ) -> Result<Vec<EvaAdapter>> {
        let eva = config.eva_config.clone().unwrap_or_default();
        let mut pass: Option<EvaPass> = None;
        for batch in (0..MOST_ROUNDS).flat_map(|_| batches) {
            self.run_base(batch);
            let inputs = sites.iter().map(|site| site.recorder.take());
            let inputs: Vec<Option<Matrix>> = inputs
                .map(|inputs| inputs.map(|rows| of_tokens(rows, batch.packing().layout())))
                .collect();
            let pass = match &mut pass {
                Some(pass) => pass,
                None => {
                    let layers = sites.iter().zip(ranks).zip(&inputs);
                    let layers = layers.filter_map(|((site, &r), inputs)| {
                        let inputs = inputs.as_ref()?;
                        Some(EvaLayer {
                            name: site.path.clone(),
                            r,
                            d_input: inputs.shape()[1],
                            digest: inputs_digest(inputs),
                        })
                    });
                    let layers: Vec<EvaLayer> = layers.collect();
                    let largest = self.largest_dim();
                    pass.insert(EvaPass::new(&eva, config.r, largest, &layers)?)
                }
            };
            for (site, inputs) in sites.iter().zip(&inputs) {
                if let Some(inputs) = inputs.as_ref().filter(|_| pass.needs(&site.path)) {
                    pass.update(&site.path, inputs)?;
                }
            }
            if pass.finish_batch() {
                break;
            }
        }
        match pass {
            Some(pass) => pass.finish(),
            None => Ok(Vec::new()),
        }
    }

    /// A forward pass that no adapter takes part in.
    fn run_base(&self, batch: &TokenBatch<B>) {
        let routes = [AdapterRoute {
            tokens: 0..batch.packing().layout().rows(),
            adapters: [].into(),
        }];
        let pass = Pass {
            mode: Mode::Inference,
            routes: Some(&routes),
        };
        self.read(batch, pass);
    }

    /// The longest side of any of the encoder's parameters.
    fn largest_dim(&self) -> usize {
        struct Largest(usize);
        impl<B: Backend> ParamVisitor<B> for Largest {
            fn visit<const D: usize>(
                &mut self,
                _: String,
                param: &mut burn::module::Param<burn::tensor::Tensor<B, D>>,
            ) -> Result<()> {
                let longest = param.lazy_shape().dims::<D>().into_iter().max();
                self.0 = self.0.max(longest.unwrap_or(0));
                Ok(())
            }
        }
        let mut largest = Params(Largest(1));
        // Looking at shapes cannot fail.
        let _ = self.encoder.clone().visit_layers(&mut largest);
        largest.0.0
    }

    pub(super) fn try_each_linear(
        &mut self,
        run: impl FnMut(&str, &mut AdaptedLinear<B>) -> Result<()>,
    ) -> Result<()> {
        self.encoder.visit_layers(&mut Linears(run))
    }
}

/// What a layer sees of tokens, of what it sees of a batch's rows.
fn of_tokens(rows: Matrix, layout: &Layout) -> Matrix {
    if layout.rows() == layout.tokens() {
        return rows;
    }
    let texts = layout.starts().zip(&**layout.lengths());
    rows.take_rows(texts.map(|(start, &length)| start..start + length))
}

/// The configuration and tensors of the adapter that was found.
fn eva_adapter(
    config: &LoraConfig,
    ranks: &[usize],
    alphas: &[f64],
    found: Vec<EvaAdapter>,
) -> (LoraConfig, StateDict) {
    let eva = config.eva_config.clone().unwrap_or_default();
    let mut new = config.clone();
    new.rank_pattern.clear();
    new.alpha_pattern.clear();
    let mut tensors = StateDict::new("EVA");
    let mut paths = Vec::new();
    for ((layer, &r), &alpha) in found.into_iter().zip(ranks).zip(alphas) {
        if layer.r == 0 {
            continue;
        }
        let alpha = eva.adjusted_alpha(alpha, r, layer.r);
        if layer.r != config.r {
            new.rank_pattern.insert(layer.name.clone(), layer.r);
        }
        if (alpha - config.lora_alpha).abs() > 1e-9 * config.lora_alpha {
            new.alpha_pattern.insert(layer.name.clone(), alpha);
        }
        let shape = layer.a.shape();
        let a = TensorData::new(layer.a.values().to_vec(), shape);
        let a = a.convert_dtype(DType::F32);
        tensors.insert(format!("{}.lora_A.weight", layer.name), a);
        paths.push(layer.name);
    }
    paths.sort();
    new.target_modules = Some(ModuleNames::List(paths));
    new.exclude_modules = None;
    new.layers_to_transform = None;
    new.layers_pattern = None;
    (new, tensors)
}
