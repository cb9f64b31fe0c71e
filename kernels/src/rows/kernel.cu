// Whole rows.

extern "C" __global__ void __launch_bounds__(256) add_repeated(
    float* __restrict__ x,
    const float* __restrict__ rows,
    u64 n,
    u64 period)
{
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    // Quotients of 64 bits take long.
    if (i < n) x[i] += rows[n >> 32 ? i % period : (u32)i % (u32)period];
}

#define THREADS 256
#define NOWHERE 0xffffffffu

// Whether a value at a place goes before another: it is larger, or as large and earlier. NaN goes before nothing.
__device__ __forceinline__ bool goes_before(float v, u32 at, float other, u32 other_at) {
    return v > other || (v == other && at < other_at);
}

// A block for every row.
extern "C" __global__ void __launch_bounds__(THREADS) largest(
    const float* __restrict__ x,
    u32* __restrict__ columns,
    u32 d)
{
    SHARED_ARRAY(float, values, [THREADS]);
    SHARED_ARRAY(u32, places, [THREADS]);
    x += (u64)blockIdx.x * d;
    float best = -INFINITY;
    u32 at = NOWHERE;
    for (u32 i = threadIdx.x; i < d; i += THREADS) {
        float v = x[i];
        if (goes_before(v, i, best, at)) {
            best = v;
            at = i;
        }
    }
    values[threadIdx.x] = best;
    places[threadIdx.x] = at;
    __syncthreads();
    for (u32 half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            u32 other = threadIdx.x + half;
            if (goes_before(values[other], places[other], values[threadIdx.x], places[threadIdx.x])) {
                values[threadIdx.x] = values[other];
                places[threadIdx.x] = places[other];
            }
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) columns[blockIdx.x] = places[0] == NOWHERE ? 0 : places[0];
}
