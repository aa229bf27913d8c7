//! A WordPiece vocabulary as BERT's.

use std::error::Error;

use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainerBuilder};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Model, Tokenizer, TokenizerBuilder, decoders};

/// The entries of the vocabulary.
pub(crate) const SIZE: usize = 8_000;

const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Trains a lowercasing tokenizer.
pub(crate) fn train(texts: &[String]) -> Result<Tokenizer, Box<dyn Error>> {
    let special = SPECIAL.map(|token| AddedToken::from(token, true)).to_vec();
    let mut trainer = WordPieceTrainerBuilder::new()
        .vocab_size(SIZE)
        .special_tokens(special.clone())
        .show_progress(false)
        .build();
    let model = WordPiece::builder()
        .unk_token("[UNK]".to_owned())
        .build()
        .map_err(message)?;
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(model)
        .with_normalizer(Some(BertNormalizer::default()))
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(None::<TemplateProcessing>)
        .with_decoder(Some(decoders::wordpiece::WordPiece::default()))
        .build()
        .map_err(message)?;
    tokenizer
        .train(&mut trainer, texts.iter().map(String::as_str))
        .map_err(message)?;
    let id = |token: &str| {
        tokenizer
            .get_model()
            .token_to_id(token)
            .ok_or("no special token")
    };
    let template = TemplateProcessing::builder()
        .try_single("[CLS] $A [SEP]")?
        .special_tokens(vec![("[CLS]", id("[CLS]")?), ("[SEP]", id("[SEP]")?)])
        .build()?;
    tokenizer.with_post_processor(Some(template));
    // As the generic tokenizer that files are read into.
    let json = serde_json::to_string(&tokenizer)?;
    json.parse::<Tokenizer>().map_err(message)
}

fn message(error: impl std::fmt::Display) -> Box<dyn Error> {
    error.to_string().into()
}
