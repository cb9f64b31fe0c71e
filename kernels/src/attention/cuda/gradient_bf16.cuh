// What the kernels on tensor cores share that compute gradients. Weights are computed again from the logarithms of
// their denominators; they and their gradients are rounded before the products that they enter, and summed in f32. One
// kernel sums over queries, for the keys and values; another over keys, for the queries: two of seven products more
// than with atomic additions, whose order and so whose bits would be others every time.
//
// Sums go over heads, sequences, tiles and rows in their order. So the bits of the gradients of a sequence depend on
// that sequence and the prefix alone; those of the prefix are summed over parts of the sequences, and the parts in
// order.

#define THREADS (32 * WARPS)

// What softmax and its gradient need of a row: the logarithm of its denominator, in powers of two, and the sum of
// d_out * out.
struct Statistic {
    float log_sum;
    float pull;
};

// A row that is none weighs nothing.
#define NO_ROW (Statistic{INFINITY, 0.0f})

// Writes a warp's gradients, rounded; or, where they are those of a part, as they are.
template <u32 WIDTH, u32 GROUPS>
__device__ __forceinline__ void store_sums(
    const float (&sums)[GROUPS][WIDTH / 8][4], float factor, bf16* tile, bf16* to, float* part, u32 rows, u32 features,
    u64 stride)
{
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 m = 0; m < GROUPS; m++) {
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            if (!part) {
                put_row<WIDTH>(tile + 16 * m * WIDTH, sums[m], h, factor);
                continue;
            }
            u32 row = 16 * m + 8 * h + lane / 4;
#pragma unroll
            for (u32 n = 0; n < WIDTH / 8; n++) {
#pragma unroll
                for (u32 i = 0; i < 2; i++) {
                    u32 feature = 8 * n + lane % 4 * 2 + i;
                    if (row < rows && feature < features) part[row * stride + feature] = sums[m][n][2 * h + i] * factor;
                }
            }
        }
    }
    __syncwarp();
    if (!part) store_tile<WIDTH>(tile, to, rows, features, stride);
}
