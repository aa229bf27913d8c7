use std::path::Path;

use sentence_burn::Result;
use sentence_burn::evaluation::{NanoBeirEvaluator, NanoBeirOptions};

/// NanoBEIR in English on the hub.
pub(crate) const NANO_BEIR: &str = "sentence-transformers/NanoBEIR-en";

/// NanoBEIR's data sets of these names, or all: from a folder if there is one, else from the
/// hub.
pub(crate) fn nano_beir(source: &str, dataset_names: Vec<String>) -> Result<NanoBeirEvaluator> {
    let options = NanoBeirOptions {
        dataset_names,
        ..NanoBeirOptions::default()
    };
    #[cfg(feature = "datasets")]
    if !Path::new(source).is_dir() {
        return NanoBeirEvaluator::from_hub(source, &Default::default(), options);
    }
    NanoBeirEvaluator::from_folder(Path::new(source), options)
}
