// What surrounds products: what follows a product, four neighbours a thread in accesses of 16 bytes, 8 bytes an element and 4
// more for a residual; and sums of columns in two stages.

#define NONE 0
#define GELU 1
#define SILU 2
#define RELU 3

// As `gelu` and `swiglu` have them, to the bit.
__device__ __forceinline__ float activated(float v, u32 activation) {
    switch (activation) {
        case GELU: return v * fmaf(0.5f, erff(v * 0.70710678f), 0.5f);
        case SILU: return v / (1.0f + expf(fminf(-v, 88.0f)));
        case RELU: return v < 0.0f ? 0.0f : v;
        default: return v;
    }
}

// activation(product + bias) + residual of four neighbours; bias and residual may be absent.
template <typename T>
__device__ __forceinline__ Four<float> finished(
    const T* product, const float* bias, const float* residual, u32 activation, u64 i, u64 n, u32 cols) {
    Four<float> y = read4_float(product, i, n), r = {};
    if (residual) r = read4(residual, i, n);
    // Quotients of 64 bits take long.
    u32 column = !bias ? 0 : n >> 32 ? (u32)(i % cols) : (u32)i % cols;
#pragma unroll
    for (u32 k = 0; k < 4; k++) {
        if (bias) y.at[k] += bias[column];
        y.at[k] = activated(y.at[k], activation) + r.at[k];
        if (++column >= cols) column = 0;
    }
    return y;
}

extern "C" __global__ void __launch_bounds__(256) finish(
    float* __restrict__ y,
    const float* __restrict__ bias,
    const float* __restrict__ residual,
    u32 activation,
    u64 n,
    u32 cols)
{
    u64 i = first_of_four();
    if (i < n) write4(y, i, n, finished(y, bias, residual, activation, i, n, cols));
}

// Of a product that has been rounded already.
extern "C" __global__ void __launch_bounds__(256) finish_bf16(
    bf16* __restrict__ y,
    const float* __restrict__ bias,
    const float* __restrict__ residual,
    u32 activation,
    u64 n,
    u32 cols)
{
    u64 i = first_of_four();
    if (i < n) write4_float(y, i, n, finished(y, bias, residual, activation, i, n, cols));
}

extern "C" __global__ void __launch_bounds__(256) finish_rounded(
    const float* __restrict__ product,
    const float* __restrict__ bias,
    const float* __restrict__ residual,
    bf16* __restrict__ y,
    u32 activation,
    u64 n,
    u32 cols)
{
    u64 i = first_of_four();
    if (i >= n) return;
    write4_float(y, i, n, finished(product, bias, residual, activation, i, n, cols));
}

// The first stage of sums over columns: a thread for every column, a block for every band of rows.
extern "C" __global__ void __launch_bounds__(128) sum_bands(
    const float* __restrict__ x,
    float* __restrict__ parts,  // [bands, cols]
    u32 rows,
    u32 cols,
    u32 band)
{
    u32 column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= cols) return;
    u32 end = min((blockIdx.x + 1) * band, rows);
    float sum = 0.0f;
    for (u32 row = blockIdx.x * band; row < end; row++) sum += x[(u64)row * cols + column];
    parts[(u64)blockIdx.x * cols + column] = sum;
}

// The second stage: the sums of all bands, onto what is there.
extern "C" __global__ void __launch_bounds__(1024) add_bands(
    const float* __restrict__ parts,
    float* __restrict__ sums,
    u32 bands,
    u32 cols)
{
    float sum = column_sum(parts, bands, cols);
    u32 column = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && column < cols) sums[column] += sum;
}
