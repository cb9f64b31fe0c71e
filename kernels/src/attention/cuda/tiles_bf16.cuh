// What the kernels on tensor cores share: products of tiles in shared memory, by a warp for GROUPS times 16 rows. Of
// every 16 a lane holds rows g and g + 8, with g = lane / 4, at columns 2t and 2t + 1 of every 8, with t = lane % 4.

#define WARPS 4
#define LOG2_E 1.44269504f

// sums += left · rightᵀ, over the warp's rows of `left` and 8 * COLUMNS rows of `right`.
template <u32 WIDTH, u32 GROUPS, u32 COLUMNS>
__device__ __forceinline__ void multiply_rows(float (&sums)[GROUPS][COLUMNS][4], const bf16* left, const bf16* right) {
    u32 lane = opaque(threadIdx.x) % 32;
    u32 left_place = turned<WIDTH, bf16>(lane % 16, lane / 16);
    u32 right_place = turned<WIDTH, bf16>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
    __syncwarp(); // some lanes may have copied where others had nothing to
#pragma unroll
    for (u32 k = 0; k < WIDTH / 16; k++) {
        u32 a[GROUPS][4];
#pragma unroll
        for (u32 m = 0; m < GROUPS; m++) {
            ldmatrix_x4(a[m], left + further<WIDTH, bf16>(left_place, 2 * k) + 16 * m * WIDTH);
        }
#pragma unroll
        for (u32 n = 0; n < COLUMNS / 2; n++) {
            u32 b[4];
            ldmatrix_x4(b, right + further<WIDTH, bf16>(right_place, 2 * k) + 16 * n * WIDTH);
            u32 first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
#pragma unroll
            for (u32 m = 0; m < GROUPS; m++) {
                mma_bf16_16x8x16(sums[m][2 * n], a[m], first);
                mma_bf16_16x8x16(sums[m][2 * n + 1], a[m], second);
            }
        }
    }
}

// sums += weights · rows, of 16 weights for each of the warp's rows, as the tensor cores take them, and 16 rows of a
// tile.
template <u32 WIDTH, u32 GROUPS>
__device__ __forceinline__ void multiply_columns(
    float (&sums)[GROUPS][WIDTH / 8][4], const u32 (&weights)[GROUPS][4], const bf16* rows)
{
    u32 lane = opaque(threadIdx.x) % 32;
    u32 place = turned<WIDTH, bf16>(lane % 16, lane / 16);
#pragma unroll
    for (u32 n = 0; n < WIDTH / 16; n++) {
        u32 b[4];
        ldmatrix_x4_trans(b, rows + further<WIDTH, bf16>(place, 2 * n));
        u32 first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
#pragma unroll
        for (u32 m = 0; m < GROUPS; m++) {
            mma_bf16_16x8x16(sums[m][2 * n], weights[m], first);
            mma_bf16_16x8x16(sums[m][2 * n + 1], weights[m], second);
        }
    }
}

// The weights of columns 16 * k on, rounded.
template <u32 GROUPS, u32 COLUMNS>
__device__ __forceinline__ void round_weights(
    u32 (&rounded)[GROUPS][4], const float (&weights)[GROUPS][COLUMNS][4], u32 k)
{
#pragma unroll
    for (u32 m = 0; m < GROUPS; m++) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const float(&pair)[4] = weights[m][2 * k + i / 2];
            rounded[m][i] = bf16_pair(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
        }
    }
}

template <u32 GROUPS, u32 COLUMNS>
__device__ __forceinline__ void clear(float (&sums)[GROUPS][COLUMNS][4]) {
#pragma unroll
    for (u32 m = 0; m < GROUPS; m++) {
#pragma unroll
        for (u32 n = 0; n < COLUMNS; n++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
        }
    }
}

// Puts a row of a lane, multiplied with a factor and rounded, to its place in a tile: rows g of `half` 0, g + 8 of 1.
template <u32 WIDTH>
__device__ __forceinline__ void put_row(bf16* tile, const float (&sums)[WIDTH / 8][4], u32 half, float factor) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 n = 0; n < WIDTH / 8; n++) {
        u32 at = turned<WIDTH, bf16>(8 * half + lane / 4, n) + lane % 4 * 2;
        u32 pair = bf16_pair(sums[n][2 * half] * factor, sums[n][2 * half + 1] * factor);
        *reinterpret_cast<u32*>(tile + at) = pair;
    }
}

// Writes the first rows of a warp's tile to memory, 16 bytes a lane, where row 0 of the head lies at `to`.
template <u32 WIDTH>
__device__ __forceinline__ void store_tile(const bf16* tile, bf16* to, u32 rows, u32 features, u64 stride) {
    for (u32 i = threadIdx.x % 32; i < rows * (WIDTH / 8); i += 32) {
        u32 row = i / (WIDTH / 8), feature = i % (WIDTH / 8) * 8;
        if (feature >= features) continue;
        const bf16* from = tile + turned<WIDTH, bf16>(row, feature / 8);
        if (features % 8 == 0) {
            *reinterpret_cast<uint4*>(to + row * stride + feature) = *reinterpret_cast<const uint4*>(from);
        } else {
#pragma unroll 1
            for (u32 k = 0; k < min(8u, features - feature); k++) to[row * stride + feature + k] = from[k];
        }
    }
}
