// The places of given classes among all by exact scores: see tiles.cuh.

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
