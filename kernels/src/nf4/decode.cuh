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

// Two codes at a time, for the tensor cores. A table gives both values of a byte, of which the high nibble is the earlier;
// it is there 16 times over, so that each of the 16 lanes that are served together finds it in banks of its own:
// 8 bytes a lane and cycle, whatever the codes are. 32 KiB.
#define COPIES 16
#define PAIRS (256 * COPIES)

// Fills the table, by 256 threads; `books` begins with the values of the code. A barrier must follow.
__device__ __forceinline__ void fill_pairs(float2* pairs, const float* __restrict__ books) {
    float4* to = reinterpret_cast<float4*>(pairs) + threadIdx.x;
    u32 byte = threadIdx.x / (COPIES / 2);
    float later = books[byte & 15];
#pragma unroll
    for (u32 k = 0; k < PAIRS / 2 / 256; k++) {
        float earlier = books[(byte >> 4) + 2 * k];
        to[256 * k] = make_float4(earlier, later, earlier, later);
    }
}

// The values of byte `at` of a word, before they are scaled.
__device__ __forceinline__ float2 look_up(const float2* pairs, u32 word, u32 at) {
    u32 row = (at == 0 ? word << 7 : word >> (8 * at - 7)) & 0x7f80u;
    u32 copy = threadIdx.x % COPIES * (u32)sizeof(float2);
    return *reinterpret_cast<const float2*>(reinterpret_cast<const u8*>(pairs) + (row | copy));
}

__device__ __forceinline__ u32 decode_pair(const float2* pairs, u32 word, u32 at, float magnitude) {
    float2 v = look_up(pairs, word, at);
    return bf16_pair(v.x * magnitude, v.y * magnitude);
}

// A strip of 32 rows of a weight and 32 columns, as the left operand of the tensor cores: tile m, step s.
struct Fragments {
    u32 at[2][2][4];
};

// The fragments of a warp whose lane (g, t) has the codes of columns 8t to 8t + 7 in the rows 4g + i, one word each.
// As every order of rows and of terms is allowed, tile m has the rows 4g + 2m and 4g + 2m + 1, and step s takes of a lane
// its columns 8t + 4s to 8t + 4s + 3, where the other operand must have them too.
__device__ __forceinline__ void decode_rows(
    Fragments& a, const float2* pairs, const u32 (&words)[4], const float (&magnitudes)[4]) {
#pragma unroll
    for (u32 m = 0; m < 2; m++) {
#pragma unroll
        for (u32 s = 0; s < 2; s++) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                u32 row = 2 * m + k % 2;
                a.at[m][s][k] = decode_pair(pairs, words[row], 2 * s + k / 2, magnitudes[row]);
            }
        }
    }
}

// Adds the products of a strip with eight tokens, of which lane (g, t) has token g at the terms 8t to 8t + 7.
__device__ __forceinline__ void multiply_strip(float (&sums0)[4], float (&sums1)[4], const Fragments& a, const uint4& x) {
    const u32 first[2] = {x.x, x.y}, second[2] = {x.z, x.w};
    mma_bf16_16x8x16(sums0, a.at[0][0], first);
    mma_bf16_16x8x16(sums1, a.at[1][0], first);
    mma_bf16_16x8x16(sums0, a.at[0][1], second);
    mma_bf16_16x8x16(sums1, a.at[1][1], second);
}

// What a lane (g, t) then holds of token 2t + k: the sums of rows 4g to 4g + 3.
__device__ __forceinline__ float4 sums_of(const float (&sums0)[4], const float (&sums1)[4], u32 k) {
    return make_float4(sums0[k], sums0[k + 2], sums1[k], sums1[k + 2]);
}
