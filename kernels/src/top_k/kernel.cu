// The best classes of every row by exact scores, and the place of a given class, without the scores in memory.
//
// Tiles: a block has 64 rows and goes through a range of classes, 128 at a time, 16 steps of depth at a time: 15 KiB in
// shared memory, the next part on its way while one is multiplied. A thread has 8 x 8 scores in registers and reads 16
// times 16 bytes of shared memory for 256 multiply-adds; rows of 20 floats put what a quarter of a warp reads into
// different banks, and lanes that differ in one bit only read the same, which halves the reads. The products decide: 64
// multiply-adds a score at a width of 64, against 3 operations for the comparison. Of every tile 128 rows of W and 64 of x
// come from the cache or from memory: 48 KiB for half a million multiply-adds.
//
// Best: scores above a row's bar, which are few soon, go to a list of the row in shared memory. When one is full, warps
// sort the full ones, look only there for what is excluded, and raise the bars. As keys are unique, what is left at the
// end does not depend on the order of anything.

#define ROWS 64
#define CLASSES 128
#define DEPTH 16
#define STRIDE 20
#define THREADS 128
#define CAPACITY 96
#define MOST_WANTED 64

struct Operands {
    const float* x;       // [.., d]
    const float* weight;  // [classes, d]
    const float* bias;    // [classes], may be absent
    const u32* rows;      // [n]: which rows of x are meant; may be absent
    u32 n, d;
};

struct Stage {
    float x[ROWS][STRIDE];
    float weight[CLASSES][STRIDE];
};

// A part of a row: four elements, of which those beyond the end are zeros. Rows that are not there are zeros, too.
__device__ __forceinline__ void copy_quad(float* to, const float* row, u32 at, u32 d, bool there) {
    if (d % 4 == 0) {
        bool inside = there && at < d;
        cp_async_16_zfill(to, inside ? row + at : row, inside ? 16 : 0);
        return;
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) to[i] = there && at + i < d ? row[at + i] : 0.0f;
}

__device__ __forceinline__ void copy_stage(Stage& stage, const Operands& o, u32 first_row, u32 first, u32 end, u32 depth) {
    u32 quad = threadIdx.x % (DEPTH / 4) * 4, at = threadIdx.x / (DEPTH / 4);
#pragma unroll
    for (u32 i = at; i < ROWS; i += THREADS / (DEPTH / 4)) {
        u32 row = first_row + i;
        bool there = row < o.n;
        u32 place = !there ? 0 : o.rows ? o.rows[row] : row;
        copy_quad(&stage.x[i][quad], o.x + (u64)place * o.d, depth + quad, o.d, there);
    }
#pragma unroll
    for (u32 i = at; i < CLASSES; i += THREADS / (DEPTH / 4)) {
        bool there = first + i < end;
        copy_quad(&stage.weight[i][quad], o.weight + (u64)(there ? first + i : 0) * o.d, depth + quad, o.d, there);
    }
}

// The rows and classes of a thread within a tile: row + 8 i and column + 16 j.
struct Place {
    u32 row, column;
};

__device__ __forceinline__ Place place_of_thread() {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Place place;
    place.row = (lane & 1) + (lane >> 4) * 2 + (warp & 1) * 4;
    place.column = (lane >> 1 & 7) + (warp >> 1) * 8;
    return place;
}

__device__ __forceinline__ void multiply(float (&sums)[8][8], const Stage& stage, const Place& place) {
#pragma unroll
    for (u32 depth = 0; depth < DEPTH; depth += 4) {
        float4 w[8];
#pragma unroll
        for (u32 j = 0; j < 8; j++) w[j] = *reinterpret_cast<const float4*>(&stage.weight[place.column + 16 * j][depth]);
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            float4 x = *reinterpret_cast<const float4*>(&stage.x[place.row + 8 * i][depth]);
#pragma unroll
            for (u32 j = 0; j < 8; j++) sums[i][j] = fmaf(x.x, w[j].x, sums[i][j]);
#pragma unroll
            for (u32 j = 0; j < 8; j++) sums[i][j] = fmaf(x.y, w[j].y, sums[i][j]);
#pragma unroll
            for (u32 j = 0; j < 8; j++) sums[i][j] = fmaf(x.z, w[j].z, sums[i][j]);
#pragma unroll
            for (u32 j = 0; j < 8; j++) sums[i][j] = fmaf(x.w, w[j].w, sums[i][j]);
        }
    }
}

// Adds a block of depth to what there is: the bias, for the first.
__device__ __forceinline__ void add_block(
    float (&totals)[8][8], float (&sums)[8][8], const float* bias, u32 first, u32 end, const Place& place, bool begins)
{
#pragma unroll
    for (u32 j = 0; j < 8; j++) {
        u32 id = first + place.column + 16 * j;
        float b = begins && bias && id < end ? bias[id] : 0.0f;
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            float onto = begins ? b : totals[i][j];
            totals[i][j] = begins && !bias ? sums[i][j] : sums[i][j] + onto;
            sums[i][j] = 0.0f;
        }
    }
}

// f(first class, scores) for every tile of the classes from `begin` to `end`. DEEP is for more than a block of depth, which
// takes a second register for every score.
template <bool DEEP, typename F>
__device__ __forceinline__ void for_each_tile(const Operands& o, Stage* stages, u32 first_row, u32 begin, u32 end, F f) {
    Place place = place_of_thread();
    u32 parts = (o.d + DEPTH - 1) / DEPTH, steps = (end - begin + CLASSES - 1) / CLASSES * parts;
    float sums[8][8] = {}, totals[8][8];
    copy_stage(stages[0], o, first_row, begin, end, 0);
    cp_async_commit();
    u32 first = begin, part = 0;
    for (u32 step = 0; step < steps; step++) {
        cp_async_wait<0>();
        __syncthreads();
        bool last = part + 1 == parts;
        u32 next_first = last ? first + CLASSES : first, next_part = last ? 0 : part + 1;
        if (step + 1 < steps) copy_stage(stages[(step + 1) % 2], o, first_row, next_first, end, next_part * DEPTH);
        cp_async_commit();
        multiply(sums, stages[step % 2], place);
        if (last || (DEEP && (part + 1) % (DEPTH_BLOCK / DEPTH) == 0)) {
            add_block(totals, sums, o.bias, first, end, place, !DEEP || part < DEPTH_BLOCK / DEPTH);
        }
        if (last) f(first, totals);
        first = next_first, part = next_part;
    }
}

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

// The scores of the targets, and ranks as far as they are known from them: 1 less the classes that are excluded and better.
// A warp for every row, whose lanes take an excluded class each.
extern "C" __global__ void __launch_bounds__(128) begin_ranks(
    const float* __restrict__ x,
    const float* __restrict__ weight,
    const float* __restrict__ bias,
    const u32* __restrict__ offsets,
    const u32* __restrict__ ids,
    const u32* __restrict__ targets,
    float* __restrict__ goals,
    u32* __restrict__ ranks,
    u32 n,
    u32 d,
    u32 first_class,
    u32 classes)
{
    u32 row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= n) return;
    x += (u64)row * d;
    auto score = [&](u32 id) { return comparable(exact_score(x, weight + (u64)id * d, bias ? bias + id : nullptr, d)); };
    float goal = score(targets[row]);
    Key key = key_of(goal, targets[row]);
    u32 begin = offsets[row], end = offsets[row + 1], better = 0;
    for (u32 i = begin; i < end; i += 32) {
        u32 at = i + lane;
        u32 id = at < end ? ids[at] : classes;
        bool counts = id >= first_class && id < classes && (at == begin || ids[at - 1] != id);
        better += __popc(__ballot_sync(0xffffffffu, counts && key_of(score(id), id) > key));
    }
    if (lane == 0) {
        goals[row] = goal;
        ranks[row] = 1 - better;
    }
}

template <bool DEEP>
__device__ __forceinline__ void count_better(
    const Operands& o, Stage* stages, u32* counts, const float* goals, const u32* targets, u32* ranks, u32 begin, u32 end)
{
    u32 first_row = blockIdx.x * ROWS;
    Place place = place_of_thread();
    float goal[8];
    u32 target[8], better[8];
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        u32 row = first_row + place.row + 8 * i;
        goal[i] = row < o.n ? goals[row] : INFINITY;
        target[i] = row < o.n ? targets[row] : 0;
        better[i] = 0;
    }
    for (u32 i = threadIdx.x; i < ROWS; i += THREADS) counts[i] = 0;
    for_each_tile<DEEP>(o, stages, first_row, begin, end, [&](u32 first, const float (&scores)[8][8]) {
#pragma unroll
        for (u32 j = 0; j < 8; j++) {
            u32 id = first + place.column + 16 * j;
            if (id >= end) continue;
#pragma unroll
            for (u32 i = 0; i < 8; i++) {
                float score = comparable(scores[i][j]);
                better[i] += score > goal[i] || (score == goal[i] && id < target[i]) ? 1 : 0;
            }
        }
    });
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < 8; i++) atomicAdd(&counts[place.row + 8 * i], better[i]);
    __syncthreads();
    for (u32 i = threadIdx.x; i < min((u32)ROWS, o.n - first_row); i += THREADS) atomicAdd(&ranks[first_row + i], counts[i]);
}

// Adds the classes that are better than the target, excluded or not, within each of the ranges of classes.
extern "C" __global__ void __launch_bounds__(THREADS, 2) add_better(
    const float* __restrict__ x,
    const float* __restrict__ weight,
    const float* __restrict__ bias,
    const u32* __restrict__ targets,
    const float* __restrict__ goals,
    u32* __restrict__ ranks,
    u32 n,
    u32 d,
    u32 first_class,
    u32 classes,
    u32 width)
{
    SHARED_ARRAY(u32, counts, [ROWS]);
    SHARED_ARRAY(Stage, stages, [2]);
    u32 begin = first_class + blockIdx.y * width, end = min(begin + width, classes);
    Operands operands = {x, weight, bias, nullptr, n, d};
    if (d <= DEPTH_BLOCK) {
        count_better<false>(operands, stages, counts, goals, targets, ranks, begin, end);
    } else {
        count_better<true>(operands, stages, counts, goals, targets, ranks, begin, end);
    }
}
