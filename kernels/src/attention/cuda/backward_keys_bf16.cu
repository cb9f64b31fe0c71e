// behind: tiles.cuh, tiles_bf16.cuh, spans.cuh, gradient_bf16.cuh
//
// The gradients of keys and values in bfloat16: sums over queries.
//
// Threads: a block of 4 warps for 64 keys of one head against tiles of 64 queries; for 128 and 32 where heads are no
// wider than 64; for 64 and 32 where they are wider than 128, which take a kernel for keys and one for values. Scores
// are computed the other way round, keys by queries: so weights leave the tensor cores as the left operands that they
// enter the next products as, and never go to memory.
//
// Shared memory: tiles of keys, of values, of queries and of the gradient of the result, the latter two taking turns as
// in the forward pass: 65 KiB for heads of 128, two blocks on an A100 and an H200; at most 97 KiB.
//
// Traffic: a block reads its keys and values once, and queries and gradients once for every query head that reads them,
// 16 bytes a thread and whole rows, from the L2 cache but for the first block of a head.

// The statistics of all rows and heads: 16 lanes for each, 16 bytes a lane.
extern "C" __global__ void __launch_bounds__(THREADS) statistics_bf16(
    const bf16* __restrict__ d_out,
    const bf16* __restrict__ out,
    const float* __restrict__ log_sums,   // [rows, heads]
    Statistic* __restrict__ statistics,   // [heads, rows]
    u32 rows,
    u32 heads,
    u32 features)
{
    u64 at = (u64)blockIdx.x * (THREADS / 16) + threadIdx.x / 16;
    bool there = at < (u64)rows * heads;
    float sum = 0.0f;
    for (u32 first = threadIdx.x % 16 * 8; there && first < features; first += 128) {
        const bf16 *a = d_out + at * features + first, *b = out + at * features + first;
        if (features % 8 == 0) {
            uint4 four_a = *reinterpret_cast<const uint4*>(a), four_b = *reinterpret_cast<const uint4*>(b);
            u32 pairs_a[4] = {four_a.x, four_a.y, four_a.z, four_a.w};
            u32 pairs_b[4] = {four_b.x, four_b.y, four_b.z, four_b.w};
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                sum = fmaf(__uint_as_float(pairs_a[i] << 16), __uint_as_float(pairs_b[i] << 16), sum);
                sum = fmaf(__uint_as_float(pairs_a[i] & 0xffff0000u), __uint_as_float(pairs_b[i] & 0xffff0000u), sum);
            }
        } else {
            for (u32 i = 0; i < min(8u, features - first); i++) sum = fmaf(to_float(a[i]), to_float(b[i]), sum);
        }
    }
#pragma unroll
    for (u32 d = 8; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
    if (!there || threadIdx.x % 16 != 0) return;
    statistics[at % heads * rows + at / heads] = Statistic{log_sums[at] * LOG2_E, sum};
}

template <u32 WIDTH>
struct KeySide {
    static constexpr u32 GROUPS = WIDTH > 64 ? 1 : 2;  // of 16 keys of a warp
    static constexpr u32 WARP_ROWS = 16 * GROUPS;
    static constexpr u32 ROWS = WARPS * WARP_ROWS;
    static constexpr u32 OTHERS = WIDTH > 64 && WIDTH <= 128 ? 64 : 32;  // queries of a tile
};

// The queries of a tile: of which sequence and head, and from which row on.
struct Turn {
    Rows rows;
    u32 sequence;
    u32 head;
    u32 first;
    u32 begin;  // of the sequence
    bool there;
};

// The tile at or behind the one that a turn speaks of, in the order of sequences, heads and rows.
__device__ __forceinline__ Turn settled(
    Turn turn, const Span& span, const Queries* sequences, u32 start, u32 kv_head, u32 group, u32 heads, u32 features)
{
    for (; turn.sequence < span.sequences_end; turn.sequence++, turn.head = kv_head * group, turn.first = start) {
        Queries queries = sequences[turn.sequence];
        for (; turn.head < (kv_head + 1) * group; turn.head++, turn.first = start) {
            if (turn.first >= queries.rows) continue;
            turn.rows = rows_of(0, queries.begin, queries.rows, turn.head, heads, features);
            turn.begin = queries.begin;
            turn.there = true;
            return turn;
        }
    }
    turn.there = false;
    return turn;
}

// Hides from keys the queries that are before them.
template <u32 GROUPS, u32 COLUMNS>
__device__ __forceinline__ void hide_later(float (&scores)[GROUPS][COLUMNS][4], u32 first_key, u32 first_query) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 m = 0; m < GROUPS; m++) {
#pragma unroll
        for (u32 n = 0; n < COLUMNS; n++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                u32 key = first_key + 16 * m + i / 2 * 8 + lane / 4, query = first_query + 8 * n + lane % 4 * 2 + i % 2;
                if (key > query) scores[m][n][i] = -INFINITY;
            }
        }
    }
}

// Turns scores of keys by queries into weights, and the gradients of the weights into those of the products, less the
// scale.
template <u32 GROUPS, u32 COLUMNS>
__device__ __forceinline__ void weigh(
    float (&scores)[GROUPS][COLUMNS][4], float (&pushes)[GROUPS][COLUMNS][4], const Statistic* statistics, float scale)
{
    u32 column = threadIdx.x % 4 * 2;
#pragma unroll
    for (u32 n = 0; n < COLUMNS; n++) {
        float4 both = *reinterpret_cast<const float4*>(statistics + 8 * n + column);
#pragma unroll
        for (u32 m = 0; m < GROUPS; m++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                float weight = exp2_approx(fmaf(scores[m][n][i], scale, -(i % 2 ? both.z : both.x)));
                scores[m][n][i] = weight;
                pushes[m][n][i] = weight * (pushes[m][n][i] - (i % 2 ? both.w : both.y));
            }
        }
    }
}

// The gradients of keys, of values or of both, of one tile of keys. `causal`: whether query i sees no key behind i;
// those of the prefix are seen by all. `rows`: of all sequences.
template <u32 WIDTH, bool KEYS, bool VALUES>
__device__ __forceinline__ void backward_keys(
    const Span* work, const Queries* sequences, const bf16* q, const bf16* k, const bf16* v, const bf16* d_out,
    const Statistic* statistics, bf16* dk, bf16* dv, float* dk_parts, float* dv_parts, u32 rows, u32 heads,
    u32 kv_heads, u32 features, u32 causal, float scale)
{
    using S = KeySide<WIDTH>;
    SHARED_MEMORY(bf16, key_tile);
    bf16* value_tile = key_tile + S::ROWS * WIDTH;
    bf16* query_tile = value_tile + S::ROWS * WIDTH;
    bf16* d_out_tile = query_tile + S::OTHERS * WIDTH;
    Statistic* statistic_tile = reinterpret_cast<Statistic*>(d_out_tile + S::OTHERS * WIDTH);
    SHARED_ARRAY(Turn, turns, [2]);

    Span span = work[blockIdx.x / kv_heads];
    u32 at = blockIdx.x - span.first * kv_heads, kv_head = at / span.tiles, first_key = at % span.tiles * S::ROWS;
    u32 group = heads / kv_heads, start = causal ? first_key : 0;
    Rows keys = rows_of(0, span.keys_begin, span.keys, kv_head, kv_heads, features);
    u32 warp_row = threadIdx.x / 32 * S::WARP_ROWS, warp_key = first_key + warp_row;
    bool works = __any_sync(0xffffffffu, warp_key < span.keys);  // tells the compiler that all lanes agree
    if (threadIdx.x == 0) {
        Turn turn = {{}, span.sequences_begin, kv_head * group, start, 0, false};
        turns[0] = settled(turn, span, sequences, start, kv_head, group, heads, features);
    }
    load_tile<S::ROWS, WIDTH, THREADS>(key_tile, k, k, keys, first_key);
    load_tile<S::ROWS, WIDTH, THREADS>(value_tile, v, v, keys, first_key);
    __syncthreads();

    float key_sums[S::GROUPS][WIDTH / 8][4], value_sums[S::GROUPS][WIDTH / 8][4];
    if (KEYS) clear(key_sums);
    if (VALUES) clear(value_sums);
    Statistic statistic = NO_ROW;
    auto begin_queries = [&](const Turn& turn) {
        load_tile<S::OTHERS, WIDTH, THREADS>(query_tile, q, q, turn.rows, turn.first);
        u32 row = turn.first + threadIdx.x;
        bool there = threadIdx.x < S::OTHERS && row < turn.rows.rows;
        statistic = there ? statistics[(u64)turn.head * rows + turn.begin + row] : NO_ROW;
    };
    auto put_statistic = [&] {
        if (threadIdx.x < S::OTHERS) statistic_tile[threadIdx.x] = statistic;
    };
    if (turns[0].there) begin_queries(turns[0]);
    put_statistic();
    cp_async_commit();
    for (u32 i = 0; turns[i % 2].there; i++) {
        const Turn& turn = turns[i % 2];
        Turn& next = turns[(i + 1) % 2];
        cp_async_wait<0>();
        __syncthreads();
        load_tile<S::OTHERS, WIDTH, THREADS>(d_out_tile, d_out, d_out, turn.rows, turn.first);
        cp_async_commit();
        auto await_d_out = [&] {
            cp_async_wait<0>();
            __syncthreads();
            if (threadIdx.x == 0) {
                Turn settling = turn;
                settling.first += S::OTHERS;
                bool same = settling.first < turn.rows.rows;
                next = same ? settling : settled(settling, span, sequences, start, kv_head, group, heads, features);
            }
            __syncwarp(); // the lanes multiply together from here on
        };
        auto turn_queries = [&] {
            __syncthreads();
            if (next.there) begin_queries(next);
            cp_async_commit();
        };
        if (!works) {
            await_d_out();
            turn_queries();
            put_statistic();
            continue;
        }
        // Keys by queries.
        float scores[S::GROUPS][S::OTHERS / 8][4], pushes[S::GROUPS][S::OTHERS / 8][4];
        clear(scores);
        multiply_rows<WIDTH>(scores, key_tile + warp_row * WIDTH, query_tile);
        await_d_out();
        clear(pushes);
        if (KEYS) multiply_rows<WIDTH>(pushes, value_tile + warp_row * WIDTH, d_out_tile);
        if (causal && turn.first < warp_key + S::WARP_ROWS) hide_later(scores, warp_key, turn.first);
        weigh(scores, pushes, statistic_tile, scale * LOG2_E);
        u32 weights[S::OTHERS / 16][S::GROUPS][4], pushed[S::OTHERS / 16][S::GROUPS][4];
#pragma unroll
        for (u32 j = 0; j < S::OTHERS / 16; j++) {
            if (KEYS) round_weights(pushed[j], pushes, j);
            if (VALUES) round_weights(weights[j], scores, j);
        }
#pragma unroll
        for (u32 j = 0; j < S::OTHERS / 16; j++) {
            if (KEYS) multiply_columns<WIDTH>(key_sums, pushed[j], query_tile + 16 * j * WIDTH);
        }
        turn_queries();
#pragma unroll
        for (u32 j = 0; j < S::OTHERS / 16; j++) {
            if (VALUES) multiply_columns<WIDTH>(value_sums, weights[j], d_out_tile + 16 * j * WIDTH);
        }
        put_statistic();
    }
    cp_async_wait<0>();
    __syncthreads();
    if (!works) return;
    u64 to = ((u64)(span.results_begin + warp_key) * kv_heads + kv_head) * features;
    auto store = [&](const float(&sums)[S::GROUPS][WIDTH / 8][4], float factor, bf16* tile, bf16* all, float* parts) {
        store_sums<WIDTH>(sums, factor, tile + warp_row * WIDTH, all + to, parts ? parts + to : nullptr,
                          min(S::WARP_ROWS, span.keys - warp_key), features, (u64)kv_heads * features);
    };
    if (KEYS) store(key_sums, scale, key_tile, dk, dk_parts);
    if (VALUES) store(value_sums, 1.0f, value_tile, dv, dv_parts);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_keys_bf16_32(
    const Span* __restrict__ work,
    const Queries* __restrict__ sequences,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ d_out,
    const Statistic* __restrict__ statistics,
    bf16* __restrict__ dk,
    bf16* __restrict__ dv,
    float* __restrict__ dk_parts,
    float* __restrict__ dv_parts,
    u32 rows,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 causal,
    float scale)
{
    backward_keys<32, true, true>(work, sequences, q, k, v, d_out, statistics, dk, dv, dk_parts, dv_parts, rows, heads,
        kv_heads, features, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_keys_bf16_64(
    const Span* __restrict__ work,
    const Queries* __restrict__ sequences,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ d_out,
    const Statistic* __restrict__ statistics,
    bf16* __restrict__ dk,
    bf16* __restrict__ dv,
    float* __restrict__ dk_parts,
    float* __restrict__ dv_parts,
    u32 rows,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 causal,
    float scale)
{
    backward_keys<64, true, true>(work, sequences, q, k, v, d_out, statistics, dk, dv, dk_parts, dv_parts, rows, heads,
        kv_heads, features, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_keys_bf16_96(
    const Span* __restrict__ work,
    const Queries* __restrict__ sequences,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ d_out,
    const Statistic* __restrict__ statistics,
    bf16* __restrict__ dk,
    bf16* __restrict__ dv,
    float* __restrict__ dk_parts,
    float* __restrict__ dv_parts,
    u32 rows,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 causal,
    float scale)
{
    backward_keys<96, true, true>(work, sequences, q, k, v, d_out, statistics, dk, dv, dk_parts, dv_parts, rows, heads,
        kv_heads, features, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_keys_bf16_128(
    const Span* __restrict__ work,
    const Queries* __restrict__ sequences,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ d_out,
    const Statistic* __restrict__ statistics,
    bf16* __restrict__ dk,
    bf16* __restrict__ dv,
    float* __restrict__ dk_parts,
    float* __restrict__ dv_parts,
    u32 rows,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 causal,
    float scale)
{
    backward_keys<128, true, true>(work, sequences, q, k, v, d_out, statistics, dk, dv, dk_parts, dv_parts, rows, heads,
        kv_heads, features, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_keys_bf16_256(
    const Span* __restrict__ work,
    const Queries* __restrict__ sequences,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ d_out,
    const Statistic* __restrict__ statistics,
    bf16* __restrict__ dk,
    bf16* __restrict__ dv,
    float* __restrict__ dk_parts,
    float* __restrict__ dv_parts,
    u32 rows,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 causal,
    float scale)
{
    backward_keys<256, true, false>(work, sequences, q, k, v, d_out, statistics, dk, dv, dk_parts, dv_parts, rows,
        heads, kv_heads, features, causal, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_values_bf16_256(
    const Span* __restrict__ work,
    const Queries* __restrict__ sequences,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ d_out,
    const Statistic* __restrict__ statistics,
    bf16* __restrict__ dk,
    bf16* __restrict__ dv,
    float* __restrict__ dk_parts,
    float* __restrict__ dv_parts,
    u32 rows,
    u32 heads,
    u32 kv_heads,
    u32 features,
    u32 causal,
    float scale)
{
    backward_keys<256, false, true>(work, sequences, q, k, v, d_out, statistics, dk, dv, dk_parts, dv_parts, rows,
        heads, kv_heads, features, causal, scale);
}
