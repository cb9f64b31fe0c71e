// behind: tiles.cuh, tiles_f32.cuh, spans.cuh, gradient_f32.cuh
//
// The gradients of keys and values in 32-bit floats: a tile of keys against tiles of queries.

// The sum over the features of a row of d_out * out, head by head: a warp for each.
extern "C" __global__ void __launch_bounds__(THREADS) pulls(
    const float* __restrict__ d_out,
    const float* __restrict__ out,
    float* __restrict__ sums,  // [n, heads]
    u64 n,                     // rows * heads
    u32 features)
{
    u64 at = (u64)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    if (at >= n) return;
    d_out += at * features;
    out += at * features;
    float sum = 0.0f;
    for (u32 i = threadIdx.x % 32; i < features; i += 32) sum = fmaf(d_out[i], out[i], sum);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) sums[at] = sum;
}

// `causal`: whether query i sees no key behind i. Those of the prefix are seen by all.
template <u32 WIDTH>
__device__ __forceinline__ void backward_keys(
    const Span* work, const Queries* sequences, const float* q, const float* k, const float* v, const float* d_out,
    const float* log_sums, const float* pulls, float* dk, float* dv, u32 heads, u32 kv_heads, u32 features, u32 causal,
    float scale)
{
    using E = Extent<WIDTH>;
    SHARED_MEMORY(float, key_tile);
    float* value_tile = key_tile + E::ROWS * WIDTH;
    float* query_tile = value_tile + E::ROWS * WIDTH;
    float* d_out_tile = query_tile + E::OTHERS * WIDTH;
    float* weights = d_out_tile + E::OTHERS * WIDTH;

    Span span = work[blockIdx.x / kv_heads];
    u32 at = blockIdx.x - span.first * kv_heads, kv_head = at / span.tiles, first_key = at % span.tiles * E::ROWS;
    u32 line = threadIdx.x / COLUMNS, column = threadIdx.x % COLUMNS, group = heads / kv_heads;
    Rows keys = rows_of(0, span.keys_begin, span.keys, kv_head, kv_heads, features);
    load_tile<E::ROWS, WIDTH, THREADS>(key_tile, k, k, keys, first_key);
    load_tile<E::ROWS, WIDTH, THREADS>(value_tile, v, v, keys, first_key);

    float4 key_sums[E::R][WIDTH / 32] = {}, value_sums[E::R][WIDTH / 32] = {};
    for (u32 i = span.sequences_begin; i < span.sequences_end; i++) {
        Queries sequence = sequences[i];
        for (u32 head = kv_head * group; head < (kv_head + 1) * group; head++) {
            Rows queries = rows_of(0, sequence.begin, sequence.rows, head, heads, features);
            for (u32 first = causal ? first_key : 0; first < sequence.rows; first += E::OTHERS) {
                __syncthreads();
                load_tile<E::OTHERS, WIDTH, THREADS>(query_tile, q, q, queries, first);
                load_tile<E::OTHERS, WIDTH, THREADS>(d_out_tile, d_out, d_out, queries, first);
                cp_async_commit();
                cp_async_wait<0>();
                __syncthreads();
                float scores[E::R][E::C] = {}, pushes[E::R][E::C] = {};
                add_products<WIDTH>(scores, key_tile, query_tile);
                add_products<WIDTH>(pushes, value_tile, d_out_tile);
#pragma unroll
                for (u32 j = 0; j < E::C; j++) {
                    u32 query = first + column + COLUMNS * j;
                    bool there = query < sequence.rows;
                    u64 row = (u64)(sequence.begin + query) * heads + head;
                    float log_sum = there ? log_sums[row] : 0.0f, pull = there ? pulls[row] : 0.0f;
#pragma unroll
                    for (u32 r = 0; r < E::R; r++) {
                        u32 key = first_key + line + LINES * r;
                        bool visible = there && key < span.keys && (!causal || key <= query);
                        weigh(scores[r][j], pushes[r][j], visible, log_sum, pull, scale);
                    }
                }
                put_weights<E::OTHERS>(weights, scores);
                __syncwarp();
                add_weighted<WIDTH, E::OTHERS>(value_sums, weights, d_out_tile);
                __syncwarp();
                put_weights<E::OTHERS>(weights, pushes);
                __syncwarp();
                add_weighted<WIDTH, E::OTHERS>(key_sums, weights, query_tile);
            }
        }
    }
    cp_async_commit();
    cp_async_wait<0>();
#pragma unroll
    for (u32 r = 0; r < E::R; r++) {
        u32 key = first_key + line + LINES * r;
        if (key >= span.keys) continue;
        u64 to = ((u64)(span.results_begin + key) * kv_heads + kv_head) * features;
        store_row<WIDTH>(dk + to, key_sums[r], 1.0f, features);
        store_row<WIDTH>(dv + to, value_sums[r], 1.0f, features);
    }
}

// Adds the gradients that parts of the sequences give the prefix, part after part.
extern "C" __global__ void __launch_bounds__(256) add_parts(
    const float* __restrict__ parts,  // [count, n]
    float* __restrict__ sums,
    u32 count,
    u64 n)
{
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float sum = sums[i];
    for (u32 part = 0; part < count; part++) sum += parts[part * n + i];
    sums[i] = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_keys_f32_32(
    const Span* __restrict__ work,
    const Queries* __restrict__ sequences,
    const float* __restrict__ q,
    const float* __restrict__ k,
    const float* __restrict__ v,
    const float* __restrict__ d_out,
    const float* __restrict__ log_sums,
    const float* __restrict__ pulls,
    float* __restrict__ dk,
    float* __restrict__ dv,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 causal,
    float scale)
{
    backward_keys<32>(work, sequences, q, k, v, d_out, log_sums, pulls, dk, dv, heads, kv_heads, features,
        causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_keys_f32_64(
    const Span* __restrict__ work,
    const Queries* __restrict__ sequences,
    const float* __restrict__ q,
    const float* __restrict__ k,
    const float* __restrict__ v,
    const float* __restrict__ d_out,
    const float* __restrict__ log_sums,
    const float* __restrict__ pulls,
    float* __restrict__ dk,
    float* __restrict__ dv,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 causal,
    float scale)
{
    backward_keys<64>(work, sequences, q, k, v, d_out, log_sums, pulls, dk, dv, heads, kv_heads, features,
        causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_keys_f32_96(
    const Span* __restrict__ work,
    const Queries* __restrict__ sequences,
    const float* __restrict__ q,
    const float* __restrict__ k,
    const float* __restrict__ v,
    const float* __restrict__ d_out,
    const float* __restrict__ log_sums,
    const float* __restrict__ pulls,
    float* __restrict__ dk,
    float* __restrict__ dv,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 causal,
    float scale)
{
    backward_keys<96>(work, sequences, q, k, v, d_out, log_sums, pulls, dk, dv, heads, kv_heads, features,
        causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_keys_f32_128(
    const Span* __restrict__ work,
    const Queries* __restrict__ sequences,
    const float* __restrict__ q,
    const float* __restrict__ k,
    const float* __restrict__ v,
    const float* __restrict__ d_out,
    const float* __restrict__ log_sums,
    const float* __restrict__ pulls,
    float* __restrict__ dk,
    float* __restrict__ dv,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 causal,
    float scale)
{
    backward_keys<128>(work, sequences, q, k, v, d_out, log_sums, pulls, dk, dv, heads, kv_heads, features,
        causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_keys_f32_256(
    const Span* __restrict__ work,
    const Queries* __restrict__ sequences,
    const float* __restrict__ q,
    const float* __restrict__ k,
    const float* __restrict__ v,
    const float* __restrict__ d_out,
    const float* __restrict__ log_sums,
    const float* __restrict__ pulls,
    float* __restrict__ dk,
    float* __restrict__ dv,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 causal,
    float scale)
{
    backward_keys<256>(work, sequences, q, k, v, d_out, log_sums, pulls, dk, dv, heads, kv_heads, features,
        causal, scale);
}
