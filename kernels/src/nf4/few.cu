// Products of a few rows: bound by the bytes of the weight, of which every one is read once and decoded in registers.
//
// few_8, few_16 (bfloat16): a block takes 32 rows of the weight, its eight warps every eighth stretch of 128 columns, and a
// warp multiplies its strip on the tensor cores with the weight as the 16-row operand. A lane reads the codes of 32 columns
// of four rows, 16 bytes each, one stretch ahead of the one that it decodes: a block reads 512 bytes of a row in a piece.
// A byte's two values are two instructions for the address, one look-up, two products and one rounding; with loads and
// magnitudes 4.7 for a value whatever the number of rows. Scalar sums would add two for the first row and one for every other;
// an H200 issues 3.5 in the time in which its memory brings a value.
// Bytes: 0.516 a value, and what is read of x again for every block, from the second-level cache.
//
// few_f32: a warp takes four rows of the weight, a lane eight columns of every 256; sums are scalar, so no bit is dropped.
//
// A low-rank update is part of the sums, so that the result is written once. Its factors stay f32: at rank 8 they are 1 KiB for a
// block of 32 rows, beside 66 KiB of codes of 4096 columns. They are read while the first codes are under way; a thread sums
// what it writes in the end, 8 products an output.

#define WARPS 8
#define STRIP 32
// Columns of a stretch, and of a lane in it.
#define STRETCH 128
#define OWN 32
// Rows of partial sums lie so far apart that lanes write to banks of their own.
#define PADDED 36

// What a lane reads of a stretch: 32 columns of four rows.
struct Stretch {
    uint4 codes[4];
    Stored scales[4];
};

// A strip of rows as a lane sees it: the rows 4g to 4g + 3 and, of every stretch, the columns 32t to 32t + 31. A row behind
// the end is the last one again, and what it comes to is not kept.
struct Strip {
    const u8* __restrict__ codes;
    Magnitudes magnitudes;
    u32 first_row, d_out, d_in;
    u32 offsets[4];  // of rows, in bytes of codes from the first one of the strip
    u32 blocks[4];   // the first of every row

    __device__ __forceinline__ Strip(const u8* all, const Magnitudes& m, u32 d_out, u32 d_in)
        : codes(all + (u64)blockIdx.x * STRIP * d_in / 2), magnitudes(m), first_row(blockIdx.x * STRIP), d_out(d_out), d_in(d_in) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 row = min(threadIdx.x % 32 / 4 * 4 + i, d_out - first_row - 1);
            offsets[i] = row * (d_in / 2);
            blocks[i] = (first_row + row) * (d_in / BLOCK);
        }
    }

    // The first column of this lane; the last stretch may have none for it.
    __device__ __forceinline__ u32 column(u32 stretch) const { return stretch * STRETCH + threadIdx.x % 4 * OWN; }

    __device__ __forceinline__ void read(Stretch& s, u32 stretch) const {
        u32 from = column(stretch);
        if (from >= d_in) return;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            s.codes[i] = *reinterpret_cast<const uint4*>(codes + (offsets[i] + from / 2));
            s.scales[i] = stored(magnitudes, blocks[i] + from / BLOCK);
        }
    }
};

__device__ __forceinline__ u32 part(const uint4& v, u32 i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

template <u32 TILES>
__device__ __forceinline__ void multiply_stretch(
    float (&sums)[TILES][2][4], const Stretch& s, u32 column, const bf16* __restrict__ x, const Strip& strip, u32 n,
    const float2* pairs, const float* dynamic) {
    bool inside = column < strip.d_in;
    float scales[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) scales[i] = inside ? magnitude(strip.magnitudes, s.scales[i], dynamic) : 0.0f;
    __syncwarp(); // lanes that have no columns were not asked for scales
#pragma unroll
    for (u32 q = 0; q < 4; q++) {
        const u32 words[4] = {part(s.codes[0], q), part(s.codes[1], q), part(s.codes[2], q), part(s.codes[3], q)};
        Fragments a;
        decode_rows(a, pairs, words, scales);
#pragma unroll
        for (u32 tile = 0; tile < TILES; tile++) {
            u32 token = min(8 * tile + threadIdx.x % 32 / 4, n - 1);
            uint4 b = make_uint4(0, 0, 0, 0);
            if (inside) b = *reinterpret_cast<const uint4*>(x + (u64)token * strip.d_in + column + 8 * q);
            multiply_strip(sums[tile][0], sums[tile][1], a, b);
        }
    }
}

// What an update adds to the output of a row of the weight for a token.
__device__ __forceinline__ float of_update(const LowRank& update, u32 token, u32 row) {
    const float *left = update.left + (u64)token * update.rank, *right = update.right + (u64)row * update.rank;
    float sum = 0.0f;
    for (u32 first = 0; first < update.rank; first += 4) {
        float4 l = four_terms(left, first, update.rank), r = four_terms(right, first, update.rank);
        sum = fmaf(l.w, r.w, fmaf(l.z, r.z, fmaf(l.y, r.y, fmaf(l.x, r.x, sum))));
    }
    return update.scale * sum;
}

template <u32 TILES>
__device__ __forceinline__ void multiply_few(
    const bf16* __restrict__ x, const Strip& strip, const LowRank& update, const float* __restrict__ books,
    bf16* __restrict__ y, u32 n) {
    SHARED_ARRAY(float2, pairs, [PAIRS]);
    SHARED_ARRAY(float, dynamic, [256]);
    const u32 warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const u32 stretches = (strip.d_in + STRETCH - 1) / STRETCH;
    float sums[TILES][2][4] = {};
    Stretch now = {}, next = {};
    strip.read(now, warp);
    fill_pairs(pairs, books);
    if (strip.magnitudes.codes) dynamic[threadIdx.x] = books[CODES + threadIdx.x];
    float updates[TILES];
#pragma unroll
    for (u32 tile = 0; tile < TILES; tile++) {
        u32 token = 8 * tile + threadIdx.x / STRIP, row = strip.first_row + threadIdx.x % STRIP;
        updates[tile] = of_update(update, min(token, n - 1), min(row, strip.d_out - 1));
    }
    __syncthreads();
    for (u32 stretch = warp; stretch < stretches; stretch += 2 * WARPS) {
        strip.read(next, stretch + WARPS);
        multiply_stretch<TILES>(sums, now, strip.column(stretch), x, strip, n, pairs, dynamic);
        strip.read(now, stretch + 2 * WARPS);
        multiply_stretch<TILES>(sums, next, strip.column(stretch + WARPS), x, strip, n, pairs, dynamic);
    }
    __syncthreads();
    // The table is not needed any more: in its place the warps put their sums, [warp][token][row].
    float* parts = reinterpret_cast<float*>(pairs);
#pragma unroll
    for (u32 i = 0; i < 2 * TILES; i++) {
        u32 token = 8 * (i / 2) + 2 * t + i % 2;
        float4* place = reinterpret_cast<float4*>(parts + (warp * 8 * TILES + token) * PADDED + 4 * g);
        *place = sums_of(sums[i / 2][0], sums[i / 2][1], i % 2);
    }
    __syncthreads();
#pragma unroll
    for (u32 tile = 0; tile < TILES; tile++) {
        u32 token = 8 * tile + threadIdx.x / STRIP, row = threadIdx.x % STRIP;
        if (token >= n || strip.first_row + row >= strip.d_out) continue;
        float sum = updates[tile] + parts[token * PADDED + row];
#pragma unroll
        for (u32 w = 1; w < WARPS; w++) sum += parts[(w * 8 * TILES + token) * PADDED + row];
        y[(u64)token * strip.d_out + strip.first_row + row] = to_bf16(sum);
    }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS, 2) few_8(
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
    u32 n)
{
    const Strip strip(codes, {magnitudes, magnitude_codes, offset}, d_out, d_in);
    multiply_few<1>(x, strip, {left, right, scale, rank}, books, y, n);
}

extern "C" __global__ void __launch_bounds__(32 * WARPS, 2) few_16(
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
    u32 n)
{
    const Strip strip(codes, {magnitudes, magnitude_codes, offset}, d_out, d_in);
    multiply_few<2>(x, strip, {left, right, scale, rank}, books, y, n);
}

#define F32_WARPS 4
#define F32_ROWS 4
#define F32_TOKENS 4
#define F32_OWN 8

// The width of a row is a multiple of eight, so that the eight columns of a lane are four whole bytes of one block.
extern "C" __global__ void __launch_bounds__(32 * F32_WARPS) few_f32(
    const float* __restrict__ x,
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
    u32 rounding,
    float* __restrict__ y,
    u32 n)
{
    SHARED_ARRAY(float, code, [CODES]);
    SHARED_ARRAY(float, dynamic, [256]);
    const Magnitudes m = {magnitudes, magnitude_codes, offset};
    if (threadIdx.x < CODES) code[threadIdx.x] = books[threadIdx.x];
    for (u32 i = threadIdx.x; m.codes && i < 256; i += 32 * F32_WARPS) dynamic[i] = books[CODES + i];
    __syncthreads();
    u32 first_row = (blockIdx.x * F32_WARPS + threadIdx.x / 32) * F32_ROWS, lane = threadIdx.x % 32;
    float sums[F32_ROWS][F32_TOKENS] = {};
    // Terms of an update are summed like columns.
    for (u32 term = lane; term < rank; term += 32) {
        float factors[F32_TOKENS];
#pragma unroll
        for (u32 token = 0; token < F32_TOKENS; token++) factors[token] = scale * left[(u64)min(token, n - 1) * rank + term];
#pragma unroll
        for (u32 i = 0; i < F32_ROWS; i++) {
            float factor = right[(u64)min(first_row + i, d_out - 1) * rank + term];
#pragma unroll
            for (u32 token = 0; token < F32_TOKENS; token++) sums[i][token] = fmaf(factor, factors[token], sums[i][token]);
        }
    }
    for (u32 column = F32_OWN * lane; column < d_in; column += F32_OWN * 32) {
        u32 words[F32_ROWS];
        float scales[F32_ROWS], values[F32_TOKENS][F32_OWN];
#pragma unroll
        for (u32 i = 0; i < F32_ROWS; i++) {
            u64 at = (u64)min(first_row + i, d_out - 1) * d_in + column;
            words[i] = *reinterpret_cast<const u32*>(codes + at / 2);
            scales[i] = magnitude(m, stored(m, (u32)(at / BLOCK)), dynamic);
        }
#pragma unroll
        for (u32 token = 0; token < F32_TOKENS; token++) {
            const float4* from = reinterpret_cast<const float4*>(x + (u64)min(token, n - 1) * d_in + column);
#pragma unroll
            for (u32 j = 0; j < F32_OWN / 4; j++) {
                float4 v = from[j];
                values[token][4 * j] = v.x;
                values[token][4 * j + 1] = v.y;
                values[token][4 * j + 2] = v.z;
                values[token][4 * j + 3] = v.w;
            }
        }
#pragma unroll
        for (u32 i = 0; i < F32_ROWS; i++) {
#pragma unroll
            for (u32 j = 0; j < F32_OWN; j++) {
                float w = rounded(look_up(code, words[i], j) * scales[i], rounding);
#pragma unroll
                for (u32 token = 0; token < F32_TOKENS; token++) {
                    sums[i][token] = fmaf(w, values[token][j], sums[i][token]);
                }
            }
        }
    }
#pragma unroll
    for (u32 i = 0; i < F32_ROWS; i++) {
#pragma unroll
        for (u32 token = 0; token < F32_TOKENS; token++) {
            float sum = warp_sum(sums[i][token]);
            if (lane == 0 && first_row + i < d_out && token < n) y[(u64)token * d_out + first_row + i] = sum;
        }
    }
}
