// Decoding of whole weights. A thread takes 32 values in steps of as many as fill 16 bytes of the result, and the threads of
// a warp take neighbouring ones: a warp reads 64 or 128 bytes in a piece and writes 512, so that no sector of memory is
// written twice. All loads of a thread are under way before the first is waited for.
//
// Bytes of a value: 0.516 read, and 2 or 4 written. Magnitudes are decoded here: no pass of their own.

#define THREADS 256
#define VALUES_OF_THREAD 32

// A type of results: how many fill 16 bytes, those 16 bytes, and one alone.
struct AsF32 {
    using Element = float;
    static const u32 width = 4;
    u32 rounding;

    __device__ __forceinline__ float one(float v) const { return rounded(v, rounding); }
    __device__ __forceinline__ u32 bits(float v) const { return __float_as_uint(rounded(v, rounding)); }
    __device__ __forceinline__ uint4 pack(const float (&v)[width]) const {
        return make_uint4(bits(v[0]), bits(v[1]), bits(v[2]), bits(v[3]));
    }
};

struct AsBf16 {
    using Element = u16;
    static const u32 width = 8;

    __device__ __forceinline__ u16 one(float v) const { return (u16)bf16_pair(v, 0.0f); }
    __device__ __forceinline__ uint4 pack(const float (&v)[width]) const {
        return make_uint4(bf16_pair(v[0], v[1]), bf16_pair(v[2], v[3]), bf16_pair(v[4], v[5]), bf16_pair(v[6], v[7]));
    }
};

struct AsF16 {
    using Element = u16;
    static const u32 width = 8;

    __device__ __forceinline__ u16 one(float v) const { return (u16)f16_pair(v, 0.0f); }
    __device__ __forceinline__ uint4 pack(const float (&v)[width]) const {
        return make_uint4(f16_pair(v[0], v[1]), f16_pair(v[2], v[3]), f16_pair(v[4], v[5]), f16_pair(v[6], v[7]));
    }
};

struct Books {
    float (&code)[CODES];
    float (&dynamic)[256];

    // Ends with a barrier.
    __device__ __forceinline__ void fill(const float* __restrict__ books, bool nested) const {
        if (threadIdx.x < CODES) code[threadIdx.x] = books[threadIdx.x];
        if (nested) dynamic[threadIdx.x] = books[CODES + threadIdx.x];
        __syncthreads();
    }
};

// Decodes a whole block of threads' values.
template <typename As>
__device__ __forceinline__ void decode_whole(
    const u8* __restrict__ codes, const Magnitudes& magnitudes, const float* __restrict__ books, const Books& shared, As as,
    u32 first_block, typename As::Element* __restrict__ out) {
    const u32 steps = VALUES_OF_THREAD / As::width, stride = THREADS * As::width, own = threadIdx.x * As::width;
    u32 words[steps];
    Stored scales[steps];
#pragma unroll
    for (u32 k = 0; k < steps; k++) {
        const u8* from = codes + (own + k * stride) / 2;
        words[k] = As::width == 8 ? *reinterpret_cast<const u32*>(from) : *reinterpret_cast<const u16*>(from);
        scales[k] = stored(magnitudes, first_block + own / BLOCK + k * (stride / BLOCK));
    }
    shared.fill(books, magnitudes.codes);
#pragma unroll
    for (u32 k = 0; k < steps; k++) {
        float scale = magnitude(magnitudes, scales[k], shared.dynamic), values[As::width];
#pragma unroll
        for (u32 j = 0; j < As::width; j++) values[j] = look_up(shared.code, words[k], j) * scale;
        *reinterpret_cast<uint4*>(out + own + k * stride) = as.pack(values);
    }
}

// Decodes what the last block of threads has: `left` values, one by one.
template <typename As>
__device__ __forceinline__ void decode_rest(
    const u8* __restrict__ codes, const Magnitudes& magnitudes, const float* __restrict__ books, const Books& shared, As as,
    u32 first_block, typename As::Element* __restrict__ out, u32 left) {
    shared.fill(books, magnitudes.codes);
#pragma unroll 1
    for (u32 i = threadIdx.x; i < left; i += THREADS) {
        float scale = magnitude(magnitudes, stored(magnitudes, first_block + i / BLOCK), shared.dynamic);
        out[i] = as.one(look_up(shared.code, codes[i / 2], i % 2) * scale);
    }
}

// Decodes the values from `begin` on, where a block of them begins, up to `end`.
template <typename As>
__device__ __forceinline__ void decode_all(
    const u8* __restrict__ codes, const Magnitudes& magnitudes, const float* __restrict__ books, As as, u64 begin, u64 end,
    typename As::Element* __restrict__ out) {
    SHARED_ARRAY(float, code, [CODES]);
    SHARED_ARRAY(float, dynamic, [256]);
    const Books shared = {code, dynamic};
    const u32 own = THREADS * VALUES_OF_THREAD;
    u64 first = begin + (u64)blockIdx.x * own;
    codes += first / 2;
    out += first - begin;
    if (end - first >= own) {
        decode_whole(codes, magnitudes, books, shared, as, (u32)(first / BLOCK), out);
    } else {
        decode_rest(codes, magnitudes, books, shared, as, (u32)(first / BLOCK), out, (u32)(end - first));
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) decode_f32(
    const u8* __restrict__ codes,
    const float* __restrict__ magnitudes,
    const u8* __restrict__ magnitude_codes,
    const float* __restrict__ books,
    float offset,
    u64 begin,
    u64 end,
    u32 rounding,
    float* __restrict__ out)
{
    decode_all(codes, {magnitudes, magnitude_codes, offset}, books, AsF32{rounding}, begin, end, out);
}

extern "C" __global__ void __launch_bounds__(THREADS) decode_bf16(
    const u8* __restrict__ codes,
    const float* __restrict__ magnitudes,
    const u8* __restrict__ magnitude_codes,
    const float* __restrict__ books,
    float offset,
    u64 begin,
    u64 end,
    u16* __restrict__ out)
{
    decode_all(codes, {magnitudes, magnitude_codes, offset}, books, AsBf16{}, begin, end, out);
}

extern "C" __global__ void __launch_bounds__(THREADS) decode_f16(
    const u8* __restrict__ codes,
    const float* __restrict__ magnitudes,
    const u8* __restrict__ magnitude_codes,
    const float* __restrict__ books,
    float offset,
    u64 begin,
    u64 end,
    u16* __restrict__ out)
{
    decode_all(codes, {magnitudes, magnitude_codes, offset}, books, AsF16{}, begin, end, out);
}
