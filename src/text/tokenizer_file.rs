use serde::Deserialize;
use serde::de::{DeserializeOwned, Error};
use serde_json::Value;
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

/// The part of a `tokenizer.json` that says what model it holds, and those that `Tokenizer`
/// panics at, when it reads or when it is used, where they are wrong.
#[derive(Deserialize)]
struct File {
    model: Typed,
    #[serde(rename = "decoder")]
    _decoder: Option<Value>,
    post_processor: Option<Value>,
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
    let file: serde_json::Result<File> = serde_json::from_slice(json);
    let tokenizer = match file {
        Ok(file) => {
            check_processor(file.post_processor.as_ref())?;
            match file.model.model_type {
                ModelType::WordPiece => read_as::<WordPiece>(json),
                ModelType::Bpe => read_as::<BPE>(json),
                ModelType::Unigram => read_as::<Unigram>(json),
                ModelType::WordLevel => read_as::<WordLevel>(json),
            }
        }
        Err(error) if error.is_data() => {
            // It may still be no JSON further on.
            let whole: Value = serde_json::from_slice(json)?;
            check_processor(whole.get("post_processor"))?;
            None
        }
        Err(error) => return Err(error),
    };
    match tokenizer {
        Some(tokenizer) => Ok(tokenizer),
        // An old file without a type, one with fields of its own, or one that is wrong.
        None => serde_json::from_slice(json),
    }
}

/// Checks that a template has all tokens that it puts around a text, and puts them around one.
fn check_processor(processor: Option<&Value>) -> serde_json::Result<()> {
    let Some(processor) = processor else {
        return Ok(());
    };
    let inner = processor.get("processors").and_then(Value::as_array);
    for inner in inner.into_iter().flatten() {
        check_processor(Some(inner))?;
    }
    let tokens = processor.get("special_tokens").and_then(Value::as_object);
    let wrong = |what: String| Err(serde_json::Error::custom(format!("post_processor: {what}")));
    for (name, token) in tokens.into_iter().flatten() {
        let length = |field: &str| token.get(field).and_then(Value::as_array).map(Vec::len);
        if length("ids") != length("tokens") {
            return wrong(format!("`{name}` has not as many tokens as ids"));
        }
    }
    for template in ["single", "pair"] {
        let pieces = processor.get(template).and_then(Value::as_array);
        for piece in pieces.into_iter().flatten() {
            let id = |kind: &str| piece.get(kind)?.get("id")?.as_str();
            if let Some(name) = id("SpecialToken")
                && !tokens.is_some_and(|tokens| tokens.contains_key(name))
            {
                return wrong(format!("`{name}` of `{template}` is no special token"));
            }
            if template == "single" && id("Sequence").is_some_and(|id| id != "A") {
                return wrong("`single` is of more than one text".to_owned());
            }
        }
    }
    Ok(())
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
    use serde_json::json;

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

    #[test]
    fn a_template_of_what_is_not_there_is_an_error() {
        let token = |name: &str| json!({ "SpecialToken": { "id": name, "type_id": 0 } });
        let text = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
        let template = |single: Value, tokens: Value| {
            let mut file: Value = serde_json::from_slice(&file(json!({
                "type": "WordLevel", "vocab": { "a": 0 }, "unk_token": "a",
            })))
            .unwrap();
            file["post_processor"] = json!({
                "type": "TemplateProcessing", "single": single, "pair": [text("A"), text("B")],
                "special_tokens": { "x": { "id": "x", "ids": [0], "tokens": tokens } },
            });
            let nested = json!({ "type": "Sequence", "processors": [file["post_processor"]] });
            let whole = read_tokenizer(file.to_string().as_bytes()).map(drop);
            file["post_processor"] = nested;
            let nested = read_tokenizer(file.to_string().as_bytes()).map(drop);
            assert_eq!(whole.is_ok(), nested.is_ok());
            whole.map_err(|error| error.to_string())
        };
        let single = json!([token("x"), text("A")]);
        template(single.clone(), json!(["x"])).unwrap();
        for (single, tokens, wrong) in [
            (
                json!([token("y"), text("A")]),
                json!(["x"]),
                "`y` of `single`",
            ),
            (json!([text("B")]), json!(["x"]), "more than one text"),
            (single, json!(["x", "y"]), "as many tokens as ids"),
        ] {
            let error = template(single, tokens).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn what_is_no_json_in_any_part_is_an_error() {
        let models = [
            r#"{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}"#,
            r#"{"vocab": {"a": 0}, "unk_token": "a"}"#,
        ];
        for part in ["decoder", "normalizer", "pre_tokenizer", "post_processor"] {
            for wrong in [
                "{1: 2}",
                "{\"type\": \"\\ud800\"}",
                "{",
                "{\"type\": \"x\"}",
            ] {
                for model in models {
                    for file in [
                        format!("{{\"model\": {model}, \"{part}\": {wrong}}}"),
                        format!("{{\"{part}\": {wrong}, \"model\": {model}}}"),
                    ] {
                        assert!(read_tokenizer(file.as_bytes()).is_err(), "{file}");
                    }
                }
            }
        }
    }
}
