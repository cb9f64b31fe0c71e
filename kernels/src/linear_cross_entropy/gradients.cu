// Makes gradients of logits whose softmax is known: see halves.cuh.

// Gradients with respect to what the warps own: sums[g][j] with the elements of multiply, but that columns are those of
// the owned, and the sums of P itself.
template <u32 WIDTH, u32 GROUPS>
struct Gradients {
    float sums[GROUPS][WIDTH / 8][4];
    float plain[2 * GROUPS];

    // Adds the part of 16 items, whose products are there. Logits are rounded as in `normalise`, before what they are
    // relative to is taken from them.
    template <bool OWN_ROWS>
    __device__ __forceinline__ void add(
        float (&p)[2][GROUPS][4], const Owned<WIDTH, GROUPS>& owned, const Tile<WIDTH>& tile, u32 first, float inverse,
        bool labelled)
    {
        u32 own = first + threadIdx.x % 4 * 2;
#pragma unroll
        for (u32 i = 0; i < 8 * GROUPS; i++) {
            float& v = p[i / (4 * GROUPS)][i / 4 % GROUPS][i % 4];
            u32 item = own + i / (4 * GROUPS) * 8 + i % 2, slot = i / 2 % (2 * GROUPS);
            float own_offset = owned.offset[slot], offset = tile.offset[item];
            float logit = fmaf(v, owned.unit[slot] * tile.unit[item], OWN_ROWS ? offset : own_offset);
            v = power_of_two(logit + (OWN_ROWS ? own_offset : offset));
        }
        if (labelled) {
#pragma unroll
            for (u32 i = 0; i < 8 * GROUPS; i++) {
                u32 item = own + i / (4 * GROUPS) * 8 + i % 2, slot = i / 2 % (2 * GROUPS);
                if (owned.key[slot] == tile.key[item]) p[i / (4 * GROUPS)][i / 4 % GROUPS][i % 4] -= 1.0f;
            }
        }
#pragma unroll
        for (u32 i = 0; i < 8 * GROUPS; i++) {
            float& v = p[i / (4 * GROUPS)][i / 4 % GROUPS][i % 4];
            u32 item = own + i / (4 * GROUPS) * 8 + i % 2, slot = i / 2 % (2 * GROUPS);
            plain[slot] = fmaf(v, tile.scale[item], plain[slot]);
            v *= tile.factor[item] * inverse;
        }
        add_products(p, tile, first);
    }

    // Tensor cores cut off what a sum has no room for, and a sum over millions would be short: they have 16 at a time.
    __device__ __forceinline__ void add_products(const float (&p)[2][GROUPS][4], const Tile<WIDTH>& tile, u32 first) {
        u32 high[GROUPS][4], low[GROUPS][4], item = first + threadIdx.x % 16, half = threadIdx.x % 32 / 16;
#pragma unroll
        for (u32 i = 0; i < 4 * GROUPS; i++) {
            const float* pair = &p[i % 4 / 2][i / 4][i % 2 * 2];
            split(pair[0], pair[1], high[i / 4][i % 4], low[i / 4][i % 4]);
        }
#pragma unroll
        for (u32 k = 0; k < WIDTH / 32; k++) {
            u32 of_high[2][4], of_low[2][4];
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                ldmatrix_x4_trans(of_high[i], chunk(tile.high[0], WIDTH, item, 4 * k + 2 * i + half));
                ldmatrix_x4_trans(of_low[i], chunk(tile.low[0], WIDTH, item, 4 * k + 2 * i + half));
            }
            float part[4][GROUPS][4] = {};
#pragma unroll
            for (u32 i = 0; i < 12; i++) {
                u32 product = i / 4, j = i % 4;
                const u32(&from)[4] = product == 1 ? of_low[j / 2] : of_high[j / 2];
                u32 b[2] = {from[j % 2 * 2], from[j % 2 * 2 + 1]};
#pragma unroll
                for (u32 g = 0; g < GROUPS; g++) mma_f16_16x8x16(part[j][g], product == 0 ? low[g] : high[g], b);
            }
#pragma unroll
            for (u32 i = 0; i < 16 * GROUPS; i++) {
                sums[i / 16][4 * k + i / 4 % 4][i % 4] += part[i / 4 % 4][i / 16][i % 4];
            }
        }
    }
};

// Sums over the tiles from `begin` to `end`.
template <bool OWN_ROWS, u32 WIDTH, u32 GROUPS>
__device__ __forceinline__ void sum_gradients(
    Gradients<WIDTH, GROUPS>& gradients, const Owned<WIDTH, GROUPS>& owned, Tile<WIDTH>* stages, const Tile<WIDTH>* tiles,
    u32 first, u32 begin, u32 end, float inverse)
{
#pragma unroll
    for (u32 i = 0; i < GROUPS * WIDTH / 2; i++) gradients.sums[i / (WIDTH / 2)][i / 4 % (WIDTH / 8)][i % 4] = 0.0f;
#pragma unroll
    for (u32 s = 0; s < 2 * GROUPS; s++) gradients.plain[s] = 0.0f;
    for_each_tile(stages, tiles, begin, end, [&](const Tile<WIDTH>& tile) {
        bool labelled = any_label<OWN_ROWS>(owned, tile, first);
#pragma unroll 1
        for (u32 at = 0; at < ITEMS; at += 16) {
            float products[2][GROUPS][4];
            multiply<OWN_ROWS>(products, owned, tile, at);
            gradients.template add<OWN_ROWS>(products, owned, tile, at, inverse, labelled);
        }
    });
}

// f(item, column, sum) for what a lane has summed.
template <u32 WIDTH, u32 GROUPS, typename F>
__device__ __forceinline__ void for_each_sum(const Gradients<WIDTH, GROUPS>& gradients, u32 first, F f) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 g = 0; g < GROUPS; g++) {
#pragma unroll
        for (u32 i = 0; i < WIDTH / 2; i++) {
            f(first + 16 * g + lane / 4 + i % 4 / 2 * 8, i / 4 * 8 + lane % 4 * 2 + i % 2, gradients.sums[g][i / 4][i % 4]);
        }
    }
}

template <u32 WIDTH, u32 GROUPS>
__device__ __forceinline__ void gradient_rows(
    const u8* rows, const u8* classes, const float* largest, float* parts, u32 first_row, u32 end_row, u32 d,
    u32 class_tiles, u32 width, u8* shared)
{
    Tile<WIDTH>* stages = reinterpret_cast<Tile<WIDTH>*>(shared);
    u32 begin = blockIdx.y * width, end = min(begin + width, class_tiles);
    Unit factors = unit_of(*largest);
    Owned<WIDTH, GROUPS> owned;
    u32 row_tiles = (end_row + ITEMS - 1) / ITEMS;
    u32 first = load_owned(owned, stages, reinterpret_cast<const Tile<WIDTH>*>(rows), first_row / ITEMS, row_tiles);
    Gradients<WIDTH, GROUPS> gradients;
    const Tile<WIDTH>* tiles = reinterpret_cast<const Tile<WIDTH>*>(classes);
    sum_gradients<true>(gradients, owned, stages, tiles, first, begin, end, factors.inverse);
    parts += (u64)blockIdx.y * (end_row - first_row) * d;
    for_each_sum(gradients, first, [&](u32 row, u32 column, float sum) {
        if (row < end_row && column < d) parts[(u64)(row - first_row) * d + column] = sum * factors.unit;
    });
}

// P W for some rows, whose first begins a tile, over each of the ranges of classes; without the rows' scale.
extern "C" __global__ void __launch_bounds__(THREADS, 2) gradient_rows_64(
    const u8* __restrict__ rows,
    const u8* __restrict__ classes,
    const float* __restrict__ largest,  // of the factors of classes
    float* __restrict__ parts,          // [ranges, end_row - first_row, d]
    u32 first_row,
    u32 end_row,
    u32 d,
    u32 class_tiles,
    u32 width)
{
    SHARED_MEMORY(u8, shared);
    gradient_rows<64, 2>(rows, classes, largest, parts, first_row, end_row, d, class_tiles, width, shared);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) gradient_rows_128(
    const u8* __restrict__ rows,
    const u8* __restrict__ classes,
    const float* __restrict__ largest,
    float* __restrict__ parts,
    u32 first_row,
    u32 end_row,
    u32 d,
    u32 class_tiles,
    u32 width)
{
    SHARED_MEMORY(u8, shared);
    gradient_rows<128, 1>(rows, classes, largest, parts, first_row, end_row, d, class_tiles, width, shared);
}

// The ranges in order, times the scale of the row.
extern "C" __global__ void __launch_bounds__(256) add_parts(
    const float* __restrict__ parts,  // [ranges, rows, d]
    const float* __restrict__ scale,
    float* __restrict__ dx,
    u32 n,  // rows * d
    u32 d,
    u32 ranges)
{
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float sum = 0.0f;
    for (u32 range = 0; range < ranges; range++) sum += parts[(u64)range * n + i];
    dx[i] = sum * scale[i / d];
}

template <u32 WIDTH, u32 GROUPS>
__device__ __forceinline__ void gradient_classes(
    const u8* classes, const u8* rows, const float* largest, float* dw, float* db, u32 count, u32 d, u32 row_tiles,
    u32 width, u8* shared)
{
    Tile<WIDTH>* stages = reinterpret_cast<Tile<WIDTH>*>(shared);
    Unit factors = unit_of(*largest);
    Owned<WIDTH, GROUPS> owned;
    u32 class_tiles = (count + ITEMS - 1) / ITEMS, lane = threadIdx.x % 32;
    u32 first = load_owned(owned, stages, reinterpret_cast<const Tile<WIDTH>*>(classes), 0, class_tiles);
    Gradients<WIDTH, GROUPS> gradients;
    const Tile<WIDTH>* tiles = reinterpret_cast<const Tile<WIDTH>*>(rows);
    u32 begin = blockIdx.y * width, end = min(begin + width, row_tiles);
    sum_gradients<false>(gradients, owned, stages, tiles, first, begin, end, factors.inverse);
    // Of several ranges each has a place of its own.
    bool adds = gridDim.y == 1;
    u64 range = (u64)blockIdx.y * count;
    for_each_sum(gradients, first, [&](u32 id, u32 column, float sum) {
        if (!dw || id >= count || column >= d) return;
        float* place = dw + (range + id) * d + column;
        *place = adds ? fmaf(sum, factors.unit, *place) : sum * factors.unit;
    });
#pragma unroll
    for (u32 s = 0; s < 2 * GROUPS; s++) {
        float sum = gradients.plain[s];
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        u32 id = first + 8 * s + lane / 4;
        if (db && lane % 4 == 0 && id < count) db[range + id] = adds ? db[id] + sum : sum;
    }
}

// Adds to the gradients of the weight and the bias, which may be absent. If there are several ranges of rows, `width` tiles
// each, their parts are written instead: [ranges, count, d] and [ranges, count].
extern "C" __global__ void __launch_bounds__(THREADS, 2) gradient_classes_64(
    const u8* __restrict__ classes,
    const u8* __restrict__ rows,
    const float* __restrict__ largest,  // of the factors of rows
    float* __restrict__ dw,             // [count, d]
    float* __restrict__ db,             // [count]
    u32 count,
    u32 d,
    u32 row_tiles,
    u32 width)
{
    SHARED_MEMORY(u8, shared);
    gradient_classes<64, 2>(classes, rows, largest, dw, db, count, d, row_tiles, width, shared);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) gradient_classes_128(
    const u8* __restrict__ classes,
    const u8* __restrict__ rows,
    const float* __restrict__ largest,
    float* __restrict__ dw,
    float* __restrict__ db,
    u32 count,
    u32 d,
    u32 row_tiles,
    u32 width)
{
    SHARED_MEMORY(u8, shared);
    gradient_classes<128, 1>(classes, rows, largest, dw, db, count, d, row_tiles, width, shared);
}

// Adds the parts of ranges in order to what is there.
extern "C" __global__ void __launch_bounds__(256) add_ranges(
    const float* __restrict__ parts,  // [ranges, n]
    float* __restrict__ sums,
    u64 n,
    u32 ranges)
{
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float sum = sums[i];
    for (u32 range = 0; range < ranges; range++) sum += parts[range * n + i];
    sums[i] = sum;
}
