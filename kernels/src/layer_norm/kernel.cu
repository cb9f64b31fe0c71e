// Layer normalisation: a warp for every row, four rows a block; a row is read from memory once for every pass over it, of
// which all but the first find it in the cache.

#define WARPS 4

// The mean and one over the standard deviation of a row, in every lane.
__device__ __forceinline__ float2 statistics(const float* x, u32 d, float eps) {
    u32 lane = threadIdx.x % 32;
    float sum = 0.0f;
    for (u32 i = lane; i < d; i += 32) sum += x[i];
    float mean = warp_sum(sum) / (float)d;
    float squares = 0.0f;
    for (u32 i = lane; i < d; i += 32) squares = fmaf(x[i] - mean, x[i] - mean, squares);
    float2 found;
    found.x = mean;
    found.y = 1.0f / sqrtf(warp_sum(squares) / (float)d + eps);
    return found;
}

extern "C" __global__ void __launch_bounds__(32 * WARPS) forward(
    const float* __restrict__ x,
    const float* __restrict__ weight,
    const float* __restrict__ bias,
    float* __restrict__ y,
    float* __restrict__ means,
    float* __restrict__ inverses,
    u32 rows,
    u32 d,
    float eps)
{
    u32 row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    x += (u64)row * d;
    y += (u64)row * d;
    float2 s = statistics(x, d, eps);
    for (u32 i = lane; i < d; i += 32) y[i] = fmaf((x[i] - s.x) * s.y, weight[i], bias[i]);
    if (lane == 0) {
        means[row] = s.x;
        inverses[row] = s.y;
    }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS) forward_rounded(
    const float* __restrict__ x,
    const float* __restrict__ weight,
    const float* __restrict__ bias,
    bf16* __restrict__ y,
    u32 rows,
    u32 d,
    float eps)
{
    u32 row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    x += (u64)row * d;
    y += (u64)row * d;
    float2 s = statistics(x, d, eps);
    for (u32 i = lane; i < d; i += 32) y[i] = to_bf16(fmaf((x[i] - s.x) * s.y, weight[i], bias[i]));
}

extern "C" __global__ void __launch_bounds__(32 * WARPS) backward(
    const float* __restrict__ dy,
    const float* __restrict__ x,
    const float* __restrict__ means,
    const float* __restrict__ inverses,
    const float* __restrict__ weight,
    float* __restrict__ dx,
    u32 rows,
    u32 d)
{
    u32 row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    dy += (u64)row * d;
    x += (u64)row * d;
    dx += (u64)row * d;
    float mean = means[row], inverse = inverses[row];
    float shift = 0.0f, pull = 0.0f;
    for (u32 i = lane; i < d; i += 32) {
        float g = dy[i] * weight[i];
        shift += g;
        pull = fmaf(g, (x[i] - mean) * inverse, pull);
    }
    shift = warp_sum(shift) / (float)d;
    pull = warp_sum(pull) / (float)d;
    for (u32 i = lane; i < d; i += 32) {
        dx[i] = (dy[i] * weight[i] - shift - (x[i] - mean) * inverse * pull) * inverse;
    }
}

// The first stage of the weight's and the bias's gradients: a thread for every column, a block for every band of rows.
// The bands are of a fixed size and added in order, so the sums do not depend on the card.
extern "C" __global__ void __launch_bounds__(128) backward_weight(
    const float* __restrict__ dy,
    const float* __restrict__ x,
    const float* __restrict__ means,
    const float* __restrict__ inverses,
    float* __restrict__ parts,  // [bands, 2, d]
    u32 rows,
    u32 d,
    u32 band)
{
    u32 column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= d) return;
    u32 end = min((blockIdx.x + 1) * band, rows);
    float dw = 0.0f, db = 0.0f;
    for (u32 row = blockIdx.x * band; row < end; row++) {
        float g = dy[(u64)row * d + column];
        dw = fmaf(g, (x[(u64)row * d + column] - means[row]) * inverses[row], dw);
        db += g;
    }
    parts[(u64)blockIdx.x * 2 * d + column] = dw;
    parts[((u64)blockIdx.x * 2 + 1) * d + column] = db;
}

extern "C" __global__ void __launch_bounds__(128) add_parts(
    const float* __restrict__ parts,  // [bands, 2, d]
    float* __restrict__ d_weight,
    float* __restrict__ d_bias,
    u32 bands,
    u32 d)
{
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= d) return;
    float dw = d_weight[column], db = d_bias[column];
    for (u32 i = 0; i < bands; i++) {
        dw += parts[(u64)i * 2 * d + column];
        db += parts[((u64)i * 2 + 1) * d + column];
    }
    d_weight[column] = dw;
    d_bias[column] = db;
}
