// The norm of many tensors in two launches, whatever their number: a block for every chunk of 4,096 elements, four accesses
// of 16 bytes a thread, then one block for the sums of all chunks. 4 bytes an element, once. Squares are exact in double
// precision; who adds what does not depend on the card.

#define CHUNK 4096
#define THREADS 256
#define LAST_THREADS 1024

// A tensor; `first` counts the chunks of those before.
struct Part {
    const float* values;
    u64 len;
    u64 first;
};

__device__ __forceinline__ double sum_of_warp(double v) {
    for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

// The sum over the threads of a block, in every thread.
__device__ __forceinline__ double sum_of_block(double v) {
    SHARED_ARRAY(double, warps, [32]);
    u32 lane = threadIdx.x % 32;
    v = sum_of_warp(v);
    if (lane == 0) warps[threadIdx.x / 32] = v;
    __syncthreads();
    return sum_of_warp(lane < blockDim.x / 32 ? warps[lane] : 0.0);
}

extern "C" __global__ void __launch_bounds__(THREADS) sum_squares(
    const Part* __restrict__ parts,
    u32 count,
    double* __restrict__ sums)
{
    const Part& part = part_of(parts, count, blockIdx.x);
    u64 begin = (blockIdx.x - part.first) * CHUNK + 4 * threadIdx.x;
    double sum = 0.0;
    for (u32 i = 0; i < CHUNK; i += 4 * THREADS) {
        Four<float> v = read4(part.values, begin + i, part.len);
        for (u32 k = 0; k < 4; k++) sum = fma((double)v.at[k], (double)v.at[k], sum);
    }
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(LAST_THREADS) finish(
    const double* __restrict__ sums,
    u32 chunks,
    u64 max_norm,  // the bits of a double
    double* __restrict__ norm,
    float* __restrict__ factor)
{
    double sum = 0.0;
#pragma unroll 8
    for (u32 i = threadIdx.x; i < chunks; i += LAST_THREADS) sum += sums[i];
    sum = sqrt(sum_of_block(sum));
    if (threadIdx.x == 0) {
        *norm = sum;
        *factor = (float)fmin(__longlong_as_double((long long)max_norm) / (sum + 1e-6), 1.0);
    }
}
