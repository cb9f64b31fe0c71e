// behind: tiles.cuh, tiles_bf16.cuh, gradient_bf16.cuh
//
// The gradient of queries in bfloat16: sums over keys.
//
// Threads: a block of 4 warps for 128 queries of one sequence and head against tiles of 32 keys; for 128 and 64 where
// heads are no wider than 64, for 64 and 16 where they are wider than 128. A fragment of keys or values serves both 16
// rows of a warp.
//
// Shared memory: queries, their gradients, and two stages of keys and values, so that there is one barrier a tile: 96
// KiB for heads of 128, two blocks on an H200, one on an A100.
//
// Traffic: a block reads its queries and gradients once, and keys and values once, 16 bytes a thread and whole rows,
// from the L2 cache but for the first block of a head.

template <u32 WIDTH>
struct QuerySide {
    static constexpr u32 GROUPS = WIDTH > 128 ? 1 : 2;  // of 16 queries of a warp
    static constexpr u32 WARP_ROWS = 16 * GROUPS;
    static constexpr u32 ROWS = WARPS * WARP_ROWS;
    static constexpr u32 OTHERS = WIDTH > 128 ? 16 : WIDTH > 64 ? 32 : 64;  // keys of a tile
};

// Turns scores of queries by keys into the gradients of the products, less the scale: of the warp's row i those keys
// that are before `visible`, which row i sees i more of if the mask is causal, and before `end`.
template <u32 GROUPS, u32 COLUMNS>
__device__ __forceinline__ void push(
    float (&pushes)[GROUPS][COLUMNS][4], const float (&scores)[GROUPS][COLUMNS][4],
    const Statistic (&of_rows)[GROUPS][2], float scale, u32 first_key, u32 visible, u32 end, bool causal)
{
    u32 lane = threadIdx.x % 32;
    bool all = first_key + 8 * COLUMNS <= min(visible, end);
#pragma unroll
    for (u32 m = 0; m < GROUPS; m++) {
#pragma unroll
        for (u32 n = 0; n < COLUMNS; n++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                Statistic of = of_rows[m][i / 2];
                u32 hidden = min(causal ? visible + 16 * m + i / 2 * 8 + lane / 4 : visible, end);
                bool seen = all || first_key + 8 * n + lane % 4 * 2 + i % 2 < hidden;
                float weight = seen ? exp2_approx(fmaf(scores[m][n][i], scale, -of.log_sum)) : 0.0f;
                pushes[m][n][i] = weight * (pushes[m][n][i] - of.pull);
            }
        }
    }
}

template <u32 WIDTH>
__device__ __forceinline__ void backward_queries(
    const Sequence* work, const bf16* q, const bf16* k, const bf16* v, const bf16* prefix_k, const bf16* prefix_v,
    const bf16* d_out, const Statistic* statistics, bf16* dq, u32 rows, u32 heads, u32 kv_heads, u32 features,
    u32 prefix, u32 causal, float scale)
{
    using S = QuerySide<WIDTH>;
    SHARED_MEMORY(bf16, query_tile);
    bf16* d_out_tile = query_tile + S::ROWS * WIDTH;
    bf16* stages = d_out_tile + S::ROWS * WIDTH;  // of a tile of keys and one of values
    SHARED_ARRAY(Place, kept_place, [1]);
    SHARED_ARRAY(Rows, kept_rows, [1]);

    Place place = place_of_block(work, heads);
    const Sequence& s = place.sequence;
    u32 first_row = place.tile * S::ROWS, end_row = min(first_row + S::ROWS, s.queries);
    Rows queries = rows_of(0, s.queries_begin, s.queries, place.head, heads, features);
    Rows keys = rows_of(prefix, s.keys_begin, s.keys, place.head / (heads / kv_heads), kv_heads, features);
    // Kept where they take no registers.
    if (threadIdx.x == 0) {
        kept_place[0] = place;
        kept_rows[0] = keys;
    }
    u32 seen = causal ? prefix + end_row : keys.rows;
    // Of the warp: its first row, keys that this row sees, and keys that the last row does.
    u32 warp_row = threadIdx.x / 32 * S::WARP_ROWS;
    u32 visible = causal ? prefix + first_row + warp_row + 1 : seen;
    u32 warp_seen = first_row + warp_row >= end_row ? 0 : causal ? min(visible + S::WARP_ROWS - 1, seen) : seen;
    warp_seen = __shfl_sync(0xffffffffu, warp_seen, 0);  // tells the compiler that all lanes agree
    auto load_keys = [&](u32 first_key) {
        bf16* stage = stages + first_key / S::OTHERS % 2 * 2 * S::OTHERS * WIDTH;
        load_tile<S::OTHERS, WIDTH, THREADS>(stage, prefix_k, k, kept_rows[0], first_key);
        load_tile<S::OTHERS, WIDTH, THREADS>(stage + S::OTHERS * WIDTH, prefix_v, v, kept_rows[0], first_key);
    };
    load_tile<S::ROWS, WIDTH, THREADS>(query_tile, q, q, queries, first_row);
    load_tile<S::ROWS, WIDTH, THREADS>(d_out_tile, d_out, d_out, queries, first_row);
    __syncthreads();
    if (seen > 0) load_keys(0);
    cp_async_commit();

    Statistic of_rows[S::GROUPS][2];
#pragma unroll
    for (u32 i = 0; i < 2 * S::GROUPS; i++) {
        u32 row = first_row + warp_row + 8 * i + threadIdx.x % 32 / 4;
        bool there = row < end_row;
        of_rows[i / 2][i % 2] = there ? statistics[(u64)place.head * rows + s.queries_begin + row] : NO_ROW;
    }
    float sums[S::GROUPS][WIDTH / 8][4];
    clear(sums);
    for (u32 first_key = 0; first_key < seen; first_key += S::OTHERS) {
        cp_async_wait<0>();
        __syncthreads();
        if (first_key + S::OTHERS < seen) load_keys(first_key + S::OTHERS);
        cp_async_commit();
        if (first_key >= warp_seen) continue;
        const bf16* key_tile = stages + first_key / S::OTHERS % 2 * 2 * S::OTHERS * WIDTH;
        float scores[S::GROUPS][S::OTHERS / 8][4], pushes[S::GROUPS][S::OTHERS / 8][4];
        clear(scores);
        multiply_rows<WIDTH>(scores, query_tile + warp_row * WIDTH, key_tile);
        clear(pushes);
        multiply_rows<WIDTH>(pushes, d_out_tile + warp_row * WIDTH, key_tile + S::OTHERS * WIDTH);
        push(pushes, scores, of_rows, scale * LOG2_E, first_key, visible, seen, causal);
#pragma unroll
        for (u32 i = 0; i < S::OTHERS / 16; i++) {
            u32 weights[S::GROUPS][4];
            round_weights(weights, pushes, i);
            multiply_columns<WIDTH>(sums, weights, key_tile + 16 * i * WIDTH);
        }
    }
    cp_async_wait<0>();
    __syncthreads();
    place = kept_place[0];
    u32 first = place.tile * S::ROWS + warp_row;
    if (first >= s.queries) return;
    u64 to = ((u64)(s.queries_begin + first) * heads + place.head) * features;
    u32 count = min(S::WARP_ROWS, s.queries - first);
    bf16* tile = query_tile + warp_row * WIDTH;
    store_sums<WIDTH>(sums, scale, tile, dq + to, nullptr, count, features, (u64)heads * features);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_queries_bf16_32(
    const Sequence* __restrict__ work,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ prefix_k,
    const bf16* __restrict__ prefix_v,
    const bf16* __restrict__ d_out,
    const Statistic* __restrict__ statistics,
    bf16* __restrict__ dq,
    u32 rows,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 prefix,
    u32 causal,
    float scale)
{
    backward_queries<32>(work, q, k, v, prefix_k, prefix_v, d_out, statistics, dq, rows, heads, kv_heads, features,
        prefix, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_queries_bf16_64(
    const Sequence* __restrict__ work,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ prefix_k,
    const bf16* __restrict__ prefix_v,
    const bf16* __restrict__ d_out,
    const Statistic* __restrict__ statistics,
    bf16* __restrict__ dq,
    u32 rows,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 prefix,
    u32 causal,
    float scale)
{
    backward_queries<64>(work, q, k, v, prefix_k, prefix_v, d_out, statistics, dq, rows, heads, kv_heads, features,
        prefix, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_queries_bf16_96(
    const Sequence* __restrict__ work,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ prefix_k,
    const bf16* __restrict__ prefix_v,
    const bf16* __restrict__ d_out,
    const Statistic* __restrict__ statistics,
    bf16* __restrict__ dq,
    u32 rows,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 prefix,
    u32 causal,
    float scale)
{
    backward_queries<96>(work, q, k, v, prefix_k, prefix_v, d_out, statistics, dq, rows, heads, kv_heads, features,
        prefix, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_queries_bf16_128(
    const Sequence* __restrict__ work,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ prefix_k,
    const bf16* __restrict__ prefix_v,
    const bf16* __restrict__ d_out,
    const Statistic* __restrict__ statistics,
    bf16* __restrict__ dq,
    u32 rows,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 prefix,
    u32 causal,
    float scale)
{
    backward_queries<128>(work, q, k, v, prefix_k, prefix_v, d_out, statistics, dq, rows, heads, kv_heads, features,
        prefix, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_queries_bf16_256(
    const Sequence* __restrict__ work,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ prefix_k,
    const bf16* __restrict__ prefix_v,
    const bf16* __restrict__ d_out,
    const Statistic* __restrict__ statistics,
    bf16* __restrict__ dq,
    u32 rows,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 prefix,
    u32 causal,
    float scale)
{
    backward_queries<256>(work, q, k, v, prefix_k, prefix_v, d_out, statistics, dq, rows, heads, kv_heads, features,
        prefix, causal, scale);
}
