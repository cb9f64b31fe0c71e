// What surrounds products of eight bits (e4m3), which the device's library makes: rows are cut before, factors put to the sums
// behind them.
//
// Bytes of memory an element: quantise 5 or 3 (a row stays in registers, up to 8192 elements; what is beyond is read again),
// decode 3, finish 8 or 4, and as much as the result once more where that is added to.

// As in mod.rs.
constexpr float MOST = 448.0f, LEAST_FACTOR = 7.5231638452626401e-37f;  // 2^-120

// The code of the nearest number, of two equally near ones the even; beyond the largest the largest, and NaN stays NaN.
__device__ __forceinline__ u32 encode(float v) {
    u32 bits = __float_as_uint(v), sign = bits >> 24 & 0x80u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return sign | 0x7fu;
    if (magnitude >= 0x43e80000u) return sign | 0x7eu;                              // 464 and more
    if (magnitude < 0x3c800000u) return sign | (u32)rintf(fabsf(v) * 512.0f);       // below 2^-6 they lie 2^-9 apart
    return sign | (((magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20) - 960u);  // the bias goes from 127 to 7
}

__device__ __forceinline__ float as_float(float v) { return v; }
__device__ __forceinline__ float as_float(bf16 v) { return to_float(v); }
__device__ __forceinline__ void put(float* place, float v) { *place = v; }
__device__ __forceinline__ void put(bf16* place, float v) { *place = to_bf16(v); }

__device__ __forceinline__ u32 encode(const Quad& v, float inverse) {
    u32 codes = 0;
#pragma unroll
    for (u32 k = 0; k < 4; k++) codes |= encode(v.v[k] * inverse) << 8 * k;
    return codes;
}

// The largest over the threads of a row, the same in all of them.
__device__ __forceinline__ u32 row_most(u32 most, u32* partial) {
#pragma unroll
    for (u32 offset = 16; offset > 0; offset /= 2) {
        if (offset < blockDim.x) most = max(most, __shfl_xor_sync(0xffffffffu, most, offset));
    }
    if (blockDim.x <= 32) return most;
    u32 lane = threadIdx.x % 32;
    if (lane == 0) partial[threadIdx.x / 32] = most;
    __syncthreads();
    most = lane < blockDim.x / 32 ? partial[lane] : 0;
#pragma unroll
    for (u32 offset = 16; offset > 0; offset /= 2) most = max(most, __shfl_xor_sync(0xffffffffu, most, offset));
    return most;
}

template <bool ALIGNED, typename T>
__device__ __forceinline__ void quantise_rows(
    const T* x, u8* codes, float* factors, u32 rows, u32 d, u32 stride)
{
    SHARED_ARRAY(u32, partial, [ROW_WARPS]);
    u32 row = blockIdx.x * blockDim.y + threadIdx.y, quads = row < rows ? (d + 3) / 4 : 0;
    x += (u64)row * d;
    u32* out = reinterpret_cast<u32*>(codes + (u64)row * stride);
    // The bits of magnitudes stand in the order of the magnitudes, and NaN above all.
    u32 most = 0;
    auto look = [&](const Quad& v) {
#pragma unroll
        for (u32 k = 0; k < 4; k++) most = max(most, __float_as_uint(v.v[k]) & 0x7fffffffu);
    };
    Quad kept[ROW_QUADS];
    load_kept<ALIGNED>(kept, x, quads, d);
    for_kept(quads, [&](u32 j, u32) { look(kept[j]); });
    for_others(quads, [&](u32 quad) { look(load_quad<ALIGNED>(x, quad, d)); });
    most = row_most(most, partial);

    float factor = most < 0x7f800000u ? fmaxf(__uint_as_float(most) * (1.0f / MOST), LEAST_FACTOR) : __uint_as_float(0x7fc00000u);
    float inverse = 1.0f / factor;
    for_kept(quads, [&](u32 j, u32 quad) { out[quad] = encode(kept[j], inverse); });
    for_others(quads, [&](u32 quad) { out[quad] = encode(load_quad<ALIGNED>(x, quad, d), inverse); });
    if (row >= rows) return;
    for (u32 quad = quads + threadIdx.x; quad < stride / 4; quad += blockDim.x) out[quad] = 0;
    if (threadIdx.x == 0) factors[row] = factor;
}

extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, 2) quantise(
    const float* __restrict__ x,  // [rows, d]
    u8* __restrict__ codes,       // [rows, stride]
    float* __restrict__ factors,  // [rows]
    u32 rows,
    u32 d,
    u32 stride)
{
    if (d % 4 == 0) quantise_rows<true>(x, codes, factors, rows, d, stride);
    else quantise_rows<false>(x, codes, factors, rows, d, stride);
}

extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, 2) quantise_bf16(
    const bf16* __restrict__ x,
    u8* __restrict__ codes,
    float* __restrict__ factors,
    u32 rows,
    u32 d,
    u32 stride)
{
    if (d % 4 == 0) quantise_rows<true>(x, codes, factors, rows, d, stride);
    else quantise_rows<false>(x, codes, factors, rows, d, stride);
}

// The numbers that codes stand for, for cards that multiply no eight bits: four a thread.
extern "C" __global__ void __launch_bounds__(256) decode(
    const u8* __restrict__ codes,
    bf16* __restrict__ numbers,
    u64 n)
{
    u64 i = first_of_four();
    if (i >= n) return;
    Four<u8> code = read4(codes, i, n);
    Four<bf16> number;
#pragma unroll
    for (u32 k = 0; k < 4; k++) {
        u32 sign = (u32)(code.at[k] & 0x80u) << 8, magnitude = code.at[k] & 0x7fu;
        // The bias goes from 7 to 127; below 2^-6 there is no hidden bit.
        float small = (float)magnitude * 0.001953125f;
        u32 bits = magnitude < 8 ? __float_as_uint(small) >> 16 : (magnitude << 4) + (120u << 7);
        number.at[k] = bf16{(u16)(magnitude == 0x7f ? 0x7fc0u : sign | bits)};
    }
    write4(numbers, i, n, number);
}

// What a product of codes becomes: times the factors of row and column, and what is added to that. Four neighbours of a row a
// thread; rows of `sums` have `stride` elements, of which `cols` are of the result.
template <typename T>
__device__ __forceinline__ void finish_product(
    const T* sums, const float* row_factors, const float* column_factors, const float* bias, T* y, u32 rows, u32 cols, u32 stride, bool adds)
{
    u32 quads = (cols + 3) / 4;
    u64 place = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= (u64)rows * quads) return;
    u32 row = (u32)(place / quads), column = (u32)(place % quads) * 4;
    float factor = row_factors[row];
    const T* from = sums + (u64)row * stride + column;
    T* to = y + (u64)row * cols + column;
#pragma unroll
    for (u32 k = 0; k < 4; k++) {
        if (column + k >= cols) return;
        float v = as_float(from[k]) * factor * column_factors[column + k];
        if (adds) v += as_float(to[k]);
        if (bias) v += bias[column + k];
        put(to + k, v);
    }
}

extern "C" __global__ void __launch_bounds__(256) finish(
    const float* __restrict__ sums,            // [rows, stride]
    const float* __restrict__ row_factors,     // [rows]
    const float* __restrict__ column_factors,  // [cols]
    const float* __restrict__ bias,            // [cols], or none
    float* __restrict__ y,                     // [rows, cols], added to where it `adds`
    u32 rows,
    u32 cols,
    u32 stride,
    u32 adds)
{
    finish_product(sums, row_factors, column_factors, bias, y, rows, cols, stride, adds != 0);
}

extern "C" __global__ void __launch_bounds__(256) finish_bf16(
    const bf16* __restrict__ sums,
    const float* __restrict__ row_factors,
    const float* __restrict__ column_factors,
    const float* __restrict__ bias,
    bf16* __restrict__ y,
    u32 rows,
    u32 cols,
    u32 stride,
    u32 adds)
{
    finish_product(sums, row_factors, column_factors, bias, y, rows, cols, stride, adds != 0);
}
