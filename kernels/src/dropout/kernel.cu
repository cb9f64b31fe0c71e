// Dropout with a mask that is worked out, in place: 8 bytes an element, of bfloat16 4, and 8 a row. The threads of a block lie over rows and
// columns, as many over the columns that each has two accesses or more in a row: finding the key of a row costs as much as
// the bits of two elements. The bits of an element are some 16 operations on integers, about as long as its bytes take.

// One output of splitmix64 for a given state.
__device__ __forceinline__ u64 splitmix64(u64 state) {
    u64 z = state + 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

__device__ __forceinline__ u32 finalise(u32 x) {
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    return x ^ (x >> 16);
}

// What `reference::bits` says: the bits are the contract.
__device__ __forceinline__ u32 bits(u64 row, u32 column) {
    return finalise(finalise(column * 0x9E3779B9u ^ (u32)row) + (u32)(row >> 32));
}

__device__ __forceinline__ float masked(float v, u64 row, u32 column, u32 threshold, float scale) {
    return bits(row, column) >= threshold ? v * scale : 0.0f;
}

__device__ __forceinline__ float to_float(float v) {
    return v;
}

__device__ __forceinline__ void set(float& to, float v) {
    to = v;
}

__device__ __forceinline__ void set(bf16& to, float v) {
    to = to_bf16(v);
}

template <typename T>
__device__ __forceinline__ void mask_fours(
    T* x, const u64* row_keys, u64 stream, u32 rows, u32 cols, u32 threshold, float scale)
{
    u32 row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    u64 key = splitmix64(stream + row_keys[row]);
    x += (u64)row * cols;
    for (u32 i = 4 * threadIdx.x; i < cols; i += 4 * blockDim.x) {
        Four<float> v = read4_float(x, i, cols);
#pragma unroll
        for (u32 k = 0; k < 4; k++) v.at[k] = masked(v.at[k], key, i + k, threshold, scale);
        write4_float(x, i, cols, v);
    }
}

extern "C" __global__ void __launch_bounds__(256) apply_fours(
    float* __restrict__ x,
    const u64* __restrict__ row_keys,
    u64 stream,
    u32 rows,
    u32 cols,
    u32 threshold,
    float scale)
{
    mask_fours(x, row_keys, stream, rows, cols, threshold, scale);
}

extern "C" __global__ void __launch_bounds__(256) apply_fours_bf16(
    bf16* __restrict__ x,
    const u64* __restrict__ row_keys,
    u64 stream,
    u32 rows,
    u32 cols,
    u32 threshold,
    float scale)
{
    mask_fours(x, row_keys, stream, rows, cols, threshold, scale);
}

template <typename T>
__device__ __forceinline__ void mask_each(
    T* x, const u64* row_keys, u64 stream, u32 rows, u32 cols, u32 threshold, float scale)
{
    u32 row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    u64 key = splitmix64(stream + row_keys[row]);
    x += (u64)row * cols;
    for (u32 i = threadIdx.x; i < cols; i += blockDim.x) {
        set(x[i], masked(to_float(x[i]), key, i, threshold, scale));
    }
}

extern "C" __global__ void __launch_bounds__(256) apply(
    float* __restrict__ x,
    const u64* __restrict__ row_keys,
    u64 stream,
    u32 rows,
    u32 cols,
    u32 threshold,
    float scale)
{
    mask_each(x, row_keys, stream, rows, cols, threshold, scale);
}

extern "C" __global__ void __launch_bounds__(256) apply_bf16(
    bf16* __restrict__ x,
    const u64* __restrict__ row_keys,
    u64 stream,
    u32 rows,
    u32 cols,
    u32 threshold,
    float scale)
{
    mask_each(x, row_keys, stream, rows, cols, threshold, scale);
}
