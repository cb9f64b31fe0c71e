// What surrounds products: rounding of operands, what follows a product, and sums of columns.

#define NONE 0
#define GELU 1
#define SILU 2
#define RELU 3

__device__ __forceinline__ float activated(float v, u32 activation) {
    switch (activation) {
        case GELU: return v * fmaf(0.5f, erff(v * 0.70710678f), 0.5f);
        case SILU: return v / (1.0f + expf(-v));
        case RELU: return v < 0.0f ? 0.0f : v;
        default: return v;
    }
}

// activation(y + bias) + residual; bias and residual may be absent.
__device__ __forceinline__ float finished(float y, const float* bias, const float* residual, u32 activation, u64 i, u32 cols) {
    if (bias) y += bias[i % cols];
    y = activated(y, activation);
    return residual ? y + residual[i] : y;
}

extern "C" __global__ void __launch_bounds__(256) finish(
    float* __restrict__ y,
    const float* __restrict__ bias,
    const float* __restrict__ residual,
    u32 activation,
    u64 n,
    u32 cols)
{
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = finished(y[i], bias, residual, activation, i, cols);
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
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = to_bf16(finished(product[i], bias, residual, activation, i, cols));
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

// The second stage: the bands in order, onto what is there.
extern "C" __global__ void __launch_bounds__(128) add_bands(
    const float* __restrict__ parts,
    float* __restrict__ sums,
    u32 bands,
    u32 cols)
{
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= cols) return;
    float sum = sums[column];
    for (u32 i = 0; i < bands; i++) sum += parts[(u64)i * cols + column];
    sums[column] = sum;
}
