// Softmax cross-entropy of inputs of up to 128 elements: logits are made in registers by tensor cores, and never leave them.
//
// Precision: numbers become pairs of half-precision ones, high + low = 22 bits, after a row or a class was scaled by a power
// of two to below 2^15. Three products, high high + high low + low high with sums of 32 bits, drop 2^-22 of a logit, as
// much as 32-bit arithmetic does. So are gradients multiplied, and what tensor cores have summed over 16 items is added by
// ordinary additions. Logits are relative to base 2.
//
// Packed: 64 items are one run of memory, the high halves, the low ones, and five numbers for each, which is copied as it
// is. In a row the 16 bytes at c lie at c ^ (item % 8): what ldmatrix reads at a time lies in different banks.
//
// A warp owns 32 rows (16 of more than 64 elements) or as many classes, whose fragments stay in registers, and the block's
// other operand passes by in tiles of 64, the next on its way meanwhile: 4 bytes an element read from the cache for 128
// owned. For 32 x 16 logits of 64 elements 48 mma, and 48 more where gradients are made of them: logits in the registers
// of a sum lie as the left operand of the next product wants them. For every logit there are about 8 other operations, or
// 14 with gradients, one of them the power.
//
// normalise (fused.cu): blocks own rows, and ranges of classes pass by; parts are merged in order by `finish`.
// gradient_rows (gradients.cu): the same, with dx = P W summed in registers; the parts of the ranges are added in order by `add_parts`.
// gradient_classes: blocks own classes, and rows pass by in order: dW = P' x and db in registers, added once or, of few
// classes, as parts of several ranges of rows.

#define ITEMS 64
#define THREADS 128
#define ALL_LANES 0xffffffffu
#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f

// What is done to logits must not depend on which side is owned: both sides have the same numbers.
template <u32 WIDTH>
struct Tile {
    u32 high[ITEMS][WIDTH / 2];
    u32 low[ITEMS][WIDTH / 2];
    float unit[ITEMS];    // what the halves are multiples of
    float offset[ITEMS];  // to be added to logits: the bias of a class, less the log of the sum of a row
    float factor[ITEMS];  // of the item in sums over such items: its unit and the scale of a row
    float scale[ITEMS];   // of a row
    u32 key[ITEMS];       // that of a class is its number, that of a row its label
};

__device__ __forceinline__ const void* chunk(const u32* halves, u32 width, u32 item, u32 at) {
    return halves + item * (width / 2) + 4 * (at ^ (item % 8));
}

// 2 to the power of v, to about the last two bits.
__device__ __forceinline__ float power_of_two(float v) {
#ifdef MLLM4REC_EMULATED
    return exp2f(v);
#else
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(v));
    return power;
#endif
}

// Powers of two by which a number is brought to below 2^15, and back; neither is 0, infinite or subnormal.
struct Unit {
    float unit, inverse;
};

__device__ __forceinline__ Unit unit_of(float most) {
    int exponent = max((int)(__float_as_uint(most) >> 23) - 127, -100);
    Unit found;
    found.unit = __int_as_float((exponent - 14 + 127) << 23);
    found.inverse = __int_as_float((14 - exponent + 127) << 23);
    return found;
}

__device__ __forceinline__ float size_if_finite(float v) {
    return fabsf(v) < INFINITY ? fabsf(v) : 0.0f;
}

// A pair of values as a pair of halves and what these leave out; of infinity that is NaN.
__device__ __forceinline__ void split(float a, float b, u32& high, u32& low) {
    high = f16_pair(a, b);
    float2 rounded = f16_values(high);
    low = f16_pair(a - rounded.x, b - rounded.y);
}

// What a warp owns. Number s of a lane is that of item 8 s + lane / 4.
template <u32 WIDTH, u32 GROUPS>
struct Owned {
    u32 high[GROUPS][WIDTH / 16][4], low[GROUPS][WIDTH / 16][4];
    float unit[2 * GROUPS], offset[2 * GROUPS];  // the unit such that logits are relative to base 2
    u32 key[2 * GROUPS];

    // From tiles in shared memory, the first of which has the block's first item.
    __device__ __forceinline__ void load(const Tile<WIDTH>* tiles) {
        u32 lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16 * GROUPS;
        const Tile<WIDTH>& tile = tiles[first / ITEMS];
        first %= ITEMS;
#pragma unroll
        for (u32 g = 0; g < GROUPS; g++) {
#pragma unroll
            for (u32 k = 0; k < WIDTH / 16; k++) {
                u32 item = first + 16 * g + lane % 16, at = 2 * k + lane / 16;
                ldmatrix_x4(high[g][k], chunk(tile.high[0], WIDTH, item, at));
                ldmatrix_x4(low[g][k], chunk(tile.low[0], WIDTH, item, at));
            }
        }
#pragma unroll
        for (u32 s = 0; s < 2 * GROUPS; s++) {
            u32 item = first + 8 * s + lane / 4;
            unit[s] = tile.unit[item] * LOG2_E, offset[s] = tile.offset[item], key[s] = tile.key[item];
        }
    }
};

// Products with 8 N items of a tile. With lane = 4 r + c element e of sums[j][g] is that of the owned item 16 g + r +
// 8 (e / 2) and the tile's item first + 8 j + 2 c + e % 2. Whichever side is owned, the low halves of rows come first, so
// that the bits are the same. Tensor cores cut off what a sum has no room for, so the small products are summed apart.
template <bool OWN_ROWS, u32 N, u32 WIDTH, u32 GROUPS>
__device__ __forceinline__ void multiply(
    float (&sums)[N][GROUPS][4], const Owned<WIDTH, GROUPS>& owned, const Tile<WIDTH>& tile, u32 first)
{
    u32 lane = threadIdx.x % 32;
    float small[N][GROUPS][4] = {};
#pragma unroll
    for (u32 i = 0; i < 4 * N * GROUPS; i++) sums[i / (4 * GROUPS)][i / 4 % GROUPS][i % 4] = 0.0f;
#pragma unroll
    for (u32 k = 0; k < WIDTH / 32; k++) {
        u32 high[N][4], low[N][4];
#pragma unroll
        for (u32 j = 0; j < N; j++) {
            u32 item = first + 8 * j + lane % 8, at = 4 * k + lane / 8;
            ldmatrix_x4(high[j], chunk(tile.high[0], WIDTH, item, at));
            ldmatrix_x4(low[j], chunk(tile.low[0], WIDTH, item, at));
        }
#pragma unroll
        for (u32 i = 0; i < 6; i++) {
            u32 half = i / 3, at = 2 * k + half;
            bool own_low = i % 3 == (OWN_ROWS ? 0 : 2), other_low = i % 3 == (OWN_ROWS ? 2 : 0);
#pragma unroll
            for (u32 j = 0; j < N; j++) {
                const u32(&from)[4] = other_low ? low[j] : high[j];
                u32 b[2] = {from[2 * half], from[2 * half + 1]};
#pragma unroll
                for (u32 g = 0; g < GROUPS; g++) {
                    float(&onto)[4] = own_low || other_low ? small[j][g] : sums[j][g];
                    mma_f16_16x8x16(onto, own_low ? owned.low[g][at] : owned.high[g][at], b);
                }
            }
        }
    }
#pragma unroll
    for (u32 i = 0; i < 4 * N * GROUPS; i++) {
        sums[i / (4 * GROUPS)][i / 4 % GROUPS][i % 4] += small[i / (4 * GROUPS)][i / 4 % GROUPS][i % 4];
    }
}

template <u32 WIDTH>
__device__ __forceinline__ void copy_tiles(Tile<WIDTH>* to, const Tile<WIDTH>* from, u32 tiles) {
    for (u32 i = threadIdx.x; i < tiles * (sizeof(Tile<WIDTH>) / 16); i += blockDim.x) {
        cp_async_16(reinterpret_cast<u8*>(to) + 16 * i, reinterpret_cast<const u8*>(from) + (u64)16 * i);
    }
    cp_async_commit();
}

// Loads what the warps own, by way of the two stages: the block's items begin at its number, tiles end before `end`.
template <u32 WIDTH, u32 GROUPS>
__device__ __forceinline__ u32 load_owned(
    Owned<WIDTH, GROUPS>& owned, Tile<WIDTH>* stages, const Tile<WIDTH>* tiles, u32 first, u32 end)
{
    u32 block_tiles = blockDim.x / 32 * 16 * GROUPS / ITEMS, begin = first + blockIdx.x * block_tiles;
    copy_tiles(stages, tiles + begin, min(block_tiles, end - begin));
    cp_async_wait<0>();
    __syncthreads();
    owned.load(stages);
    __syncthreads();
    return begin * ITEMS + threadIdx.x / 32 * 16 * GROUPS;
}

// f(tile) for the tiles from `begin` to `end`, in order.
template <u32 WIDTH, typename F>
__device__ __forceinline__ void for_each_tile(Tile<WIDTH>* stages, const Tile<WIDTH>* tiles, u32 begin, u32 end, F f) {
    if (begin < end) copy_tiles(stages, tiles + begin, 1);
    for (u32 i = begin, stage = 0; i < end; i++, stage ^= 1) {
        cp_async_wait<0>();
        __syncthreads();
        if (i + 1 < end) copy_tiles(stages + (stage ^ 1), tiles + i + 1, 1);
        f(stages[stage]);
    }
}

// Whether a label of the rows is among the classes, of which one side is owned and the other a tile: mostly none is. The
// answer is the same for all of a warp, whose first item is given.
template <bool OWN_ROWS, u32 WIDTH, u32 GROUPS>
__device__ __forceinline__ bool any_label(const Owned<WIDTH, GROUPS>& owned, const Tile<WIDTH>& tile, u32 first) {
    bool found = false;
    if (OWN_ROWS) {
#pragma unroll
        for (u32 s = 0; s < 2 * GROUPS; s++) found |= owned.key[s] - tile.key[0] < ITEMS;
    } else {
        u32 lane = threadIdx.x % 32;
        found = tile.key[lane] - first < 16 * GROUPS || tile.key[lane + 32] - first < 16 * GROUPS;
    }
    return __any_sync(ALL_LANES, found);
}

__device__ __forceinline__ float2 pair_at(const float* numbers, u32 item) {
    return *reinterpret_cast<const float2*>(numbers + item);
}
