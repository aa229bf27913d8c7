//! NumPy's array files, version 1.0
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).

use sentence_burn::model::QuantizedValues;

/// What stands before the values of an array.
pub(crate) fn header(values: &QuantizedValues, [rows, columns]: [usize; 2]) -> Vec<u8> {
    let descr = match values {
        QuantizedValues::F32(_) => "<f4",
        QuantizedValues::I8(_) => "|i1",
        QuantizedValues::U8(_) => "|u1",
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
    file
}

/// Values as they stand in the file.
pub(crate) fn bytes(values: &QuantizedValues) -> Vec<u8> {
    match values {
        QuantizedValues::F32(values) => values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
        QuantizedValues::I8(values) => values.iter().map(|&value| value as u8).collect(),
        QuantizedValues::U8(values) => values.clone(),
    }
}
