// Packs operands, and finds the softmax of every row: see halves.cuh.

// Packs 64 items, a warp for every eighth. What is beyond the end cannot be: its logits are minus infinity.
extern "C" __global__ void __launch_bounds__(256) pack(
    const float* __restrict__ values,   // [n, d]
    const float* __restrict__ offsets,  // [n], may be absent
    const float* __restrict__ scales,   // [n], may be absent
    const u32* __restrict__ keys,       // [n], may be absent
    u8* __restrict__ packed,
    u32* __restrict__ largest,  // the largest finite factor, as bits
    u32 n,
    u32 d,
    u32 width)
{
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, most = 0;
    u32* high = reinterpret_cast<u32*>(packed) + (u64)blockIdx.x * ITEMS * (width + 5);
    u32 *low = high + ITEMS * (width / 2), *numbers = low + ITEMS * (width / 2);
    for (u32 item = warp; item < ITEMS; item += 8) {
        u64 at = (u64)blockIdx.x * ITEMS + item;
        bool there = at < n;
        float v[4];
        float size = 0.0f;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 column = 2 * lane + i % 2 + i / 2 * 64;
            v[i] = there && column < d ? values[at * d + column] : 0.0f;
            size = fmaxf(size, size_if_finite(v[i]));
        }
        Unit unit = unit_of(warp_max(size));
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            u32 pair = lane + 32 * i;
            if (pair >= width / 2) continue;
            u32 place = item * (width / 2) + 4 * (pair / 4 ^ (item % 8)) + pair % 4;
            split(v[2 * i] * unit.inverse, v[2 * i + 1] * unit.inverse, high[place], low[place]);
        }
        float scale = !there ? 0.0f : scales ? scales[at] : 1.0f;
        float offset = !there ? -INFINITY : offsets ? offsets[at] * LOG2_E : 0.0f;
        u32 key = !there ? ~0u : keys ? keys[at] : (u32)at;
        float factor = unit.unit * scale;
        most = max(most, __float_as_uint(size_if_finite(factor)));
        if (lane > 0) continue;
        numbers[item] = __float_as_uint(unit.unit);
        numbers[item + ITEMS] = __float_as_uint(offset);
        numbers[item + 2 * ITEMS] = __float_as_uint(factor);
        numbers[item + 3 * ITEMS] = __float_as_uint(scale);
        numbers[item + 4 * ITEMS] = key;
    }
    // Few warps have more than was there, and others need not wait.
    if (lane == 0 && most > *largest) atomicMax(largest, most);
}

// The sum of exponentials of a row so far is sum * 2^max.
struct Softmax {
    float max, sum;
};

// What powers can be relative to: the maximum, but for rows that hold nothing but minus infinity.
__device__ __forceinline__ float pivot(float max) {
    return max == -INFINITY ? 0.0f : max;
}

__device__ __forceinline__ Softmax merged(Softmax a, Softmax b) {
    Softmax both;
    both.max = fmaxf(a.max, b.max);
    float relative = pivot(both.max);
    both.sum = a.sum * power_of_two(a.max - relative) + b.sum * power_of_two(b.max - relative);
    return both;
}

template <u32 WIDTH, u32 GROUPS>
__device__ __forceinline__ void normalise(
    const u8* rows, const u8* classes, float2* parts, float* label_logits, u32 n, u32 class_tiles, u32 width, u8* shared)
{
    Tile<WIDTH>* stages = reinterpret_cast<Tile<WIDTH>*>(shared);
    u32 lane = threadIdx.x % 32, begin = blockIdx.y * width, end = min(begin + width, class_tiles);
    Owned<WIDTH, GROUPS> owned;
    u32 row_tiles = (n + ITEMS - 1) / ITEMS;
    u32 first = load_owned(owned, stages, reinterpret_cast<const Tile<WIDTH>*>(rows), 0, row_tiles);
    Softmax softmax[2 * GROUPS];
#pragma unroll
    for (u32 s = 0; s < 2 * GROUPS; s++) softmax[s] = {-INFINITY, 0.0f};
    for_each_tile(stages, reinterpret_cast<const Tile<WIDTH>*>(classes), begin, end, [&](const Tile<WIDTH>& tile) {
        bool labelled = any_label<true>(owned, tile, first);
#pragma unroll 1
        for (u32 at = 0; at < ITEMS; at += 16) {
            float logits[2][GROUPS][4];
            multiply<true>(logits, owned, tile, at);
#pragma unroll
            for (u32 j = 0; j < 2; j++) {
                u32 item = at + 8 * j + lane % 4 * 2;
                float2 unit = pair_at(tile.unit, item), offset = pair_at(tile.offset, item);
#pragma unroll
                for (u32 i = 0; i < 4 * GROUPS; i++) {
                    float& logit = logits[j][i / 4][i % 4];
                    logit = fmaf(logit, owned.unit[i / 2] * (i % 2 ? unit.y : unit.x), i % 2 ? offset.y : offset.x);
                }
            }
            if (labelled) {
#pragma unroll
                for (u32 i = 0; i < 8 * GROUPS; i++) {
                    u32 j = i / (4 * GROUPS), slot = i / 2 % (2 * GROUPS), row = first + 8 * slot + lane / 4;
                    bool is_label = owned.key[slot] == tile.key[at + 8 * j + lane % 4 * 2 + i % 2];
                    if (is_label && row < n) label_logits[row] = logits[j][i / 4 % GROUPS][i % 4];
                }
            }
#pragma unroll
            for (u32 s = 0; s < 2 * GROUPS; s++) {
                const float* pairs[2] = {&logits[0][s / 2][s % 2 * 2], &logits[1][s / 2][s % 2 * 2]};
                float top = fmaxf(fmaxf(pairs[0][0], pairs[0][1]), fmaxf(pairs[1][0], pairs[1][1]));
                top = fmaxf(softmax[s].max, top);
                float relative = pivot(top), sum = power_of_two(pairs[0][0] - relative);
                sum += power_of_two(pairs[0][1] - relative);
                sum += power_of_two(pairs[1][0] - relative);
                sum += power_of_two(pairs[1][1] - relative);
                sum = fmaf(softmax[s].sum, power_of_two(softmax[s].max - relative), sum);
                softmax[s] = {top, sum};
            }
        }
    });
#pragma unroll
    for (u32 s = 0; s < 2 * GROUPS; s++) {
#pragma unroll
        for (u32 offset = 1; offset < 4; offset *= 2) {
            Softmax other;
            other.max = __shfl_xor_sync(ALL_LANES, softmax[s].max, offset);
            other.sum = __shfl_xor_sync(ALL_LANES, softmax[s].sum, offset);
            softmax[s] = lane & offset ? merged(other, softmax[s]) : merged(softmax[s], other);
        }
        u32 row = first + 8 * s + lane / 4;
        if (lane % 4 == 0 && row < n) parts[(u64)blockIdx.y * n + row] = make_float2(softmax[s].max, softmax[s].sum);
    }
}

// The softmax of every row over each of the ranges of classes, `width` tiles each, and the logits of labels.
extern "C" __global__ void __launch_bounds__(THREADS, 3) normalise_64(
    const u8* __restrict__ rows,
    const u8* __restrict__ classes,
    float2* __restrict__ parts,        // [ranges, n]
    float* __restrict__ label_logits,  // [n]
    u32 n,
    u32 class_tiles,
    u32 width)
{
    SHARED_MEMORY(u8, shared);
    normalise<64, 2>(rows, classes, parts, label_logits, n, class_tiles, width, shared);
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) normalise_128(
    const u8* __restrict__ rows,
    const u8* __restrict__ classes,
    float2* __restrict__ parts,
    float* __restrict__ label_logits,
    u32 n,
    u32 class_tiles,
    u32 width)
{
    SHARED_MEMORY(u8, shared);
    normalise<128, 1>(rows, classes, parts, label_logits, n, class_tiles, width, shared);
}

// The ranges in order, a warp for every row, whose lanes have one or two each; the loss. What the logits of a row are
// relative to is written to its place among the packed.
extern "C" __global__ void __launch_bounds__(128) finish(
    const float2* __restrict__ parts,  // [ranges, n], no more than 64 ranges
    const float* __restrict__ label_logits,
    u8* __restrict__ rows,
    float* __restrict__ losses,
    u32 n,
    u32 ranges,
    u32 width)
{
    u32 row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= n) return;
    Softmax all = {-INFINITY, 0.0f};
    for (u32 i = lane; i < ranges; i += 32) {
        float2 part = parts[(u64)i * n + row];
        all = merged(all, Softmax{part.x, part.y});
    }
    for (u32 offset = 1; offset < 32; offset *= 2) {
        Softmax other;
        other.max = __shfl_xor_sync(ALL_LANES, all.max, offset);
        other.sum = __shfl_xor_sync(ALL_LANES, all.sum, offset);
        all = lane & offset ? merged(other, all) : merged(all, other);
    }
    if (lane > 0) return;
    // A loss is small where the label's logit is about the maximum, which both are taken from first.
    float sum = log2f(all.sum);
    losses[row] = (all.max - label_logits[row] + sum) * LN_2;
    float* numbers = reinterpret_cast<float*>(rows) + ((u64)(row / ITEMS) * (width + 5) + width + 1) * ITEMS;
    numbers[row % ITEMS] = -(all.max + sum);
}
