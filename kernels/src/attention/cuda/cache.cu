// A decoder's step: attention of one new row for every sequence over the rows that its cache holds, after
// flash-decoding (Dao, Haziza, Massa and Sizov, 2023).
//
// Threads: a block of 4 warps for one sequence, one query head (or four that read the same keys) and 256 rows of the
// cache. As many neighbouring lanes as a head has eights of features take a row, 16 bytes each (two times 16 of 32-bit
// floats), and begin to read 4 rows of keys and of values (2 of 32-bit floats) before they need the first: 128 bytes a
// thread in flight. Softmax is corrected from one such handful to the next.
//
// Traffic: keys and values once, for every four of the heads that share them. That is the bound: of arithmetic there
// are two multiplications for every element.
//
// Where the cache is longer than 256 rows, each part leaves its sums, and `combine` adds them. Parts begin at multiples
// of 256 and all sums are taken in a fixed order, so the bits of a sequence depend on its own rows alone.

#define WARPS 4
#define THREADS (32 * WARPS)
#define PART 256  // rows of a block
#define WIDEST 256

// Eight features of a row, as they lie in memory.
template <typename T>
struct Eight;

template <>
struct Eight<bf16> {
    static constexpr u32 ROWS = 4;  // that a thread reads at a time
    u32 pairs[4];

    __device__ __forceinline__ void read(const bf16* row) {
        uint4 all = *reinterpret_cast<const uint4*>(row);
        pairs[0] = all.x, pairs[1] = all.y, pairs[2] = all.z, pairs[3] = all.w;
    }
    __device__ __forceinline__ void set(u32 i, bf16 v) { pairs[i / 2] |= (u32)v.bits << i % 2 * 16; }
    __device__ __forceinline__ float at(u32 i) const {
        return __uint_as_float(i % 2 ? pairs[i / 2] & 0xffff0000u : pairs[i / 2] << 16);
    }
};

template <>
struct Eight<float> {
    static constexpr u32 ROWS = 2;
    float values[8];

    __device__ __forceinline__ void read(const float* row) {
        float4 a = reinterpret_cast<const float4*>(row)[0], b = reinterpret_cast<const float4*>(row)[1];
        values[0] = a.x, values[1] = a.y, values[2] = a.z, values[3] = a.w;
        values[4] = b.x, values[5] = b.y, values[6] = b.z, values[7] = b.w;
    }
    __device__ __forceinline__ void set(u32 i, float v) { values[i] = v; }
    __device__ __forceinline__ float at(u32 i) const { return values[i]; }
};

// The features of a row from `first` on, zeros where there are none. ALIGNED: whether rows are made of whole eights.
template <bool ALIGNED, typename T>
__device__ __forceinline__ Eight<T> eight_of(const T* row, u32 first, u32 features) {
    Eight<T> eight = {};
    if (ALIGNED) {
        if (first < features) eight.read(row + first);
    } else {
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            if (first + i < features) eight.set(i, row[first + i]);
        }
    }
    return eight;
}

// Softmax over some rows: the largest score, the sum of exponentials, and the sum of values that they weigh.
struct Sums {
    float top;
    float total;
    float values[8];
};

// The factor of what was weighed against `top`, once the largest is `largest`. Where all scores are -∞ they weigh
// nothing.
__device__ __forceinline__ float correction(float top, float largest) {
    return largest == -INFINITY ? 0.0f : expf(top - largest);
}

// The sums over the rows of two, alike in whichever order they come.
__device__ __forceinline__ Sums both(const Sums& a, const Sums& b) {
    Sums sums;
    sums.top = fmaxf(a.top, b.top);
    float left = correction(a.top, sums.top), right = correction(b.top, sums.top);
    sums.total = a.total * left + b.total * right;
#pragma unroll
    for (u32 i = 0; i < 8; i++) sums.values[i] = a.values[i] * left + b.values[i] * right;
    return sums;
}

__device__ __forceinline__ Sums of_lane(const Sums& mine, u32 distance) {
    Sums other;
    other.top = __shfl_xor_sync(0xffffffffu, mine.top, distance);
    other.total = __shfl_xor_sync(0xffffffffu, mine.total, distance);
#pragma unroll
    for (u32 i = 0; i < 8; i++) other.values[i] = __shfl_xor_sync(0xffffffffu, mine.values[i], distance);
    return other;
}

__device__ __forceinline__ void put(float* to, float v) {
    *to = v;
}

__device__ __forceinline__ void put(bf16* to, float v) {
    *to = to_bf16(v);
}

// Rows of one key-value head, and the lanes that take a row: a power of two.
template <typename T>
struct KeyValues {
    const T* keys;
    const T* values;
    u64 stride;
    u32 features;
    u32 lanes;
};

// Adds rows `begin` to `end` to the sums of the heads that read them.
template <bool ALIGNED, typename T, u32 HEADS>
__device__ __forceinline__ void add_rows(
    Sums (&sums)[HEADS], const T* q, const KeyValues<T>& rows, u32 begin, u32 end, float scale)
{
    constexpr u32 COUNT = Eight<T>::ROWS;
    u32 lanes = rows.lanes, places = THREADS / lanes, first = threadIdx.x % lanes * 8;
    Eight<T> query[HEADS];
#pragma unroll
    for (u32 h = 0; h < HEADS; h++) query[h] = eight_of<ALIGNED>(q + h * rows.features, first, rows.features);
    for (u32 row = begin + threadIdx.x / lanes; row - threadIdx.x / lanes < end; row += places * COUNT) {
        Eight<T> key[COUNT], value[COUNT];
#pragma unroll
        for (u32 i = 0; i < COUNT; i++) {
            // What is not there is read as no features.
            u64 at = (row + places * i) * rows.stride;
            u32 features = row + places * i < end ? rows.features : 0;
            key[i] = eight_of<ALIGNED>(rows.keys + at, first, features);
            value[i] = eight_of<ALIGNED>(rows.values + at, first, features);
        }
        float scores[HEADS][COUNT] = {};
#pragma unroll
        for (u32 h = 0; h < HEADS; h++) {
#pragma unroll
            for (u32 i = 0; i < COUNT; i++) {
#pragma unroll
                for (u32 k = 0; k < 8; k++) scores[h][i] = fmaf(query[h].at(k), key[i].at(k), scores[h][i]);
            }
        }
        for (u32 d = lanes / 2; d > 0; d /= 2) {
#pragma unroll
            for (u32 h = 0; h < HEADS; h++) {
#pragma unroll
                for (u32 i = 0; i < COUNT; i++) scores[h][i] += __shfl_xor_sync(0xffffffffu, scores[h][i], d);
            }
        }
#pragma unroll
        for (u32 h = 0; h < HEADS; h++) {
            float top = sums[h].top;
#pragma unroll
            for (u32 i = 0; i < COUNT; i++) {
                scores[h][i] = row + places * i < end ? scale * scores[h][i] : -INFINITY;
                top = fmaxf(top, scores[h][i]);
            }
            float factor = correction(sums[h].top, top), shift = top == -INFINITY ? 0.0f : top;
            sums[h].top = top;
            sums[h].total *= factor;
#pragma unroll
            for (u32 k = 0; k < 8; k++) sums[h].values[k] *= factor;
#pragma unroll
            for (u32 i = 0; i < COUNT; i++) {
                float weight = expf(scores[h][i] - shift);
                sums[h].total += weight;
#pragma unroll
                for (u32 k = 0; k < 8; k++) sums[h].values[k] = fmaf(weight, value[i].at(k), sums[h].values[k]);
            }
        }
    }
}

// `parts`: where the sums go if the cache has several parts, for `combine`; else nothing.
template <typename T, u32 HEADS>
__device__ __forceinline__ void step(
    const T* q, const T* keys, const T* values, const u32* slots, T* out, float* parts, u32 heads, u32 kv_heads,
    u32 features, u32 lanes, u64 capacity, u32 rows, float scale)
{
    SHARED_ARRAY(Sums, kept, [WARPS][HEADS][32]);
    u32 at = blockIdx.x * HEADS, kv_head = at % heads / (heads / kv_heads);
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = lane % lanes * 8;
    u64 stride = (u64)kv_heads * features, begin = slots[at / heads] * capacity * stride + (u64)kv_head * features;
    KeyValues<T> of_head = {keys + begin, values + begin, stride, features, lanes};
    u32 from = blockIdx.y * PART, to = min(from + PART, rows);
    q += (u64)at * features;
    Sums sums[HEADS];
#pragma unroll
    for (u32 h = 0; h < HEADS; h++) sums[h] = Sums{-INFINITY, 0.0f, {}};
    if (features % 8 == 0) {
        add_rows<true>(sums, q, of_head, from, to, scale);
    } else {
        add_rows<false>(sums, q, of_head, from, to, scale);
    }
#pragma unroll
    for (u32 h = 0; h < HEADS; h++) {
        for (u32 d = lanes; d < 32; d *= 2) sums[h] = both(sums[h], of_lane(sums[h], d));
        kept[warp][h][lane] = sums[h];
    }
    __syncthreads();
    // A warp for every head, and of it the lanes of a row.
    if (warp >= HEADS || lane >= lanes) return;
    Sums all = kept[0][warp][lane];
#pragma unroll
    for (u32 w = 1; w < WARPS; w++) all = both(all, kept[w][warp][lane]);
    float* part = parts + ((u64)(at + warp) * gridDim.y + blockIdx.y) * (features + 2);
    if (parts && lane == 0) {
        part[0] = all.top;
        part[1] = all.total;
    }
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        if (first + i >= features) continue;
        if (parts) {
            part[2 + first + i] = all.values[i];
        } else {
            put(out + (u64)(at + warp) * features + first + i, all.values[i] / all.total);
        }
    }
}

// Adds the parts of a head, a block for each: a thread for every feature.
template <typename T>
__device__ __forceinline__ void combine(const float* parts, T* out, u32 features, u32 count) {
    u64 width = features + 2;
    parts += blockIdx.x * count * width;
    if (threadIdx.x >= features) return;
    float top = -INFINITY, total = 0.0f, sum = 0.0f;
    for (u32 i = 0; i < count; i++) top = fmaxf(top, parts[i * width]);
    for (u32 i = 0; i < count; i++) {
        float factor = correction(parts[i * width], top);
        total = fmaf(parts[i * width + 1], factor, total);
        sum = fmaf(parts[i * width + 2 + threadIdx.x], factor, sum);
    }
    put(out + (u64)blockIdx.x * features + threadIdx.x, sum / total);
}

// Copies new rows of all sequences to their place: keys for blocks 0, values for blocks 1 of y. Everything is counted
// in units: of 16 bytes where rows are made of such, else of 2.
template <typename Unit>
__device__ __forceinline__ void append(
    const Unit* k, const Unit* v, Unit* keys, Unit* values, const u32* slots, u64 n, u64 each, u64 stride, u64 begin)
{
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u64 to = slots[i / each] * stride + begin + i % each;
    if (blockIdx.y == 0) {
        keys[to] = k[i];
    } else {
        values[to] = v[i];
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 5) step_f32_1(
    const float* __restrict__ q,
    const float* __restrict__ keys,
    const float* __restrict__ values,
    const u32* __restrict__ slots,
    float* __restrict__ out,
    float* __restrict__ parts,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 lanes,
    u64 capacity,
    u32 rows,
    float scale)
{
    step<float, 1>(q, keys, values, slots, out, parts, heads, kv_heads, features, lanes, capacity, rows, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) step_f32_4(
    const float* __restrict__ q,
    const float* __restrict__ keys,
    const float* __restrict__ values,
    const u32* __restrict__ slots,
    float* __restrict__ out,
    float* __restrict__ parts,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 lanes,
    u64 capacity,
    u32 rows,
    float scale)
{
    step<float, 4>(q, keys, values, slots, out, parts, heads, kv_heads, features, lanes, capacity, rows, scale);
}

extern "C" __global__ void __launch_bounds__(WIDEST) combine_f32(
    const float* __restrict__ parts,  // [sequences * heads, count, 2 + features]
    float* __restrict__ out,
    u32 features,
    u32 count)
{
    combine(parts, out, features, count);
}

extern "C" __global__ void __launch_bounds__(THREADS, 5) step_bf16_1(
    const bf16* __restrict__ q,
    const bf16* __restrict__ keys,
    const bf16* __restrict__ values,
    const u32* __restrict__ slots,
    bf16* __restrict__ out,
    float* __restrict__ parts,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 lanes,
    u64 capacity,
    u32 rows,
    float scale)
{
    step<bf16, 1>(q, keys, values, slots, out, parts, heads, kv_heads, features, lanes, capacity, rows, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) step_bf16_4(
    const bf16* __restrict__ q,
    const bf16* __restrict__ keys,
    const bf16* __restrict__ values,
    const u32* __restrict__ slots,
    bf16* __restrict__ out,
    float* __restrict__ parts,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 lanes,
    u64 capacity,
    u32 rows,
    float scale)
{
    step<bf16, 4>(q, keys, values, slots, out, parts, heads, kv_heads, features, lanes, capacity, rows, scale);
}

extern "C" __global__ void __launch_bounds__(WIDEST) combine_bf16(
    const float* __restrict__ parts,  // [sequences * heads, count, 2 + features]
    bf16* __restrict__ out,
    u32 features,
    u32 count)
{
    combine(parts, out, features, count);
}

extern "C" __global__ void __launch_bounds__(256) append_16(
    const uint4* __restrict__ k,
    const uint4* __restrict__ v,
    uint4* __restrict__ keys,
    uint4* __restrict__ values,
    const u32* __restrict__ slots,
    u64 n,
    u64 each,
    u64 stride,
    u64 begin)
{
    append(k, v, keys, values, slots, n, each, stride, begin);
}

extern "C" __global__ void __launch_bounds__(256) append_2(
    const u16* __restrict__ k,
    const u16* __restrict__ v,
    u16* __restrict__ keys,
    u16* __restrict__ values,
    const u32* __restrict__ slots,
    u64 n,
    u64 each,
    u64 stride,
    u64 begin)
{
    append(k, v, keys, values, slots, n, each, stride, begin);
}
