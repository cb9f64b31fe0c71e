// Softmax cross-entropy of a tile of logits, [rows, stride], of which `classes` columns from class `first` on are there.
// The products around these kernels are the library's.
//
// observe: a block for every row reads it once, 4 bytes a logit, with a running maximum and sum in every thread.
// gradient: a thread has four neighbouring columns and goes down a band of 32 rows: 16 bytes read and written in place, so
// 8 bytes a logit; the sums of its columns, which are parts of db, stay in registers. Both read what the product before
// has just written, and what the next reads: tiles of narrow inputs are made so that this stays in the cache.

#define ROW_THREADS 512
#define BAND 32

// What is known of a row: sum * exp(max) is the sum of the exponentials of the logits that were seen.
struct Softmax {
    float max, sum;
};

// What exponentials can be relative to: the maximum, but for rows that hold nothing but minus infinity.
__device__ __forceinline__ float pivot(float max) {
    return max == -INFINITY ? 0.0f : max;
}

__device__ __forceinline__ Softmax merged(Softmax a, Softmax b) {
    Softmax both;
    both.max = fmaxf(a.max, b.max);
    float relative = pivot(both.max);
    both.sum = a.sum * expf(a.max - relative) + b.sum * expf(b.max - relative);
    return both;
}

// The same in every lane, in a fixed order.
__device__ __forceinline__ Softmax merged_over_warp(Softmax mine) {
    for (int offset = 16; offset > 0; offset >>= 1) {
        Softmax other;
        other.max = __shfl_xor_sync(0xffffffffu, mine.max, offset);
        other.sum = __shfl_xor_sync(0xffffffffu, mine.sum, offset);
        // The lower lane's part comes first in both.
        mine = threadIdx.x & offset ? merged(other, mine) : merged(mine, other);
    }
    return mine;
}

// The logits of four columns with their bias; those that are not there cannot be.
__device__ __forceinline__ void load(float (&v)[4], const float* logits, const float* bias, u32 column, u32 classes) {
    float4 quad = *reinterpret_cast<const float4*>(logits + column);
    v[0] = quad.x, v[1] = quad.y, v[2] = quad.z, v[3] = quad.w;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if (column + i >= classes) {
            v[i] = -INFINITY;
        } else if (bias) {
            v[i] += bias[column + i];
        }
    }
}

// Adds the classes of a tile to what is known of its rows; the first band of classes begins anew.
extern "C" __global__ void __launch_bounds__(ROW_THREADS) observe(
    const float* __restrict__ logits,
    const float* __restrict__ bias,   // of the classes of the tile; may be absent
    const u32* __restrict__ labels,
    float* __restrict__ state,  // [rows, 3]: maximum, sum, logit of the label
    u32 first,
    u32 classes,
    u32 stride)
{
    SHARED_ARRAY(Softmax, warps, [ROW_THREADS / 32]);
    u32 row = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    logits += (u64)row * stride;
    state += 3 * row;
    Softmax mine = {-INFINITY, 0.0f};
    for (u32 column = 4 * threadIdx.x; column < classes; column += 4 * ROW_THREADS) {
        float v[4];
        load(v, logits, bias, column, classes);
        Softmax quad = {fmaxf(fmaxf(v[0], v[1]), fmaxf(v[2], v[3])), 0.0f};
        float max = fmaxf(mine.max, quad.max), relative = pivot(max);
#pragma unroll
        for (u32 i = 0; i < 4; i++) quad.sum += expf(v[i] - relative);
        mine.sum = fmaf(mine.sum, expf(mine.max - relative), quad.sum);
        mine.max = max;
    }
    mine = merged_over_warp(mine);
    if (lane == 0) warps[warp] = mine;
    __syncthreads();
    if (threadIdx.x > 0) return;
    Softmax all = {-INFINITY, 0.0f};
    float label_logit = -INFINITY;
    if (first > 0) {
        all.max = state[0], all.sum = state[1];
        label_logit = state[2];
    }
    for (u32 i = 0; i < ROW_THREADS / 32; i++) all = merged(all, warps[i]);
    u32 label = labels[row] - first;
    if (label < classes) label_logit = logits[label] + (bias ? bias[label] : 0.0f);
    state[0] = all.max, state[1] = all.sum, state[2] = label_logit;
}

extern "C" __global__ void __launch_bounds__(256) finish(
    const float* __restrict__ state,
    float* __restrict__ lse,
    float* __restrict__ losses,
    u32 rows)
{
    u32 row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    float max = state[3 * row], sum = logf(state[3 * row + 1]);
    lse[row] = max + sum;
    losses[row] = max - state[3 * row + 2] + sum;
}

// Logits become row_scale * (softmax - one_hot).
extern "C" __global__ void __launch_bounds__(128) gradient(
    float* __restrict__ logits,
    const float* __restrict__ bias,
    const u32* __restrict__ labels,
    const float* __restrict__ lse,
    const float* __restrict__ scale,
    float* __restrict__ parts,  // [bands, classes]: sums over the bands of rows; may be absent
    u32 rows,
    u32 first,
    u32 classes,
    u32 stride)
{
    u32 column = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (column >= classes) return;
    u32 end = min((blockIdx.y + 1) * BAND, rows);
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 4
    for (u32 row = blockIdx.y * BAND; row < end; row++) {
        float v[4];
        load(v, logits + (u64)row * stride, bias, column, classes);
        float all = lse[row], factor = scale[row];
        u32 label = labels[row] - first - column;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            v[i] = (expf(v[i] - all) - (label == i ? 1.0f : 0.0f)) * factor;
            sums[i] += v[i];
        }
        *reinterpret_cast<float4*>(logits + (u64)row * stride + column) = make_float4(v[0], v[1], v[2], v[3]);
    }
    if (!parts) return;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if (column + i < classes) parts[(u64)blockIdx.y * classes + column + i] = sums[i];
    }
}

// The bands in order, onto what is there.
extern "C" __global__ void __launch_bounds__(256) add_bands(
    const float* __restrict__ parts,
    float* __restrict__ db,
    u32 bands,
    u32 classes)
{
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= classes) return;
    float sum = db[column];
    for (u32 i = 0; i < bands; i++) sum += parts[(u64)i * classes + column];
    db[column] = sum;
}
