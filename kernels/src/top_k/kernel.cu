// The best classes of every row by exact scores, without the scores in memory: see tiles.cuh.
//
// Scores above a row's bar, which are few soon, go to a list of the row in shared memory. When one is full, warps
// sort the full ones, look only there for what is excluded, and raise the bars. As keys are unique, what is left at the
// end does not depend on the order of anything.

#define CAPACITY 96

// What a block of `best` shares beside the stages.
struct Rows {
    Key keys[ROWS][CAPACITY];
    u32 count[ROWS];
    u32 kept[ROWS];
    float bar[ROWS];
    u32 full;

    __device__ __forceinline__ Collected at(u32 row) {
        return Collected{keys[row], &count[row], &kept[row], &bar[row]};
    }
};

// What rows must be below, and what they must not be.
struct Limits {
    const Key* bounds;  // [n], may be absent
    Excluded excluded;
    u32 wanted;
};

// Has warps keep the best of rows that are full, or of all.
__device__ __forceinline__ void keep_best_of(Rows& rows, const Limits& limits, u32 first_row, u32 n, bool all) {
#pragma unroll 1
    for (u32 i = threadIdx.x / 32; i < ROWS; i += THREADS / 32) {
        u32 row = first_row + i;
        if (row >= n || (!all && rows.count[i] <= CAPACITY)) continue;
        Key bound = limits.bounds ? limits.bounds[row] : ~(Key)0;
        keep_best<4>(rows.at(i), row, CAPACITY, limits.wanted, bound, limits.excluded);
    }
}

// Scores of a thread that are above the bars of their rows, bit 8 i + j for each. Of those that are as high as the bar the
// classes of earlier tiles go before, but not always those of the same tile, if some of it are on the list already.
__device__ __forceinline__ u64 above(const float (&scores)[8][8], const Rows& rows, const Place& place, bool or_as_high) {
    u64 found = 0;
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        float bar = rows.bar[place.row + 8 * i];
#pragma unroll
        for (u32 j = 0; j < 8; j++) {
            float score = comparable(scores[i][j]);
            if (!(score <= bar) || (or_as_high && score == bar)) found |= (u64)1 << (8 * i + j);
        }
    }
    return found;
}

// Puts the scores that are meant onto the lists of their rows; returns those for which there was no place.
__device__ __forceinline__ u64 collect(const float (&scores)[8][8], u64 meant, Rows& rows, const Place& place, u32 first) {
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        u32 row = place.row + 8 * i;
#pragma unroll
        for (u32 j = 0; j < 8; j++) {
            u64 bit = (u64)1 << (8 * i + j);
            if (!(meant & bit)) continue;
            u32 at = atomicAdd(&rows.count[row], 1);
            if (at >= CAPACITY) continue;
            rows.keys[row][at] = key_of(comparable(scores[i][j]), first + place.column + 16 * j);
            meant &= ~bit;
        }
    }
    return meant;
}

// Classes of a tile that are there, as bits of `above`.
__device__ __forceinline__ u64 inside(const Place& place, u32 first, u32 end) {
    u64 found = 0;
#pragma unroll
    for (u32 j = 0; j < 8; j++) {
        if (first + place.column + 16 * j < end) found |= 0x0101010101010101ull << j;
    }
    return found;
}

template <bool DEEP>
__device__ __forceinline__ void find_best(
    const Operands& o, const Limits& limits, Stage* stages, Rows& rows, Key* lists, u32 begin, u32 end)
{
    u32 first_row = blockIdx.x * ROWS;
    Place place = place_of_thread();
    for (u32 i = threadIdx.x; i < ROWS; i += THREADS) {
        rows.count[i] = rows.kept[i] = 0;
        // Everything is above NaN, as it is not at most NaN; nothing is above infinity.
        rows.bar[i] = first_row + i < o.n ? __uint_as_float(0x7fc00000u) : INFINITY;
    }
    if (threadIdx.x == 0) rows.full = 0;
    __syncthreads();
    for_each_tile<DEEP>(o, stages, first_row, begin, end, [&](u32 first, const float (&scores)[8][8]) {
        u64 left = above(scores, rows, place, false) & inside(place, first, end);
        while (true) {
            if (left) left = collect(scores, left, rows, place, first);
            if (left) rows.full = 1;
            __syncthreads();
            bool full = rows.full;
            if (!full) return;
            __syncthreads();
            if (threadIdx.x == 0) rows.full = 0;
            keep_best_of(rows, limits, first_row, o.n, false);
            __syncthreads();
            if (left) left &= above(scores, rows, place, true);
        }
    });
    keep_best_of(rows, limits, first_row, o.n, true);
    __syncthreads();
    lists += ((u64)blockIdx.y * o.n + first_row) * limits.wanted;
    for (u32 i = threadIdx.x; i < min((u32)ROWS, o.n - first_row) * limits.wanted; i += THREADS) {
        u32 row = i / limits.wanted, at = i % limits.wanted;
        lists[i] = at < rows.kept[row] ? rows.keys[row][at] : 0;
    }
}

// The best `wanted` classes of every row within each of the ranges of classes, `width` each from `first_class` on.
extern "C" __global__ void __launch_bounds__(THREADS, 2) best(
    const float* __restrict__ x,
    const float* __restrict__ weight,
    const float* __restrict__ bias,
    const u32* __restrict__ chosen,
    const u32* __restrict__ offsets,
    const u32* __restrict__ ids,
    const u64* __restrict__ bounds,
    u64* __restrict__ lists,  // [ranges, n, wanted]
    u32 n,
    u32 d,
    u32 first_class,
    u32 classes,
    u32 width,
    u32 wanted)
{
    SHARED_MEMORY(Rows, rows);
    SHARED_ARRAY(Stage, stages, [2]);
    u32 begin = first_class + blockIdx.y * width, end = min(begin + width, classes);
    Operands operands = {x, weight, bias, chosen, n, d};
    Limits limits = {bounds, {offsets, ids}, wanted};
    if (d <= DEPTH_BLOCK) {
        find_best<false>(operands, limits, stages, *rows, lists, begin, end);
    } else {
        find_best<true>(operands, limits, stages, *rows, lists, begin, end);
    }
}

// The best of several sorted lists: a warp for every row, a lane for every list, of which there are no more than 32.
extern "C" __global__ void __launch_bounds__(128) merge(
    const u64* __restrict__ lists,  // [ranges, n, wanted]
    u64* __restrict__ best,         // [n, stride], of which `wanted` from `first` on are written
    u64* __restrict__ bounds,       // [n]: the last of them
    u32 n,
    u32 ranges,
    u32 wanted,
    u32 stride,
    u32 first)
{
    u32 row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= n) return;
    lists += ((u64)lane * n + row) * wanted;
    u32 at = 0;
    Key mine = lane < ranges ? lists[0] : 0, top = 0;
    for (u32 i = 0; i < wanted; i++) {
        top = mine;
        for (int offset = 16; offset > 0; offset >>= 1) top = better_of(top, __shfl_xor_sync(0xffffffffu, top, offset));
        if (lane == 0) best[(u64)row * stride + first + i] = top;
        if (top > 0 && mine == top) mine = ++at < wanted ? lists[at] : 0;
    }
    if (lane == 0) bounds[row] = top;
}
