use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{
    DecoderWrapper, Model, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
    TokenizerImpl,
};

/// A tokenizer whose model is known.
type TokenizerOf<M> =
    TokenizerImpl<M, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// The part of a `tokenizer.json` that says what model it holds.
#[derive(Deserialize)]
struct File {
    model: Typed,
}

#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "type")]
    model_type: ModelType,
}

#[derive(Deserialize)]
enum ModelType {
    WordPiece,
    #[serde(rename = "BPE")]
    Bpe,
    Unigram,
    WordLevel,
}

/// Reads a `tokenizer.json`.
///
/// `Tokenizer` itself holds the whole model as JSON, twice, before it looks at its type;
/// with the type looked up first, the vocabulary goes straight into its tables.
///
/// # Errors
/// `Tokenizer`'s own.
pub(super) fn read_tokenizer(json: &[u8]) -> serde_json::Result<Tokenizer> {
    let file: Option<File> = serde_json::from_slice(json).ok();
    let tokenizer = file.and_then(|file| match file.model.model_type {
        ModelType::WordPiece => read_as::<WordPiece>(json),
        ModelType::Bpe => read_as::<BPE>(json),
        ModelType::Unigram => read_as::<Unigram>(json),
        ModelType::WordLevel => read_as::<WordLevel>(json),
    });
    match tokenizer {
        Some(tokenizer) => Ok(tokenizer),
        // An old file without a type, one with fields of its own, or one that is wrong.
        None => serde_json::from_slice(json),
    }
}

fn read_as<M>(json: &[u8]) -> Option<Tokenizer>
where
    M: DeserializeOwned + Model + Into<ModelWrapper>,
{
    let tokenizer: TokenizerOf<M> = serde_json::from_slice(json).ok()?;
    Some(tokenizer.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn file(model: Value) -> Vec<u8> {
        let file = json!({
            "version": "1.0",
            "added_tokens": [{
                "id": 3, "content": "<new>", "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            }],
            "normalizer": { "type": "Lowercase" },
            "pre_tokenizer": { "type": "Whitespace" },
            "model": model,
        });
        file.to_string().into_bytes()
    }

    #[test]
    fn every_model_is_read_as_tokenizers_itself_reads_it() {
        let vocab = json!({ "a": 0, "b": 1, "ab": 2 });
        for model in [
            json!({
                "type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocab,
            }),
            json!({ "type": "BPE", "vocab": vocab, "merges": ["a b"], "unk_token": "a" }),
            json!({ "type": "BPE", "vocab": vocab, "merges": [["a", "b"]], "unk_token": "a" }),
            json!({ "type": "WordLevel", "vocab": vocab, "unk_token": "a" }),
            json!({
                "type": "Unigram", "unk_id": 0,
                "vocab": [["a", -1.5], ["b", -2.25], ["ab", -1.1]],
            }),
        ] {
            let json = file(model.clone());
            let (read, own) = (read_tokenizer(&json).unwrap(), Tokenizer::from_bytes(&json));
            let own = own.unwrap();
            assert_eq!(
                serde_json::to_value(&read).unwrap(),
                serde_json::to_value(&own).unwrap(),
            );
            let ids = |tokenizer: &Tokenizer| {
                let encoding = tokenizer.encode_fast("AB ba <new>", true).unwrap();
                encoding.get_ids().to_vec()
            };
            assert_eq!(ids(&read), ids(&own), "{model}");
            assert_eq!(ids(&read).last(), Some(&3), "{model}");
            // Not by way of the fallback.
            let file: File = serde_json::from_slice(&json).unwrap();
            let is_typed = match file.model.model_type {
                ModelType::WordPiece => read_as::<WordPiece>(&json),
                ModelType::Bpe => read_as::<BPE>(&json),
                ModelType::Unigram => read_as::<Unigram>(&json),
                ModelType::WordLevel => read_as::<WordLevel>(&json),
            };
            assert!(is_typed.is_some(), "{model}");
        }
    }

    #[test]
    fn what_has_no_type_or_more_fields_is_read_and_what_is_wrong_is_not() {
        let vocab = json!({ "a": 0 });
        for model in [
            json!({ "vocab": vocab, "unk_token": "a" }),
            json!({ "type": "WordLevel", "vocab": vocab, "unk_token": "a", "more": [1] }),
        ] {
            let tokenizer = read_tokenizer(&file(model.clone())).unwrap();
            assert_eq!(tokenizer.token_to_id("a"), Some(0), "{model}");
        }
        for model in [
            json!({ "type": "WordLevel", "vocab": { "a": "x" }, "unk_token": "a" }),
            json!({ "type": "WordPiece", "vocab": vocab }),
            json!({ "type": "Neural" }),
        ] {
            assert!(read_tokenizer(&file(model.clone())).is_err(), "{model}");
        }
        assert!(read_tokenizer(b"[1, 2").is_err());
    }
}
