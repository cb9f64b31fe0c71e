// What the kernels of NF4 share: how a weight lies in memory, and how its values come out of it. Every value is
// round(code * magnitude), with the product in f32 and one rounding: the bits are those of the CPU and of bitsandbytes.

// Values that share a magnitude, and magnitudes that share a scale.
#define BLOCK 64
#define NESTED_BLOCK 256
// The values of the code.
#define CODES 16

struct Magnitudes {
    // The magnitudes, or what the eight-bit codes are scaled by.
    const float* __restrict__ values;
    // Null unless the magnitudes are quantised themselves.
    const u8* __restrict__ codes;
    float offset;
};

// A magnitude as it is stored: read early, so that the memory answers while something else is done.
struct Stored {
    float value;
    u32 code;
};

__device__ __forceinline__ Stored stored(const Magnitudes& m, u32 block) {
    if (m.codes) return {m.values[block / NESTED_BLOCK], m.codes[block]};
    return {m.values[block], 0};
}

// The product comes first, then the sum, each rounded; `dynamic` are the 256 values of the eight-bit code.
__device__ __forceinline__ float magnitude(const Magnitudes& m, const Stored& s, const float* dynamic) {
    return m.codes ? dynamic[s.code] * s.value + m.offset : s.value;
}

// Value `at` of the eight of a word, before it is scaled: of byte at / 2, first the high nibble. The 16 values of the code
// lie in banks of their own, so that lanes never wait for each other.
__device__ __forceinline__ float look_up(const float (&code)[CODES], u32 word, u32 at) {
    u32 offset = (at == 1 ? word << 2 : word >> (4 * (at ^ 1) - 2)) & 60u;
    return *reinterpret_cast<const float*>(reinterpret_cast<const u8*>(code) + offset);
}

// A value in f32 as it is asked for: 0 as it is, 1 rounded to bfloat16, 2 rounded to half precision. Both are rounded and one is
// taken, which is less than branches would be.
__device__ __forceinline__ float rounded(float v, u32 rounding) {
    float to_bf16 = __uint_as_float(bf16_pair(0.0f, v)), to_f16 = f16_value((u16)f16_pair(v, 0.0f));
    return rounding == 0 ? v : rounding == 1 ? to_bf16 : to_f16;
}
