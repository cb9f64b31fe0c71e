// Attention in bfloat16 on the tensor cores, after FlashAttention-2 (Dao, 2023): scores stay in registers, and softmax is
// corrected from tile to tile of keys.
//
// Threads: a block of 4 warps for 128 query rows of one sequence and head, 32 rows a warp (16 where heads are wider than
// 128, which leaves 64 rows a block). A fragment of keys or values that a warp loads serves both of its 16 rows: 128 bytes
// of shared memory a product of 16x8x16, which leaves the tensor cores the bound. A warp passes over tiles of 64 keys that
// none of its rows sees, and those without rows over all.
//
// Shared memory: the queries, a tile of keys, one of values and what softmax has seen: 68 KiB for heads of 128, so that two
// blocks fit on an A100 and an H200, and one on an RTX 4090. Keys and values take turns: the tile of one is copied while the
// other's is multiplied. Two full stages of both would be 100 KiB, and one block on an A100.
//
// Registers: of the 255 that a thread has, heads of 128 need 128 for the result and 64 for scores. What a loop needs seldom is
// therefore kept in shared memory or computed anew from `opaque` numbers.
//
// Traffic: queries are read and results written once, 16 bytes a thread and whole rows a warp; keys and values once for
// every block, that is seen * head_dim * 4 bytes, from the L2 cache but for the first block of a head.
//
// A row's sums go over its keys in their order, from tile to tile, and tiles are cut from the first key on. So its bits
// depend on its own sequence and the prefix alone, and not on whether the prefix is shared or written before the keys.

#define WARPS 4
#define THREADS (32 * WARPS)
#define KEYS 64  // of a tile

// What a warp computes: the rows g and g + 8 of every 16, with g = lane / 4, as tensor cores leave them.
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

template <u32 WIDTH>
__device__ __forceinline__ void begin(Rounds<WIDTH>& r, Softmax* softmax) {
#pragma unroll
    for (u32 m = 0; m < Rounds<WIDTH>::GROUPS; m++) {
#pragma unroll
        for (u32 n = 0; n < WIDTH / 8; n++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) r.out[m][n][i] = 0.0f;
        }
#pragma unroll
        for (u32 h = 0; h < 2; h++) softmax[(2 * m + h) * THREADS] = Softmax{-INFINITY, 0.0f};
    }
}

// scores = queries · keysᵀ, over the warp's rows of `queries` and a tile of keys.
template <u32 WIDTH>
__device__ __forceinline__ void multiply_keys(Rounds<WIDTH>& r, const bf16* queries, const bf16* keys) {
    u32 lane = opaque(threadIdx.x) % 32;
#pragma unroll
    for (u32 m = 0; m < Rounds<WIDTH>::GROUPS; m++) {
#pragma unroll
        for (u32 n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) r.scores[m][n][i] = 0.0f;
        }
    }
    u32 query = turned<WIDTH, bf16>(lane % 16, lane / 16);
    u32 key = turned<WIDTH, bf16>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (u32 k = 0; k < WIDTH / 16; k++) {
        u32 a[Rounds<WIDTH>::GROUPS][4];
#pragma unroll
        for (u32 m = 0; m < Rounds<WIDTH>::GROUPS; m++) {
            ldmatrix_x4(a[m], queries + further<WIDTH, bf16>(query, 2 * k) + 16 * m * WIDTH);
        }
#pragma unroll
        for (u32 n = 0; n < KEYS / 16; n++) {
            u32 b[4];
            ldmatrix_x4(b, keys + further<WIDTH, bf16>(key, 2 * k) + 16 * n * WIDTH);
            u32 first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
#pragma unroll
            for (u32 m = 0; m < Rounds<WIDTH>::GROUPS; m++) {
                mma_bf16_16x8x16(r.scores[m][2 * n], a[m], first);
                mma_bf16_16x8x16(r.scores[m][2 * n + 1], a[m], second);
            }
        }
    }
}

// Hides the keys from `visible` on, which row i of the warp sees i more of if the mask is causal.
template <u32 WIDTH>
__device__ __forceinline__ void hide(Rounds<WIDTH>& r, u32 first_key, u32 visible, u32 most, bool causal) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 m = 0; m < Rounds<WIDTH>::GROUPS; m++) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 end = min(causal ? visible + 16 * m + lane / 4 + i / 2 * 8 : visible, most);
#pragma unroll
            for (u32 n = 0; n < KEYS / 8; n++) {
                if (first_key + 8 * n + lane % 4 * 2 + i % 2 >= end) r.scores[m][n][i] = -INFINITY;
            }
        }
    }
}

// Turns scores into weights of which the largest so far is 1, and corrects what is there to that. `scale` is that of the
// scores in powers of two.
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
            float factor = exp2_approx(fmaf(seen.top, scale, -shift));
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

// out += weights · values, with the weights rounded.
template <u32 WIDTH>
__device__ __forceinline__ void multiply_values(Rounds<WIDTH>& r, const bf16* values) {
    u32 lane = opaque(threadIdx.x) % 32;
    u32 value = turned<WIDTH, bf16>(lane % 16, lane / 16);
#pragma unroll
    for (u32 k = 0; k < KEYS / 16; k++) {
        u32 a[Rounds<WIDTH>::GROUPS][4];
#pragma unroll
        for (u32 m = 0; m < Rounds<WIDTH>::GROUPS; m++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const float(&pair)[4] = r.scores[m][2 * k + i / 2];
                a[m][i] = bf16_pair(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
            }
        }
#pragma unroll
        for (u32 n = 0; n < WIDTH / 16; n++) {
            u32 b[4];
            ldmatrix_x4_trans(b, values + further<WIDTH, bf16>(value, 2 * n) + 16 * k * WIDTH);
            u32 first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
#pragma unroll
            for (u32 m = 0; m < Rounds<WIDTH>::GROUPS; m++) {
                mma_bf16_16x8x16(r.out[m][2 * n], a[m], first);
                mma_bf16_16x8x16(r.out[m][2 * n + 1], a[m], second);
            }
        }
    }
}

// Divides by the totals, rounds, and puts the warp's rows to where its queries were. Returns the logarithms of the sums of
// exponentials in `totals`.
template <u32 WIDTH>
__device__ __forceinline__ void finish(const Rounds<WIDTH>& r, Softmax* softmax, bf16* queries, float scale, bool blind) {
    u32 lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (u32 m = 0; m < Rounds<WIDTH>::GROUPS; m++) {
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            Softmax seen = softmax[(2 * m + h) * THREADS];
            float total = seen.total;
            total += __shfl_xor_sync(0xffffffffu, total, 1);
            total += __shfl_xor_sync(0xffffffffu, total, 2);
            float factor = blind ? 0.0f : __fdividef(1.0f, total);
            softmax[(2 * m + h) * THREADS].total = blind ? -INFINITY : fmaf(seen.top, scale, logf(total));
#pragma unroll
            for (u32 n = 0; n < WIDTH / 8; n++) {
                u32 at = turned<WIDTH, bf16>(16 * m + 8 * h + lane / 4, n) + lane % 4 * 2;
                u32 pair = bf16_pair(r.out[m][n][2 * h] * factor, r.out[m][n][2 * h + 1] * factor);
                *reinterpret_cast<u32*>(queries + at) = pair;
            }
        }
    }
    __syncwarp();
}

// Writes the warp's results to memory.
template <u32 WIDTH>
__device__ __forceinline__ void store(
    const bf16* results, const Softmax* softmax, const Place& place, bf16* out, float* log_sums, u32 heads, u32 features)
{
    using R = Rounds<WIDTH>;
    u32 first = place.tile * R::ROWS + threadIdx.x / 32 * R::WARP_ROWS, lane = threadIdx.x % 32;
    if (first >= place.sequence.queries) return;
    u32 rows = min(R::WARP_ROWS, place.sequence.queries - first);
    u64 begin = place.sequence.queries_begin + first;
    for (u32 i = lane; i < R::WARP_ROWS * WIDTH / 8; i += 32) {
        u32 row = i / (WIDTH / 8), feature = i % (WIDTH / 8) * 8;
        if (row >= rows || feature >= features) continue;
        const bf16* from = results + turned<WIDTH, bf16>(row, feature / 8);
        bf16* to = out + ((begin + row) * heads + place.head) * features + feature;
        if (features % 8 == 0) {
            *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
        } else {
#pragma unroll 1
            for (u32 k = 0; k < min(8u, features - feature); k++) to[k] = from[k];
        }
    }
    if (!log_sums || lane % 4 != 0) return;
#pragma unroll
    for (u32 i = 0; i < 2 * R::GROUPS; i++) {
        u32 row = 8 * i + lane / 4;
        if (row < rows) log_sums[(begin + row) * heads + place.head] = softmax[i * THREADS].total;
    }
}

template <u32 WIDTH>
__device__ __forceinline__ void forward(
    const Sequence* work, const bf16* q, const bf16* k, const bf16* v, const bf16* prefix_k, const bf16* prefix_v,
    bf16* out, float* log_sums, u32 heads, u32 kv_heads, u32 features, u32 prefix, u32 causal, float scale)
{
    using R = Rounds<WIDTH>;
    SHARED_MEMORY(bf16, memory);
    bf16* key_tile = memory + R::ROWS * WIDTH;
    bf16* value_tile = key_tile + KEYS * WIDTH;
    Softmax* softmax = reinterpret_cast<Softmax*>(value_tile + KEYS * WIDTH) + threadIdx.x;
    SHARED_ARRAY(Place, kept_place, [1]);
    SHARED_ARRAY(Rows, kept_rows, [1]);

    Place place = place_of_block(work, heads);
    u32 first_row = place.tile * R::ROWS, rows = min(R::ROWS, place.sequence.queries - first_row);
    Rows queries = rows_of(0, place.sequence.queries_begin, place.sequence.queries, place.head, heads, features);
    Rows keys = rows_of(prefix, place.sequence.keys_begin, place.sequence.keys, place.head / (heads / kv_heads), kv_heads, features);
    // Kept where they take no registers.
    if (threadIdx.x == 0) {
        kept_place[0] = place;
        kept_rows[0] = keys;
    }
    u32 seen = causal ? prefix + first_row + rows : keys.rows;
    u32 tiles = (seen + KEYS - 1) / KEYS;
    // Of the warp: its rows of the tile, keys that the first of them sees, and keys that the last does.
    u32 warp_row = threadIdx.x / 32 * R::WARP_ROWS;
    u32 visible = causal ? prefix + first_row + warp_row + 1 : seen;
    u32 warp_seen = warp_row >= rows ? 0 : causal ? min(visible + R::WARP_ROWS - 1, seen) : seen;
    warp_seen = __shfl_sync(0xffffffffu, warp_seen, 0);
    bf16* warp_queries = memory + warp_row * WIDTH;

    load_tile<R::ROWS, WIDTH, THREADS>(memory, q, q, queries, first_row);
    cp_async_commit();
    R r;
    begin(r, softmax);
    if (tiles > 0) load_tile<KEYS, WIDTH, THREADS>(key_tile, prefix_k, k, keys, 0);
    cp_async_commit();
    for (u32 first_key = 0; first_key < seen; first_key += KEYS) {
        cp_async_wait<0>();
        __syncthreads();
        load_tile<KEYS, WIDTH, THREADS>(value_tile, prefix_v, v, kept_rows[0], first_key);
        cp_async_commit();
        auto turn = [&] {
            cp_async_wait<0>();
            __syncthreads();
            if (first_key + KEYS < seen) load_tile<KEYS, WIDTH, THREADS>(key_tile, prefix_k, k, kept_rows[0], first_key + KEYS);
            cp_async_commit();
        };
        if (first_key >= warp_seen) {
            turn();
            continue;
        }
        multiply_keys(r, warp_queries, key_tile);
        turn();
        if (first_key + KEYS > visible) hide(r, first_key, visible, seen, causal);
        weigh(r, softmax, scale * 1.44269504f);
        multiply_values(r, value_tile);
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
