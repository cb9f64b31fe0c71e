//! e4m3, bit by bit.

/// The code of the nearest number, of two equally near ones the even; beyond the largest the largest, and NaN stays NaN.
pub(super) fn encode(v: f32) -> u8 {
    const NAN: u8 = 0x7f;
    const LARGEST: u8 = 0x7e;
    let bits = v.to_bits();
    let (sign, magnitude) = ((bits >> 24) as u8 & 0x80, bits & 0x7fff_ffff);
    let code = match magnitude {
        0x7f80_0001.. => NAN,
        // 464 lies in the middle between 448 and what would be the next.
        0x43e8_0000.. => LARGEST,
        // Below 2^-6 they lie 2^-9 apart.
        ..0x3c80_0000 => (v.abs() * 512.0).round_ties_even() as u8,
        // The exponent's bias goes from 127 to 7.
        _ => (((magnitude + 0x7_ffff + (magnitude >> 20 & 1)) >> 20) - 960) as u8,
    };
    sign | code
}

/// The number that a code stands for.
pub(crate) fn decode(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let magnitude = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (8.0 + mantissa) * 2.0f32.powi(exponent - 10),
    };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}
