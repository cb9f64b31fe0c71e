// behind: tiles.cuh, tiles_f32.cuh, gradient_f32.cuh
//
// The gradient of queries in 32-bit floats: a tile of queries against tiles of keys.

template <u32 WIDTH>
__device__ __forceinline__ void backward_queries(
    const Sequence* work, const float* q, const float* k, const float* v, const float* prefix_k, const float* prefix_v,
    const float* d_out, const float* log_sums, const float* pulls, float* dq, u32 heads, u32 kv_heads, u32 features,
    u32 prefix, u32 causal, float scale)
{
    using E = Extent<WIDTH>;
    SHARED_MEMORY(float, query_tile);
    float* d_out_tile = query_tile + E::ROWS * WIDTH;
    float* key_tile = d_out_tile + E::ROWS * WIDTH;
    float* value_tile = key_tile + E::OTHERS * WIDTH;
    float* weights = value_tile + E::OTHERS * WIDTH;

    Place place = place_of_block(work, heads);
    const Sequence& s = place.sequence;
    Rows queries = rows_of(0, s.queries_begin, s.queries, place.head, heads, features);
    Rows keys = rows_of(prefix, s.keys_begin, s.keys, place.head / (heads / kv_heads), kv_heads, features);
    u32 first_row = place.tile * E::ROWS, end_row = min(first_row + E::ROWS, s.queries);
    u32 seen = causal ? prefix + end_row : keys.rows;
    u32 line = threadIdx.x / COLUMNS, column = threadIdx.x % COLUMNS;
    load_tile<E::ROWS, WIDTH, THREADS>(query_tile, q, q, queries, first_row);
    load_tile<E::ROWS, WIDTH, THREADS>(d_out_tile, d_out, d_out, queries, first_row);

    float log_sum[E::R], pull[E::R];
#pragma unroll
    for (u32 r = 0; r < E::R; r++) {
        u32 row = first_row + line + LINES * r;
        u64 at = (u64)(s.queries_begin + row) * heads + place.head;
        log_sum[r] = row < end_row ? log_sums[at] : 0.0f;
        pull[r] = row < end_row ? pulls[at] : 0.0f;
    }
    float4 sums[E::R][WIDTH / 32] = {};
    for (u32 first = 0; first < seen; first += E::OTHERS) {
        __syncthreads();
        load_tile<E::OTHERS, WIDTH, THREADS>(key_tile, prefix_k, k, keys, first);
        load_tile<E::OTHERS, WIDTH, THREADS>(value_tile, prefix_v, v, keys, first);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        float scores[E::R][E::C] = {}, pushes[E::R][E::C] = {};
        add_products<WIDTH>(scores, query_tile, key_tile);
        add_products<WIDTH>(pushes, d_out_tile, value_tile);
#pragma unroll
        for (u32 r = 0; r < E::R; r++) {
            u32 row = first_row + line + LINES * r, end = row >= end_row ? 0 : causal ? prefix + row + 1 : seen;
#pragma unroll
            for (u32 j = 0; j < E::C; j++) {
                weigh(scores[r][j], pushes[r][j], first + column + COLUMNS * j < end, log_sum[r], pull[r], scale);
            }
        }
        put_weights<E::OTHERS>(weights, pushes);
        __syncwarp();
        add_weighted<WIDTH, E::OTHERS>(sums, weights, key_tile);
    }
    cp_async_commit();
    cp_async_wait<0>();
#pragma unroll
    for (u32 r = 0; r < E::R; r++) {
        u32 row = first_row + line + LINES * r;
        u64 at = (u64)(s.queries_begin + row) * heads + place.head;
        if (row < end_row) store_row<WIDTH>(dq + at * features, sums[r], 1.0f, features);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_queries_f32_32(
    const Sequence* __restrict__ work,
    const float* __restrict__ q,
    const float* __restrict__ k,
    const float* __restrict__ v,
    const float* __restrict__ prefix_k,
    const float* __restrict__ prefix_v,
    const float* __restrict__ d_out,
    const float* __restrict__ log_sums,
    const float* __restrict__ pulls,
    float* __restrict__ dq,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 prefix,
    u32 causal,
    float scale)
{
    backward_queries<32>(work, q, k, v, prefix_k, prefix_v, d_out, log_sums, pulls, dq, heads, kv_heads, features,
        prefix, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_queries_f32_64(
    const Sequence* __restrict__ work,
    const float* __restrict__ q,
    const float* __restrict__ k,
    const float* __restrict__ v,
    const float* __restrict__ prefix_k,
    const float* __restrict__ prefix_v,
    const float* __restrict__ d_out,
    const float* __restrict__ log_sums,
    const float* __restrict__ pulls,
    float* __restrict__ dq,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 prefix,
    u32 causal,
    float scale)
{
    backward_queries<64>(work, q, k, v, prefix_k, prefix_v, d_out, log_sums, pulls, dq, heads, kv_heads, features,
        prefix, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_queries_f32_96(
    const Sequence* __restrict__ work,
    const float* __restrict__ q,
    const float* __restrict__ k,
    const float* __restrict__ v,
    const float* __restrict__ prefix_k,
    const float* __restrict__ prefix_v,
    const float* __restrict__ d_out,
    const float* __restrict__ log_sums,
    const float* __restrict__ pulls,
    float* __restrict__ dq,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 prefix,
    u32 causal,
    float scale)
{
    backward_queries<96>(work, q, k, v, prefix_k, prefix_v, d_out, log_sums, pulls, dq, heads, kv_heads, features,
        prefix, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_queries_f32_128(
    const Sequence* __restrict__ work,
    const float* __restrict__ q,
    const float* __restrict__ k,
    const float* __restrict__ v,
    const float* __restrict__ prefix_k,
    const float* __restrict__ prefix_v,
    const float* __restrict__ d_out,
    const float* __restrict__ log_sums,
    const float* __restrict__ pulls,
    float* __restrict__ dq,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 prefix,
    u32 causal,
    float scale)
{
    backward_queries<128>(work, q, k, v, prefix_k, prefix_v, d_out, log_sums, pulls, dq, heads, kv_heads, features,
        prefix, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_queries_f32_256(
    const Sequence* __restrict__ work,
    const float* __restrict__ q,
    const float* __restrict__ k,
    const float* __restrict__ v,
    const float* __restrict__ prefix_k,
    const float* __restrict__ prefix_v,
    const float* __restrict__ d_out,
    const float* __restrict__ log_sums,
    const float* __restrict__ pulls,
    float* __restrict__ dq,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 prefix,
    u32 causal,
    float scale)
{
    backward_queries<256>(work, q, k, v, prefix_k, prefix_v, d_out, log_sums, pulls, dq, heads, kv_heads, features,
        prefix, causal, scale);
}
