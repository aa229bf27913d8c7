//! Embeddings in fewer bits, against Sentence Transformers.

use burn::tensor::{Tensor, TensorData};
use sentence_burn::Precision;
use sentence_burn::model::{QuantizedValues, quantize_embeddings};
use serde_json::{Value, json};

use crate::backend_under_test::{TestBackend, device};
use crate::fixture;

fn tensor(rows: &Value) -> Tensor<TestBackend, 2> {
    let rows: Vec<Vec<f32>> = serde_json::from_value(rows.clone()).unwrap();
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(rows.concat(), shape), &device())
}

/// The quantized rows as JSON.
fn quantize(precision: Precision, calibration: Option<&Value>) -> Value {
    let fixture = fixture::json("quantization/expected.json");
    let embeddings = tensor(&fixture["embeddings"]);
    let quantized = quantize_embeddings(embeddings, precision, calibration.map(tensor)).unwrap();
    let columns = quantized.shape[1];
    match quantized.values {
        QuantizedValues::F32(values) => json!(values.chunks(columns).collect::<Vec<_>>()),
        QuantizedValues::I8(values) => json!(values.chunks(columns).collect::<Vec<_>>()),
        QuantizedValues::U8(values) => {
            // As numbers: serde writes byte slices as arrays of them.
            json!(
                values
                    .chunks(columns)
                    .map(<[u8]>::to_vec)
                    .collect::<Vec<_>>()
            )
        }
    }
}

#[test]
fn every_precision_is_python_s() {
    let fixture = fixture::json("quantization/expected.json");
    for (name, precision) in [
        ("int8", Precision::Int8),
        ("uint8", Precision::Uint8),
        ("binary", Precision::Binary),
        ("ubinary", Precision::Ubinary),
    ] {
        assert_eq!(
            quantize(precision, None),
            fixture["expected"][name],
            "{name}"
        );
    }
    let calibrated = quantize(Precision::Uint8, Some(&fixture["calibration"]));
    assert_eq!(calibrated, fixture["calibrated_uint8"]);
    // Controls: rounding instead of flooring, and no calibration.
    assert_ne!(
        quantize(Precision::Uint8, None),
        fixture["control_rounded_uint8"]
    );
    assert_ne!(
        quantize(Precision::Uint8, None),
        fixture["calibrated_uint8"]
    );
}
