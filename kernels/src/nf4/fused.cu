// Products of some rows with a weight that is decoded in registers, on the tensor cores.
//
// A block computes 128 outputs (rows of the weight; columns in the backward) of up to 128 tokens (rows of x) in steps of
// 64 terms. Tokens, codes and magnitudes come three or four steps ahead into shared memory. Eight warps have four strips of
// 32 outputs and of every step one of two halves of 32 terms, so that each value is decoded by one warp alone; the weight is
// the 16-row operand, which comes from registers. The two halves are added at the end, first half first.
//
// The order of terms is the weight's own: lane (g, t) decodes what lies next to each other, eight terms in the forward, four
// outputs in the backward, and reads the eight terms of a token in one piece: 16 bytes are the other operand of two steps of
// the tensor cores. So nothing is transposed, in the backward neither: there a byte holds two outputs, and two rows of the
// weight make the pair of terms.
//
// A low-rank update is part of the sums, of the first part of the terms if there are several, so that the result is written
// once: its rank, rounded up to 16, is that many more terms. Its factors come as f32 from the caches while the first
// steps are under way and are rounded to bfloat16: at rank 8 a quarter of a step on the tensor cores, by half of the warps.
//
// Shared memory lies in pieces of 16 bytes, moved about so that lanes served together find banks of their own.
//
// Bytes a step: 128 x 64 values of 0.516, and 128 for a token, from the second-level cache for all blocks but the first.
// Shared memory moves 64 KiB for the tokens, 32 for look-ups and 20 for copies at 128 tokens: 930 cycles, against about 830 of the
// tensor cores of an H200 by mma.sync, and 1024 of an A100.

#define THREADS 256
// Sums of a token lie so far from those of the next that lanes write to banks of their own.
#define PADDED 132

template <u32 TOKENS, u32 STAGES>
struct Shared {
    float2 pairs[PAIRS];
    float dynamic[256];
    bf16 x[STAGES][TOKENS][TERMS];
    u8 codes[STAGES][OUTPUTS * TERMS / 2];
    float magnitudes[STAGES][OUTPUTS];
};

template <typename Pass, u32 TOKENS, u32 STAGES>
struct Tile {
    Shared<TOKENS, STAGES>& shared;
    const Operands& o;
    u32 first_output, first_token;

    // Begins to copy a step.
    __device__ __forceinline__ void fetch(u32 step) {
        u32 slot = step % STAGES, first_term = step * TERMS, terms = Pass::terms(o);
        u32 token = threadIdx.x / 8, piece = threadIdx.x % 8, term = first_term + 8 * piece;
        bf16* to = &shared.x[slot][token][8 * (piece ^ token % 2 * 4)];
#pragma unroll
        for (u32 k = 0; k < TOKENS; k += THREADS / 8) {
            bool there = first_token + token + k < o.n && term < terms;
            const bf16* from = o.x + (there ? (u64)(first_token + token + k) * terms + term : 0);
            cp_async_16_zfill(to + k * TERMS, from, there ? 16 : 0);
        }
        Pass::fetch(shared.codes[slot], o, first_output, first_term);
    }

    // Asks for the magnitude of this thread in a step, if it has one there.
    __device__ __forceinline__ bool ask(Stored& s, u32 step) {
        u32 block;
        if (threadIdx.x >= OUTPUTS || !Pass::find(block, o, threadIdx.x, first_output, step * TERMS)) return false;
        s = stored(o.magnitudes, block);
        return true;
    }

    __device__ __forceinline__ void keep(u32 step, bool there, const Stored& s) {
        if (threadIdx.x >= OUTPUTS) return;
        shared.magnitudes[step % STAGES][threadIdx.x] = there ? magnitude(o.magnitudes, s, shared.dynamic) : 0.0f;
    }

    // Begins the sums with the update, 16 of its terms at a time: the halves of a step take turns. Lane (g, t) has of them
    // the terms 4t to 4t + 3, of both operands.
    __device__ __forceinline__ void begin(float (&sums)[TOKENS / 8][2][4]) {
        const LowRank& u = o.update;
        u32 warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        for (u32 first = 16 * (warp / 4); first < u.rank; first += 32) {
            u32 a[2][4];
            Pass::factors(a, o, first_output + 32 * (warp % 4) + 4 * g, first + 4 * t);
#pragma unroll
            for (u32 tile = 0; tile < TOKENS / 8; tile++) {
                u32 token = min(first_token + 8 * tile + g, o.n - 1);
                float4 v = four_terms(u.left + (u64)token * u.rank, first + 4 * t, u.rank);
                const u32 b[2] = {bf16_pair(u.scale * v.x, u.scale * v.y), bf16_pair(u.scale * v.z, u.scale * v.w)};
                mma_bf16_16x8x16(sums[tile][0], a[0], b);
                mma_bf16_16x8x16(sums[tile][1], a[1], b);
            }
        }
    }

    __device__ __forceinline__ void multiply(float (&sums)[TOKENS / 8][2][4], u32 step) {
        u32 slot = step % STAGES, warp = threadIdx.x / 32, strip = warp % 4, half = warp / 4;
        u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        Fragments a;
        Pass::decode(a, shared.pairs, shared.codes[slot], shared.magnitudes[slot], strip, half);
        const bf16* from = &shared.x[slot][g][8 * ((4 * half + t) ^ g % 2 * 4)];
#pragma unroll
        for (u32 tile = 0; tile < TOKENS / 8; tile++) {
            uint4 x = *reinterpret_cast<const uint4*>(from + 8 * tile * TERMS);
            multiply_strip(sums[tile][0], sums[tile][1], a, x);
        }
    }

    // Adds what the second halves came to, and leaves the sums in shared memory: [token][output].
    __device__ __forceinline__ float* gather(const float (&sums)[TOKENS / 8][2][4]) {
        float* all = reinterpret_cast<float*>(&shared);
        u32 warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (u32 half = 2; half-- > 0;) {
            if (warp / 4 == half) {
#pragma unroll
                for (u32 i = 0; i < TOKENS / 4; i++) {
                    float4 v = sums_of(sums[i / 2][0], sums[i / 2][1], i % 2);
                    u32 token = i / 2 * 8 + 2 * t + i % 2;
                    float4* place = reinterpret_cast<float4*>(all + token * PADDED + 32 * (warp % 4) + 4 * g);
                    if (half == 0) {
                        float4 second = *place;
                        v = make_float4(v.x + second.x, v.y + second.y, v.z + second.z, v.w + second.w);
                    }
                    *place = v;
                }
            }
            __syncthreads();
        }
        return all;
    }

    // Writes eight neighbouring sums of a token a thread, rounded, or as they are for a later stage: [split][token][output].
    __device__ __forceinline__ void write(const float* all, bf16* __restrict__ y, float* __restrict__ parts) {
        u32 outputs = Pass::outputs(o);
        for (u32 i = threadIdx.x; i < TOKENS * OUTPUTS / 8; i += THREADS) {
            u32 token = first_token + i / (OUTPUTS / 8), column = i % (OUTPUTS / 8) * 8, output = first_output + column;
            if (token >= o.n || output >= outputs) continue;
            const float4* from = reinterpret_cast<const float4*>(all + i / (OUTPUTS / 8) * PADDED + column);
            const float4 a = from[0], b = from[1];
            const float v[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
            u64 at = (u64)token * outputs + output;
            if (parts) at += (u64)blockIdx.z * o.n * outputs;
            if (outputs % 8) {
                for (u32 k = 0; k < 8 && output + k < outputs; k++) {
                    if (parts) parts[at + k] = v[k];
                    else y[at + k] = to_bf16(v[k]);
                }
            } else if (parts) {
                reinterpret_cast<float4*>(parts + at)[0] = a;
                reinterpret_cast<float4*>(parts + at)[1] = b;
            } else {
                *reinterpret_cast<uint4*>(y + at) = make_uint4(bf16_pair(v[0], v[1]), bf16_pair(v[2], v[3]),
                                                               bf16_pair(v[4], v[5]), bf16_pair(v[6], v[7]));
            }
        }
    }
};

// Block (x, y, z) has the outputs 128 x, the tokens TOKENS y and the steps z * steps to (z + 1) * steps. The terms fill whole
// pieces of eight, and rows of the weight whole blocks.
template <typename Pass, u32 TOKENS, u32 STAGES>
__device__ __forceinline__ void multiply(
    const Operands& o, const float* __restrict__ books, bf16* __restrict__ y, float* __restrict__ parts, u32 steps) {
    SHARED_MEMORY(u8, memory);
    using Memory = Shared<TOKENS, STAGES>;
    Tile<Pass, TOKENS, STAGES> tile = {*reinterpret_cast<Memory*>(memory), o, blockIdx.x * OUTPUTS, blockIdx.y * TOKENS};
    u32 first = blockIdx.z * steps, end = min(first + steps, (Pass::terms(o) + TERMS - 1) / TERMS);
    Stored asked[STAGES - 1];
    bool there[STAGES - 1];
#pragma unroll
    for (u32 i = 0; i < STAGES - 1; i++) {
        if (first + i < end) tile.fetch(first + i);
        cp_async_commit();
        there[i] = first + i < end && tile.ask(asked[i], first + i);
    }
    fill_pairs(tile.shared.pairs, books);
    if (o.magnitudes.codes) tile.shared.dynamic[threadIdx.x] = books[CODES + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < STAGES - 1; i++) tile.keep(first + i, there[i], asked[i]);

    float sums[TOKENS / 8][2][4] = {};
    if (blockIdx.z == 0) tile.begin(sums);
    for (u32 step = first; step < end; step++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        u32 later = step + STAGES - 1;
        Stored next;
        if (later < end) tile.fetch(later);
        cp_async_commit();
        bool has = later < end && tile.ask(next, later);
        tile.multiply(sums, step);
        tile.keep(later, has, next);
    }
    cp_async_wait<0>();
    __syncthreads();
    tile.write(tile.gather(sums), y, parts);
}

// Tokens of a block: 32 and 64 with four steps in shared memory, 128 with three, so that 94.5 KiB are enough: a card with 99
// has room for them.

extern "C" __global__ void __launch_bounds__(THREADS, 2) forward_32(
    const bf16* __restrict__ x,
    const u8* __restrict__ codes,
    const float* __restrict__ magnitudes,
    const u8* __restrict__ magnitude_codes,
    const float* __restrict__ books,
    float offset,
    u32 d_out,
    u32 d_in,
    const float* __restrict__ left,
    const float* __restrict__ right,
    float scale,
    u32 rank,
    bf16* __restrict__ y,
    float* __restrict__ parts,
    u32 n,
    u32 steps)
{
    const Operands o = {x, codes, {magnitudes, magnitude_codes, offset}, d_out, d_in, n, {left, right, scale, rank}};
    multiply<Forward, 32, 4>(o, books, y, parts, steps);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) forward_64(
    const bf16* __restrict__ x,
    const u8* __restrict__ codes,
    const float* __restrict__ magnitudes,
    const u8* __restrict__ magnitude_codes,
    const float* __restrict__ books,
    float offset,
    u32 d_out,
    u32 d_in,
    const float* __restrict__ left,
    const float* __restrict__ right,
    float scale,
    u32 rank,
    bf16* __restrict__ y,
    float* __restrict__ parts,
    u32 n,
    u32 steps)
{
    const Operands o = {x, codes, {magnitudes, magnitude_codes, offset}, d_out, d_in, n, {left, right, scale, rank}};
    multiply<Forward, 64, 4>(o, books, y, parts, steps);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) forward_128(
    const bf16* __restrict__ x,
    const u8* __restrict__ codes,
    const float* __restrict__ magnitudes,
    const u8* __restrict__ magnitude_codes,
    const float* __restrict__ books,
    float offset,
    u32 d_out,
    u32 d_in,
    const float* __restrict__ left,
    const float* __restrict__ right,
    float scale,
    u32 rank,
    bf16* __restrict__ y,
    float* __restrict__ parts,
    u32 n,
    u32 steps)
{
    const Operands o = {x, codes, {magnitudes, magnitude_codes, offset}, d_out, d_in, n, {left, right, scale, rank}};
    multiply<Forward, 128, 3>(o, books, y, parts, steps);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_32(
    const bf16* __restrict__ x,
    const u8* __restrict__ codes,
    const float* __restrict__ magnitudes,
    const u8* __restrict__ magnitude_codes,
    const float* __restrict__ books,
    float offset,
    u32 d_out,
    u32 d_in,
    const float* __restrict__ left,
    const float* __restrict__ right,
    float scale,
    u32 rank,
    bf16* __restrict__ y,
    float* __restrict__ parts,
    u32 n,
    u32 steps)
{
    const Operands o = {x, codes, {magnitudes, magnitude_codes, offset}, d_out, d_in, n, {left, right, scale, rank}};
    multiply<Backward, 32, 4>(o, books, y, parts, steps);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) backward_64(
    const bf16* __restrict__ x,
    const u8* __restrict__ codes,
    const float* __restrict__ magnitudes,
    const u8* __restrict__ magnitude_codes,
    const float* __restrict__ books,
    float offset,
    u32 d_out,
    u32 d_in,
    const float* __restrict__ left,
    const float* __restrict__ right,
    float scale,
    u32 rank,
    bf16* __restrict__ y,
    float* __restrict__ parts,
    u32 n,
    u32 steps)
{
    const Operands o = {x, codes, {magnitudes, magnitude_codes, offset}, d_out, d_in, n, {left, right, scale, rank}};
    multiply<Backward, 64, 4>(o, books, y, parts, steps);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) backward_128(
    const bf16* __restrict__ x,
    const u8* __restrict__ codes,
    const float* __restrict__ magnitudes,
    const u8* __restrict__ magnitude_codes,
    const float* __restrict__ books,
    float offset,
    u32 d_out,
    u32 d_in,
    const float* __restrict__ left,
    const float* __restrict__ right,
    float scale,
    u32 rank,
    bf16* __restrict__ y,
    float* __restrict__ parts,
    u32 n,
    u32 steps)
{
    const Operands o = {x, codes, {magnitudes, magnitude_codes, offset}, d_out, d_in, n, {left, right, scale, rank}};
    multiply<Backward, 128, 3>(o, books, y, parts, steps);
}

// Adds what the parts of the terms came to, in order.
extern "C" __global__ void __launch_bounds__(THREADS) add_parts(
    const float* __restrict__ parts,  // [splits, n]
    bf16* __restrict__ y,
    u64 n,
    u32 splits)
{
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float sum = parts[i];
#pragma unroll 4
    for (u32 split = 1; split < splits; split++) sum += parts[split * n + i];
    y[i] = to_bf16(sum);
}
