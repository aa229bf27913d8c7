//! NumPy's array files, version 1.0
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).

use sentence_burn::model::{QuantizedEmbeddings, QuantizedValues};

/// The content of a `.npy` file.
pub(crate) fn write(embeddings: &QuantizedEmbeddings) -> Vec<u8> {
    let [rows, columns] = embeddings.shape;
    let (descr, data): (_, Vec<u8>) = match &embeddings.values {
        QuantizedValues::F32(values) => (
            "<f4",
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        ),
        QuantizedValues::I8(values) => ("|i1", values.iter().map(|&value| value as u8).collect()),
        QuantizedValues::U8(values) => ("|u1", values.clone()),
    };
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // The data begins at a multiple of 64 bytes; 10 stand before the header, a line end after.
    let padding = (64 - (10 + header.len() + 1) % 64) % 64;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.into_bytes());
    file.extend(data);
    file
}
