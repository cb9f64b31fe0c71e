// Rotary position embedding in place: a thread turns four pairs of features of one head after the other (quads of
// rows.cuh, of the first half of a head and of the second), with cosines and sines that it reads once. threadIdx.x
// counts the quads of half a head, threadIdx.y heads and threadIdx.z rows; nothing is divided. Of bfloat16 products and sums are
// in f32.
//
// Bytes of memory an element: 8 (in and out), or 4. The tables' rows, 4 bytes an element of one head, come from the caches
// for all heads but the first.

template <bool ALIGNED, typename T>
__device__ __forceinline__ void turn(
    T* x, const u32* positions, const float* cosines, const float* sines, u32 rows, u32 heads, u32 half,
    float direction)
{
    u32 row = blockIdx.x * blockDim.z + threadIdx.z;
    if (row >= rows) return;
    u64 table = (u64)positions[row] * half;
    for (u32 quad = threadIdx.x; quad < (half + 3) / 4; quad += blockDim.x) {
        Quad c = load_quad<ALIGNED>(cosines + table, quad, half), s = load_quad<ALIGNED>(sines + table, quad, half);
#pragma unroll
        for (u32 k = 0; k < 4; k++) s.v[k] *= direction;
        for (u32 head = threadIdx.y; head < heads; head += blockDim.y) {
            T* first = x + ((u64)row * heads + head) * 2 * half;
            Quad re = load_quad<ALIGNED>(first, quad, half), im = load_quad<ALIGNED>(first + half, quad, half);
            Quad turned[2];
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                turned[0].v[k] = re.v[k] * c.v[k] - im.v[k] * s.v[k];
                turned[1].v[k] = im.v[k] * c.v[k] + re.v[k] * s.v[k];
            }
            store_quad<ALIGNED>(first, quad, half, turned[0]);
            store_quad<ALIGNED>(first + half, quad, half, turned[1]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) rotate(
    float* __restrict__ x,
    const u32* __restrict__ positions,
    const float* __restrict__ cosines,
    const float* __restrict__ sines,
    u32 rows,
    u32 heads,
    u32 half,
    float direction)
{
    if (half % 4 == 0) {
        turn<true>(x, positions, cosines, sines, rows, heads, half, direction);
    } else {
        turn<false>(x, positions, cosines, sines, rows, heads, half, direction);
    }
}

extern "C" __global__ void __launch_bounds__(256) rotate_bf16(
    bf16* __restrict__ x,
    const u32* __restrict__ positions,
    const float* __restrict__ cosines,
    const float* __restrict__ sines,
    u32 rows,
    u32 heads,
    u32 half,
    float direction)
{
    if (half % 4 == 0) {
        turn<true>(x, positions, cosines, sines, rows, heads, half, direction);
    } else {
        turn<false>(x, positions, cosines, sines, rows, heads, half, direction);
    }
}
