// The best classes of every row by rough scores, which tensor cores make of half-precision numbers, and the proof that the
// best by exact scores are among them.
//
// Packed: 64 rows or classes are one run of memory, 128 or 256 bytes each and their biases. In a row the 16 bytes at c lie
// at c ^ (row % 8), so that what ldmatrix reads at a time lies in different banks; a tile is copied as it is.
//
// scan: a warp keeps 32 rows in registers, 4 to 12 warps of a block share a stream of classes, 192 at a time with the next
// 192 on their way. For 32 rows x 32 classes: 32 mma of depth 16, 8 ldmatrix, and for every score half a move for the bias,
// half a maximum and half a comparison with the bar of its row. With 12 warps a class is read from the cache once for 384
// rows: 132 bytes for 24,576 multiply-adds. Scores above the bar go to the row's list; a full list is sorted by its warp,
// which looks up there whether a class is excluded. The bars begin with what a sample of the classes has shown.
//
// rescore: a warp for every row, a lane for every candidate; |w| and what rounding took from it, at most, and the same of
// the row bound how far rough and exact scores can be apart. If even so no class that is not a candidate can be among the
// best k, the row is done.

#define ITEMS 64
#define STAGE_TILES 3
#define CAPACITY 48
#define ROWS_OF_WARP 32
#define MOST_WARPS 12       // of rows of up to 64 elements
#define MOST_WIDE_WARPS 8   // of wider ones
#define ALL_LANES 0xffffffffu

template <u32 WIDTH>
struct Tile {
    u32 values[ITEMS][WIDTH / 2];
    float bias[ITEMS];
};

template <u32 WIDTH>
__device__ __forceinline__ const void* chunk(const Tile<WIDTH>& tile, u32 item, u32 at) {
    return &tile.values[item][4 * (at ^ (item % 8))];
}

// Rounds and packs 64 items, a warp for every eighth. Items before `first` and beyond `n` are none: nothing is below their
// bias. Keeps the norms of items and of what rounding took from them or, of many items, the largest of these and of biases;
// as bits, which for numbers that are not negative have the order of the numbers, and NaN is the largest.
extern "C" __global__ void __launch_bounds__(256) pack(
    const float* __restrict__ values,  // [n, d]
    const float* __restrict__ bias,    // [n], may be absent
    u8* __restrict__ packed,
    u32* __restrict__ norms,    // [n, 2], may be absent
    u32* __restrict__ largest,  // [3], may be absent
    u32 first,
    u32 n,
    u32 d,
    u32 width)
{
    SHARED_ARRAY(u32, most, [8][3]);
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32* tile = reinterpret_cast<u32*>(packed) + (u64)blockIdx.x * ITEMS * (width / 2 + 1);
    u32 mine[3] = {0, 0, 0};
    for (u32 item = warp; item < ITEMS; item += 8) {
        u64 at = (u64)blockIdx.x * ITEMS + item;
        bool there = at >= first && at < n;
        float squares = 0.0f, lost = 0.0f;
        for (u32 pair = lane; pair < width / 2; pair += 32) {
            float2 v;
            v.x = there && 2 * pair < d ? values[at * d + 2 * pair] : 0.0f;
            v.y = there && 2 * pair + 1 < d ? values[at * d + 2 * pair + 1] : 0.0f;
            u32 rounded = f16_pair(v.x, v.y);
            float2 left = f16_values(rounded);
            left.x = v.x - left.x, left.y = v.y - left.y;
            squares = fmaf(v.x, v.x, fmaf(v.y, v.y, squares));
            lost = fmaf(left.x, left.x, fmaf(left.y, left.y, lost));
            tile[item * (width / 2) + 4 * (pair / 4 ^ (item % 8)) + pair % 4] = rounded;
        }
        // Squares of the least numbers vanish: the bound must not.
        u32 norm = __float_as_uint(sqrtf(warp_sum(squares) + 1e-36f));
        u32 error = __float_as_uint(sqrtf(warp_sum(lost) + 1e-36f));
        float b = there ? (bias ? bias[at] : 0.0f) : -INFINITY;
        float size = fabsf(b) < INFINITY ? fabsf(b) : 0.0f;
        if (lane == 0) reinterpret_cast<float*>(tile)[ITEMS * (width / 2) + item] = b;
        if (lane == 0 && there && norms) norms[2 * at] = norm, norms[2 * at + 1] = error;
        mine[0] = max(mine[0], norm), mine[1] = max(mine[1], error), mine[2] = max(mine[2], __float_as_uint(size));
    }
    if (lane < 3) most[warp][lane] = lane == 0 ? mine[0] : lane == 1 ? mine[1] : mine[2];
    __syncthreads();
    if (threadIdx.x >= 3 || !largest) return;
    u32 all = 0;
    for (u32 i = 0; i < 8; i++) all = max(all, most[i][threadIdx.x]);
    // Few blocks have more than was there, and others need not wait.
    if (all > largest[threadIdx.x]) atomicMax(&largest[threadIdx.x], all);
}

// What a block shares: of every row a list, and of the classes two stages.
struct Lists {
    Key* keys;
    u32* count;
    u32* kept;
    float* bar;

    __device__ __forceinline__ Lists(u8* shared, u32 rows) {
        keys = reinterpret_cast<Key*>(shared);
        count = reinterpret_cast<u32*>(keys + CAPACITY * rows);
        kept = count + rows;
        bar = reinterpret_cast<float*>(kept + rows);
    }

    __device__ __forceinline__ Collected at(u32 row) const {
        return Collected{keys + CAPACITY * row, count + row, kept + row, bar + row};
    }
};

// Begins to copy some tiles as they lie in memory.
template <u32 WIDTH>
__device__ __forceinline__ void copy_tiles(Tile<WIDTH>* to, const Tile<WIDTH>* from, u32 tiles) {
    for (u32 i = threadIdx.x; i < tiles * (sizeof(Tile<WIDTH>) / 16); i += blockDim.x) {
        cp_async_16(reinterpret_cast<u8*>(to) + 16 * i, reinterpret_cast<const u8*>(from) + (u64)16 * i);
    }
}

// The fragments of a warp's 32 rows.
template <u32 WIDTH>
struct Fragments {
    u32 a[2][WIDTH / 16][4];

    __device__ __forceinline__ void load(const Tile<WIDTH>* tiles) {
        u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
        for (u32 g = 0; g < 2; g++) {
#pragma unroll
            for (u32 k = 0; k < WIDTH / 16; k++) {
                u32 item = warp % 2 * 32 + 16 * g + lane % 16;
                ldmatrix_x4(a[g][k], chunk(tiles[warp / 2], item, 2 * k + lane / 16));
            }
        }
    }
};

// Scores of 32 rows and 32 classes of a tile: element e of a fragment's group g is that of row 16 g + lane / 4 + 8 (e / 2)
// and class 8 j + 2 (lane % 4) + e % 2.
template <u32 WIDTH>
__device__ __forceinline__ void multiply(
    float (&scores)[4][2][4], const Fragments<WIDTH>& rows, const Tile<WIDTH>& tile, u32 first)
{
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        float2 bias = *reinterpret_cast<const float2*>(&tile.bias[first + 8 * j + lane % 4 * 2]);
#pragma unroll
        for (u32 g = 0; g < 2; g++) {
            scores[j][g][0] = scores[j][g][2] = bias.x;
            scores[j][g][1] = scores[j][g][3] = bias.y;
        }
    }
#pragma unroll
    for (u32 k = 0; k < WIDTH / 32; k++) {
        u32 b[4][4];
#pragma unroll
        for (u32 j = 0; j < 4; j++) ldmatrix_x4(b[j], chunk(tile, first + 8 * j + lane % 8, 4 * k + lane / 8));
#pragma unroll
        for (u32 s = 0; s < 2; s++) {
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                u32 half[2] = {b[j][2 * s], b[j][2 * s + 1]};
#pragma unroll
                for (u32 g = 0; g < 2; g++) mma_f16_16x8x16(scores[j][g], rows.a[g][2 * k + s], half);
            }
        }
    }
}

// The bars of the rows of which a thread has scores.
struct Bars {
    float of[4];

    __device__ __forceinline__ void load(const float* bar) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) of[i] = bar[threadIdx.x % 32 / 4 + 8 * i];
    }
};

// Whether any of the scores is above its bar.
__device__ __forceinline__ bool any_above(const float (&scores)[4][2][4], const Bars& bars) {
    bool found = false;
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
#pragma unroll
        for (u32 g = 0; g < 2; g++) {
            found |= fmaxf(scores[j][g][0], scores[j][g][1]) > bars.of[2 * g];
            found |= fmaxf(scores[j][g][2], scores[j][g][3]) > bars.of[2 * g + 1];
        }
    }
    return found;
}

// Which are, bit 8 j + 4 g + e for each. When some are on the list already, the others may be as high as the bar.
__device__ __forceinline__ u32 above(const float (&scores)[4][2][4], const Bars& bars, bool or_as_high) {
    u32 found = 0;
#pragma unroll
    for (u32 i = 0; i < 32; i++) {
        float score = scores[i / 8][i / 4 % 2][i % 4], bar = bars.of[i / 2 % 4];
        if (score > bar || (or_as_high && score == bar)) found |= 1u << i;
    }
    return found;
}

// What a warp searches for.
struct Search {
    Lists lists;  // those of the warp's rows
    u32 first_row;
    u32 wanted;
    Excluded excluded;

    // Keeps the best of the rows whose bits are set.
    __device__ __forceinline__ void keep(u32 rows) {
#pragma unroll 1
        for (; rows; rows &= rows - 1) {
            u32 row = __ffs(rows) - 1;
            keep_best<2>(lists.at(row), first_row + row, CAPACITY, wanted, ~(Key)0, excluded);
        }
    }

    // Collects the scores above the bars. By a whole warp.
    __device__ __forceinline__ void collect(const float (&scores)[4][2][4], Bars& bars, u32 first) {
        u32 lane = threadIdx.x % 32, left = above(scores, bars, false);
        while (true) {
#pragma unroll
            for (u32 i = 0; i < 32; i++) {
                if (!(left >> i & 1)) continue;
                u32 row = lane / 4 + 8 * (i / 2 % 4);
                u32 at = atomicAdd(&lists.count[row], 1);
                if (at >= CAPACITY) continue;
                u32 id = first + 8 * (i / 8) + lane % 4 * 2 + i % 2;
                lists.at(row).keys[at] = key_of(comparable(scores[i / 8][i / 4 % 2][i % 4]), id);
                left &= ~(1u << i);
            }
            __syncwarp();
            u32 full = __ballot_sync(ALL_LANES, lists.count[lane] > CAPACITY);
            if (!full) return;
            keep(full);
            bars.load(lists.bar);
            left &= above(scores, bars, true);
        }
    }
};

template <u32 WIDTH>
__device__ __forceinline__ void scan(
    const u8* packed_rows, const u8* packed_classes, Excluded excluded, const Key* seeds, Key* best, u32 n, u32 begin,
    u32 end, u32 wanted, u8* shared)
{
    const Tile<WIDTH>* rows = reinterpret_cast<const Tile<WIDTH>*>(packed_rows);
    const Tile<WIDTH>* classes = reinterpret_cast<const Tile<WIDTH>*>(packed_classes);
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, block_rows = blockDim.x;
    Lists all(shared, block_rows);
    Tile<WIDTH>* stages = reinterpret_cast<Tile<WIDTH>*>(all.bar + block_rows);
    Search search = {all, blockIdx.x * block_rows + warp * ROWS_OF_WARP, wanted, excluded};
    search.lists.keys += CAPACITY * warp * ROWS_OF_WARP;
    search.lists.count += warp * ROWS_OF_WARP;
    search.lists.kept += warp * ROWS_OF_WARP;
    search.lists.bar += warp * ROWS_OF_WARP;
    u32 row = search.first_row + lane;
    search.lists.count[lane] = search.lists.kept[lane] = 0;
    Key seed = seeds && row < n ? seeds[row] : 0;
    search.lists.bar[lane] = row >= n ? INFINITY : seed ? score_of(seed) : -INFINITY;

    // The rows pass through the stages: six tiles are those of twelve warps.
    copy_tiles(stages, rows + (u64)blockIdx.x * (block_rows / ITEMS), block_rows / ITEMS);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    Fragments<WIDTH> fragments;
    fragments.load(stages);
    Bars bars;
    bars.load(search.lists.bar);
    __syncthreads();

    if (begin < end) copy_tiles(stages, classes + begin, min(end - begin, (u32)STAGE_TILES));
    cp_async_commit();
    for (u32 first = begin, stage = 0; first < end; first += STAGE_TILES, stage ^= 1) {
        cp_async_wait<0>();
        __syncthreads();
        u32 next = first + STAGE_TILES;
        if (next < end) copy_tiles(stages + (stage ^ 1) * STAGE_TILES, classes + next, min(end - next, (u32)STAGE_TILES));
        cp_async_commit();
        for (u32 i = 0; i < min(end - first, (u32)STAGE_TILES); i++) {
#pragma unroll 1
            for (u32 half = 0; half < ITEMS; half += 32) {
                float scores[4][2][4];
                multiply(scores, fragments, stages[stage * STAGE_TILES + i], half);
                if (!__any_sync(ALL_LANES, any_above(scores, bars))) continue;
                search.collect(scores, bars, (first + i) * ITEMS + half);
            }
        }
    }
    __syncwarp();
    u32 present = search.first_row < n ? min(n - search.first_row, (u32)ROWS_OF_WARP) : 0;
    search.keep(present == 32 ? ALL_LANES : (1u << present) - 1);
    best += ((u64)blockIdx.y * n + search.first_row) * wanted;
    for (u32 i = lane; i < present * wanted; i += 32) {
        Collected list = search.lists.at(i / wanted);
        best[i] = i % wanted < *list.kept ? list.keys[i % wanted] : 0;
    }
}

// The best `wanted` classes of every row within each of the ranges of tiles, `width` each from `first` on.
extern "C" __global__ void __launch_bounds__(32 * MOST_WARPS, 1) scan_64(
    const u8* __restrict__ rows,
    const u8* __restrict__ classes,
    const u32* __restrict__ offsets,
    const u32* __restrict__ ids,
    const u64* __restrict__ seeds,  // [n], may be absent
    u64* __restrict__ best,         // [ranges, n, wanted]
    u32 n,
    u32 first,
    u32 end,
    u32 width,
    u32 wanted)
{
    SHARED_MEMORY(u8, shared);
    u32 begin = first + blockIdx.y * width;
    scan<64>(rows, classes, {offsets, ids}, seeds, best, n, begin, min(begin + width, end), wanted, shared);
}

extern "C" __global__ void __launch_bounds__(32 * MOST_WIDE_WARPS, 1) scan_128(
    const u8* __restrict__ rows,
    const u8* __restrict__ classes,
    const u32* __restrict__ offsets,
    const u32* __restrict__ ids,
    const u64* __restrict__ seeds,
    u64* __restrict__ best,
    u32 n,
    u32 first,
    u32 end,
    u32 width,
    u32 wanted)
{
    SHARED_MEMORY(u8, shared);
    u32 begin = first + blockIdx.y * width;
    scan<128>(rows, classes, {offsets, ids}, seeds, best, n, begin, min(begin + width, end), wanted, shared);
}

// Exact scores of the candidates, of which there are no more than 32, the best k of them, and whether that is proven.
extern "C" __global__ void __launch_bounds__(128) rescore(
    const float* __restrict__ x,
    const float* __restrict__ weight,
    const float* __restrict__ bias,
    const u64* __restrict__ candidates,  // [n, wanted], by rough scores, best first
    const float* __restrict__ norms,     // [n, 2]
    const float* __restrict__ largest,   // [3]
    u64* __restrict__ best,              // [n, k]
    u32* __restrict__ proven,            // [n]
    u32 n,
    u32 d,
    u32 width,
    u32 wanted,
    u32 k)
{
    u32 row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= n) return;
    Key rough = lane < wanted ? candidates[(u64)row * wanted + lane] : 0;
    Key exact[1] = {0};
    if (rough) {
        u32 id = id_of(rough);
        const float* w = weight + (u64)id * d;
        exact[0] = key_of(comparable(exact_score(x + (u64)row * d, w, bias ? bias + id : nullptr, d)), id);
    }
    sort_keys(exact);
    if (lane < k) best[(u64)row * k + lane] = exact[0];
    Key last = __shfl_sync(ALL_LANES, rough, wanted - 1), worst = __shfl_sync(ALL_LANES, exact[0], k - 1);
    // x w - x' w' = (x - x') w + x' (w - w'), and x' is no longer than x and what it lost. Both are sums of at most `width`
    // products, each of which loses no more than 2^-21 of what is summed, in whichever order. The norms are rounded as well.
    float norm = norms[2 * row], lost = norms[2 * row + 1];
    float size = (norm + lost) * (largest[0] + largest[1]);
    float apart = 1.001f * (lost * largest[0] + (norm + lost) * largest[1]) + (float)width * 0x1p-21f * (size + largest[2]);
    // If a range of classes had fewer candidates than are wanted, something is odd, and so it is if a number is not finite.
    bool enough = last > 0 && score_of(last) + apart + 1e-30f < score_of(worst);
    if (lane == 0) proven[row] = enough ? 1 : 0;
}
