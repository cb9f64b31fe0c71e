// behind: tiles.cuh, tiles_f32.cuh
//
// Attention in 32-bit floats, on plain cores: what training computes with, and what `log_sums` are kept of for its
// backward.
//
// Threads: a block of 16 x 8 for 64 query rows of one sequence and head against tiles of 64 keys (32 and 32 where heads
// are wider than 128). A thread holds every 16th row against every 8th key, 4 x 8 scores, and the same rows of the
// result in groups of four features: of shared memory a warp reads one line of 128 bytes for every 10 (scores) and 13
// (values) of its fused multiply-adds, so that arithmetic is the bound.
//
// Shared memory: the queries, a tile of keys and, after them in the same place, of values, and the weights: 80 KiB for
// heads of 128, two blocks on an A100 and an H200. One block computes while the other waits for its tiles.
//
// Traffic: queries are read and results written once; keys and values once for every block, seen * head_dim * 8 bytes,
// from the L2 cache but for the first block of a head.
//
// A row's sums go over its keys in their order, from tile to tile, and tiles are cut from the first key on. So its bits
// depend on its own sequence and the prefix alone, and not on whether the prefix is shared or written before the keys.

#define THREADS (LINES * COLUMNS)

// Rows of a thread, and keys.
template <u32 WIDTH>
struct Extent {
    static constexpr u32 R = WIDTH > 128 ? 2 : 4;
    static constexpr u32 K = WIDTH > 128 ? 4 : 8;
    static constexpr u32 ROWS = LINES * R;
    static constexpr u32 KEYS = COLUMNS * K;
};

template <u32 WIDTH>
__device__ __forceinline__ void forward(
    const Sequence* work, const float* q, const float* k, const float* v, const float* prefix_k, const float* prefix_v,
    float* out, float* log_sums, u32 heads, u32 kv_heads, u32 features, u32 prefix, u32 causal, float scale)
{
    using E = Extent<WIDTH>;
    SHARED_MEMORY(float, memory);
    float* tile = memory + E::ROWS * WIDTH;
    float* weights = tile + E::KEYS * WIDTH;

    Place place = place_of_block(work, heads);
    const Sequence& s = place.sequence;
    Rows queries = rows_of(0, s.queries_begin, s.queries, place.head, heads, features);
    Rows keys = rows_of(prefix, s.keys_begin, s.keys, place.head / (heads / kv_heads), kv_heads, features);
    u32 first_row = place.tile * E::ROWS, end_row = min(first_row + E::ROWS, s.queries);
    u32 seen = causal ? prefix + end_row : keys.rows;
    u32 line = threadIdx.x / COLUMNS, column = threadIdx.x % COLUMNS;

    load_tile<E::ROWS, WIDTH, THREADS>(memory, q, q, queries, first_row);
    float4 sums[E::R][WIDTH / 32] = {};
    float top[E::R], total[E::R];  // the total of this thread's keys
#pragma unroll
    for (u32 i = 0; i < E::R; i++) {
        top[i] = -INFINITY;
        total[i] = 0.0f;
    }
    for (u32 first_key = 0; first_key < seen; first_key += E::KEYS) {
        __syncthreads();
        load_tile<E::KEYS, WIDTH, THREADS>(tile, prefix_k, k, keys, first_key);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        float scores[E::R][E::K] = {};
        add_products<WIDTH>(scores, memory, tile);
#pragma unroll
        for (u32 i = 0; i < E::R; i++) {
            u32 end = causal ? min(prefix + first_row + line + LINES * i + 1, seen) : seen;
            float largest = top[i];
#pragma unroll
            for (u32 j = 0; j < E::K; j++) {
                bool visible = first_key + column + COLUMNS * j < end;
                scores[i][j] = visible ? scores[i][j] * scale : -INFINITY;
                largest = fmaxf(largest, scores[i][j]);
            }
            largest = max_of_line(largest);
            // Where all scores are -∞ so far they weigh nothing.
            float shift = largest == -INFINITY ? 0.0f : largest;
            float factor = expf(top[i] - shift), sum = 0.0f;
#pragma unroll
            for (u32 j = 0; j < E::K; j++) {
                scores[i][j] = expf(scores[i][j] - shift);
                sum += scores[i][j];
            }
            top[i] = largest;
            total[i] = fmaf(total[i], factor, sum);
#pragma unroll
            for (u32 n = 0; n < WIDTH / 32; n++) sums[i][n] = scaled(factor, sums[i][n]);
        }
        put_weights<E::KEYS>(weights, scores);
        __syncthreads();
        load_tile<E::KEYS, WIDTH, THREADS>(tile, prefix_v, v, keys, first_key);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        add_weighted<WIDTH, E::KEYS>(sums, weights, tile);
    }
    cp_async_commit();
    cp_async_wait<0>();
#pragma unroll
    for (u32 i = 0; i < E::R; i++) {
        float whole = sum_of_line(total[i]);
        u32 row = first_row + line + LINES * i;
        if (row >= end_row) continue;
        u64 at = (u64)(s.queries_begin + row) * heads + place.head;
        store_row<WIDTH>(out + at * features, sums[i], seen == 0 ? 0.0f : 1.0f / whole, features);
        if (column == 0) log_sums[at] = seen == 0 ? -INFINITY : top[i] + logf(whole);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) forward_f32_32(
    const Sequence* __restrict__ work,
    const float* __restrict__ q,
    const float* __restrict__ k,
    const float* __restrict__ v,
    const float* __restrict__ prefix_k,
    const float* __restrict__ prefix_v,
    float* __restrict__ out,
    float* __restrict__ log_sums,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 prefix,
    u32 causal,
    float scale)
{
    forward<32>(work, q, k, v, prefix_k, prefix_v, out, log_sums, heads, kv_heads, features, prefix, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) forward_f32_64(
    const Sequence* __restrict__ work,
    const float* __restrict__ q,
    const float* __restrict__ k,
    const float* __restrict__ v,
    const float* __restrict__ prefix_k,
    const float* __restrict__ prefix_v,
    float* __restrict__ out,
    float* __restrict__ log_sums,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 prefix,
    u32 causal,
    float scale)
{
    forward<64>(work, q, k, v, prefix_k, prefix_v, out, log_sums, heads, kv_heads, features, prefix, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) forward_f32_96(
    const Sequence* __restrict__ work,
    const float* __restrict__ q,
    const float* __restrict__ k,
    const float* __restrict__ v,
    const float* __restrict__ prefix_k,
    const float* __restrict__ prefix_v,
    float* __restrict__ out,
    float* __restrict__ log_sums,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 prefix,
    u32 causal,
    float scale)
{
    forward<96>(work, q, k, v, prefix_k, prefix_v, out, log_sums, heads, kv_heads, features, prefix, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) forward_f32_128(
    const Sequence* __restrict__ work,
    const float* __restrict__ q,
    const float* __restrict__ k,
    const float* __restrict__ v,
    const float* __restrict__ prefix_k,
    const float* __restrict__ prefix_v,
    float* __restrict__ out,
    float* __restrict__ log_sums,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 prefix,
    u32 causal,
    float scale)
{
    forward<128>(work, q, k, v, prefix_k, prefix_v, out, log_sums, heads, kv_heads, features, prefix, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) forward_f32_256(
    const Sequence* __restrict__ work,
    const float* __restrict__ q,
    const float* __restrict__ k,
    const float* __restrict__ v,
    const float* __restrict__ prefix_k,
    const float* __restrict__ prefix_v,
    float* __restrict__ out,
    float* __restrict__ log_sums,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 prefix,
    u32 causal,
    float scale)
{
    forward<256>(work, q, k, v, prefix_k, prefix_v, out, log_sums, heads, kv_heads, features, prefix, causal, scale);
}
