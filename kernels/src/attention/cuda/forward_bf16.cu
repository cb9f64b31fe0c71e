// behind: tiles.cuh, tiles_bf16.cuh
//
// Attention in bfloat16 on the tensor cores, after FlashAttention-2 (Dao, 2023): scores stay in registers, and softmax
// is corrected from tile to tile of keys.
//
// Threads: a block of 4 warps for 128 query rows of one sequence and head, 32 rows a warp (16 where heads are wider
// than 128, which leaves 64 rows a block). A fragment of keys or values that a warp loads serves both of its 16 rows:
// 128 bytes of shared memory a product of 16x8x16, which leaves the tensor cores the bound. A warp passes over tiles of
// 64 keys that none of its rows sees, and those without rows over all.
//
// Shared memory: the queries, a tile of keys, one of values and what softmax has seen: 68 KiB for heads of 128, so that
// two blocks fit on an A100 and an H200, and one on an RTX 4090. Keys and values take turns: the tile of one is copied
// while the other's is multiplied. Two full stages of both would be 100 KiB, and one block on an A100.
//
// Registers: of the 255 that a thread has, heads of 128 need 128 for the result and 64 for scores. What a loop needs
// seldom is therefore kept in shared memory or computed anew from `opaque` numbers.
//
// Traffic: queries are read and results written once, 16 bytes a thread and whole rows a warp; keys and values once for
// every block, that is seen * head_dim * 4 bytes, from the L2 cache but for the first block of a head.
//
// A row's sums go over its keys in their order, from tile to tile, and tiles are cut from the first key on. So its bits
// depend on its own sequence and the prefix alone, and not on whether the prefix is shared or written before the keys.

#define THREADS (32 * WARPS)
#define KEYS 64  // of a tile

// What a warp computes.
template <u32 WIDTH>
struct Rounds {
    static constexpr u32 GROUPS = WIDTH > 128 ? 1 : 2;  // of 16 rows
    static constexpr u32 WARP_ROWS = 16 * GROUPS;
    static constexpr u32 ROWS = WARPS * WARP_ROWS;
    float out[GROUPS][WIDTH / 8][4];
    float scores[GROUPS][KEYS / 8][4];
};

// What softmax has seen of a row: the largest score, and the sum of exponentials in the columns of a lane.
struct Softmax {
    float top;
    float total;
};

// Hides the keys from `visible` on, of which row i of the warp sees i more if the mask is causal, and from `end` on.
template <u32 WIDTH>
__device__ __forceinline__ void hide(Rounds<WIDTH>& r, u32 first_key, u32 visible, u32 end, bool causal) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 m = 0; m < Rounds<WIDTH>::GROUPS; m++) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 hidden = min(causal ? visible + 16 * m + lane / 4 + i / 2 * 8 : visible, end);
#pragma unroll
            for (u32 n = 0; n < KEYS / 8; n++) {
                if (first_key + 8 * n + lane % 4 * 2 + i % 2 >= hidden) r.scores[m][n][i] = -INFINITY;
            }
        }
    }
}

// Turns scores into weights of which the largest so far is 1, and corrects what is there to that. `scale` is that of
// the scores in powers of two.
template <u32 WIDTH>
__device__ __forceinline__ void weigh(Rounds<WIDTH>& r, Softmax* softmax, float scale) {
#pragma unroll
    for (u32 m = 0; m < Rounds<WIDTH>::GROUPS; m++) {
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            Softmax seen = softmax[(2 * m + h) * THREADS];
            float top = seen.top;
#pragma unroll
            for (u32 n = 0; n < KEYS / 8; n++) {
                top = fmaxf(top, fmaxf(r.scores[m][n][2 * h], r.scores[m][n][2 * h + 1]));
            }
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
            // Where all scores are -∞ so far they weigh nothing.
            float shift = top == -INFINITY ? 0.0f : top * scale;
            float factor = exp2_approx(seen.top * scale - shift);
            float sum = 0.0f;
#pragma unroll
            for (u32 n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (u32 i = 2 * h; i < 2 * h + 2; i++) {
                    r.scores[m][n][i] = exp2_approx(fmaf(r.scores[m][n][i], scale, -shift));
                    sum += r.scores[m][n][i];
                }
            }
            softmax[(2 * m + h) * THREADS] = Softmax{top, fmaf(seen.total, factor, sum)};
#pragma unroll
            for (u32 n = 0; n < WIDTH / 8; n++) {
                r.out[m][n][2 * h] *= factor;
                r.out[m][n][2 * h + 1] *= factor;
            }
        }
    }
}

// Divides by the totals, rounds, and puts the warp's rows to where its queries were; leaves the logarithms of the
// denominators in the places of the totals.
template <u32 WIDTH>
__device__ __forceinline__ void finish(
    const Rounds<WIDTH>& r, Softmax* softmax, bf16* queries, float scale, bool blind)
{
    __syncwarp();
#pragma unroll
    for (u32 m = 0; m < Rounds<WIDTH>::GROUPS; m++) {
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            Softmax seen = softmax[(2 * m + h) * THREADS];
            float total = seen.total;
            total += __shfl_xor_sync(0xffffffffu, total, 1);
            total += __shfl_xor_sync(0xffffffffu, total, 2);
            softmax[(2 * m + h) * THREADS].total = blind ? -INFINITY : fmaf(seen.top, scale, logf(total));
            put_row<WIDTH>(queries + 16 * m * WIDTH, r.out[m], h, blind ? 0.0f : __fdividef(1.0f, total));
        }
    }
    __syncwarp();
}

// Writes the warp's results to memory.
template <u32 WIDTH>
__device__ __forceinline__ void store(
    const bf16* results, const Softmax* softmax, const Place& place, bf16* out, float* log_sums, u32 heads,
    u32 features)
{
    using R = Rounds<WIDTH>;
    u32 first = place.tile * R::ROWS + threadIdx.x / 32 * R::WARP_ROWS, lane = threadIdx.x % 32;
    if (first >= place.sequence.queries) return;
    u32 rows = min(R::WARP_ROWS, place.sequence.queries - first);
    u64 begin = (u64)(place.sequence.queries_begin + first) * heads + place.head;
    store_tile<WIDTH>(results, out + begin * features, rows, features, (u64)heads * features);
    if (!log_sums || lane % 4 != 0) return;
#pragma unroll
    for (u32 i = 0; i < 2 * R::GROUPS; i++) {
        u32 row = 8 * i + lane / 4;
        if (row < rows) log_sums[begin + (u64)row * heads] = softmax[i * THREADS].total;
    }
}

template <u32 WIDTH>
__device__ __forceinline__ void forward(
    const Sequence* work, const bf16* q, const bf16* k, const bf16* v, const bf16* prefix_k, const bf16* prefix_v,
    bf16* out, float* log_sums, u32 heads, u32 kv_heads, u32 features, u32 prefix, u32 causal, float scale)
{
    using R = Rounds<WIDTH>;
    SHARED_MEMORY(bf16, query_tile);
    bf16* key_tile = query_tile + R::ROWS * WIDTH;
    bf16* value_tile = key_tile + KEYS * WIDTH;
    Softmax* softmax = reinterpret_cast<Softmax*>(value_tile + KEYS * WIDTH) + threadIdx.x;
    SHARED_ARRAY(Place, kept_place, [1]);
    SHARED_ARRAY(Rows, kept_rows, [1]);

    Place place = place_of_block(work, heads);
    const Sequence& s = place.sequence;
    u32 first_row = place.tile * R::ROWS, rows = min(R::ROWS, s.queries - first_row);
    Rows queries = rows_of(0, s.queries_begin, s.queries, place.head, heads, features);
    Rows keys = rows_of(prefix, s.keys_begin, s.keys, place.head / (heads / kv_heads), kv_heads, features);
    // Kept where they take no registers.
    if (threadIdx.x == 0) {
        kept_place[0] = place;
        kept_rows[0] = keys;
    }
    u32 seen = causal ? prefix + first_row + rows : keys.rows;
    // Of the warp: its rows of the tile, keys that the first of them sees, and keys that the last does.
    u32 warp_row = threadIdx.x / 32 * R::WARP_ROWS;
    u32 visible = causal ? prefix + first_row + warp_row + 1 : seen;
    u32 warp_seen = warp_row >= rows ? 0 : causal ? min(visible + R::WARP_ROWS - 1, seen) : seen;
    warp_seen = __shfl_sync(0xffffffffu, warp_seen, 0);  // tells the compiler that all lanes agree
    bf16* warp_queries = query_tile + warp_row * WIDTH;

    load_tile<R::ROWS, WIDTH, THREADS>(query_tile, q, q, queries, first_row);
    if (seen > 0) load_tile<KEYS, WIDTH, THREADS>(key_tile, prefix_k, k, keys, 0);
    cp_async_commit();
    R r;
    clear(r.out);
#pragma unroll
    for (u32 i = 0; i < 2 * R::GROUPS; i++) softmax[i * THREADS] = Softmax{-INFINITY, 0.0f};
    for (u32 first_key = 0; first_key < seen; first_key += KEYS) {
        cp_async_wait<0>();
        __syncthreads();
        load_tile<KEYS, WIDTH, THREADS>(value_tile, prefix_v, v, kept_rows[0], first_key);
        cp_async_commit();
        auto turn = [&] {
            cp_async_wait<0>();
            __syncthreads();
            u32 next = first_key + KEYS;
            if (next < seen) load_tile<KEYS, WIDTH, THREADS>(key_tile, prefix_k, k, kept_rows[0], next);
            cp_async_commit();
        };
        if (first_key >= warp_seen) {
            turn();
            continue;
        }
        clear(r.scores);
        multiply_rows<WIDTH>(r.scores, warp_queries, key_tile);
        turn();
        if (first_key + KEYS > visible) hide(r, first_key, visible, seen, causal);
        weigh(r, softmax, scale * LOG2_E);
#pragma unroll
        for (u32 i = 0; i < KEYS / 16; i++) {
            u32 weights[R::GROUPS][4];
            round_weights(weights, r.scores, i);
            multiply_columns<WIDTH>(r.out, weights, value_tile + 16 * i * WIDTH);
        }
    }
    cp_async_wait<0>();
    __syncthreads();
    finish(r, softmax, warp_queries, scale, seen == 0);
    store<WIDTH>(warp_queries, softmax, kept_place[0], out, log_sums, heads, features);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) forward_bf16_32(
    const Sequence* __restrict__ work,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ prefix_k,
    const bf16* __restrict__ prefix_v,
    bf16* __restrict__ out,
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

extern "C" __global__ void __launch_bounds__(THREADS, 2) forward_bf16_64(
    const Sequence* __restrict__ work,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ prefix_k,
    const bf16* __restrict__ prefix_v,
    bf16* __restrict__ out,
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

extern "C" __global__ void __launch_bounds__(THREADS, 2) forward_bf16_96(
    const Sequence* __restrict__ work,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ prefix_k,
    const bf16* __restrict__ prefix_v,
    bf16* __restrict__ out,
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

extern "C" __global__ void __launch_bounds__(THREADS, 2) forward_bf16_128(
    const Sequence* __restrict__ work,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ prefix_k,
    const bf16* __restrict__ prefix_v,
    bf16* __restrict__ out,
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

extern "C" __global__ void __launch_bounds__(THREADS, 2) forward_bf16_256(
    const Sequence* __restrict__ work,
    const bf16* __restrict__ q,
    const bf16* __restrict__ k,
    const bf16* __restrict__ v,
    const bf16* __restrict__ prefix_k,
    const bf16* __restrict__ prefix_v,
    bf16* __restrict__ out,
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
