// What every kernel begins with. No header of CUDA is included: NVRTC needs no include path then, and the emulator puts
// its own primitives in the place of those behind MLLM4REC_EMULATED.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// A value of bfloat16, by its bits.
struct bf16 {
    u16 bits;
};

__device__ __forceinline__ float to_float(bf16 v) {
    return __uint_as_float((u32)v.bits << 16);
}

// To the nearest, of two equally near ones to the even one; NaN stays NaN.
__device__ __forceinline__ bf16 to_bf16(float v) {
    u32 bits = __float_as_uint(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return bf16{(u16)((bits >> 16) | 0x40u)};
    }
    return bf16{(u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// The sum over the lanes of a warp, the same in every lane and in the same order.
__device__ __forceinline__ float warp_sum(float v) {
    for (int offset = 16; offset > 0; offset >>= 1) {
        v += __shfl_xor_sync(0xffffffffu, v, offset);
    }
    return v;
}

__device__ __forceinline__ float warp_max(float v) {
    for (int offset = 16; offset > 0; offset >>= 1) {
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, offset));
    }
    return v;
}
