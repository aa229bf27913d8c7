//! What a model card says of a loss.

use serde_json::Value;

use crate::model::CardLoss;
use crate::model::similarity::SimilarityFunction;

/// A loss with its parameters, a JSON object.
pub(super) fn described(name: &str, parameters: Value) -> CardLoss {
    CardLoss {
        name: name.to_owned(),
        parameters: match parameters {
            Value::Object(parameters) => parameters,
            _ => serde_json::Map::new(),
        },
        parts: Vec::new(),
    }
}

/// A loss around another.
pub(super) fn around(name: &str, parameters: Value, inner: CardLoss) -> CardLoss {
    let mut outer = described(name, parameters);
    outer.parts.push(inner.name);
    outer.parts.extend(inner.parts);
    outer
}

/// What Python calls the function that compares each embedding with each.
pub(super) fn similarity_name(function: SimilarityFunction) -> &'static str {
    match function {
        SimilarityFunction::Cosine => "cos_sim",
        SimilarityFunction::Dot => "dot_score",
        SimilarityFunction::Euclidean => "euclidean_sim",
        SimilarityFunction::Manhattan => "manhattan_sim",
    }
}

/// What Python calls the function that compares embeddings row by row.
pub(super) fn pairwise_name(function: SimilarityFunction) -> &'static str {
    match function {
        SimilarityFunction::Cosine => "pairwise_cos_sim",
        SimilarityFunction::Dot => "pairwise_dot_score",
        SimilarityFunction::Euclidean => "pairwise_euclidean_sim",
        SimilarityFunction::Manhattan => "pairwise_manhattan_sim",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::TestBackend;
    use crate::loss::{
        AnyLoss, CachedLoss, Loss, MatryoshkaLossConfig, MultipleNegativesRankingLossConfig,
        TripletLossConfig,
    };
    use serde_json::json;

    #[test]
    fn losses_say_what_python_s_say() {
        // `get_config_dict()` of Sentence Transformers 6.2.0, without what has no place here.
        let mnrl = MultipleNegativesRankingLossConfig::default()
            .init()
            .unwrap();
        let any = AnyLoss::<TestBackend>::from(mnrl.clone());
        let expected = json!({
            "scale": 20.0, "similarity_fct": "cos_sim", "directions": ["query_to_doc"],
            "partition_mode": "joint", "hardness_mode": null, "hardness_strength": 0.0,
        });
        let found = any.describe();
        assert_eq!(found.name, "MultipleNegativesRankingLoss");
        assert_eq!(Value::Object(found.parameters), expected);
        let triplet = TripletLossConfig::default().init().unwrap();
        assert_eq!(
            Value::Object(Loss::<TestBackend>::describe(&triplet).parameters),
            json!({ "distance_metric": "TripletDistanceMetric.EUCLIDEAN", "triplet_margin": 5.0 })
        );
        let cached = CachedLoss::<TestBackend, _>::new(mnrl, 16).unwrap();
        let matryoshka = MatryoshkaLossConfig::new([8, 4]).init(cached).unwrap();
        let found = Loss::<TestBackend>::describe(&matryoshka);
        assert_eq!(found.parts, ["CachedMultipleNegativesRankingLoss"]);
        assert_eq!(found.parameters["matryoshka_dims"], json!([8, 4]));
        assert_eq!(found.parameters["n_dims_per_step"], -1);
    }
}
