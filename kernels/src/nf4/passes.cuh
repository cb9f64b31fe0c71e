// Where a product finds its outputs and its terms in a weight: the two directions of `fused.cu`.

// Outputs of a block of threads, and terms of a step.
#define OUTPUTS 128
#define TERMS 64

struct Operands {
    const bf16* __restrict__ x;  // [n, terms]
    const u8* __restrict__ codes;
    Magnitudes magnitudes;
    u32 d_out, d_in, n;
    LowRank update;
};

// The forward: outputs are rows of the weight, terms its columns.
struct Forward {
    static __device__ __forceinline__ u32 outputs(const Operands& o) { return o.d_out; }
    static __device__ __forceinline__ u32 terms(const Operands& o) { return o.d_in; }

    // The codes of 64 columns: rows lie so that those of a strip that are 4g + i are neighbours for the eight g.
    static __device__ __forceinline__ void fetch(u8* to, const Operands& o, u32 first_output, u32 first_term) {
        u32 place = threadIdx.x / 2, piece = threadIdx.x % 2;
        u32 row = place / 32 * 32 + place % 8 * 4 + place / 8 % 4;
        bool there = first_output + row < o.d_out;
        u64 at = there ? (u64)(first_output + row) * o.d_in + first_term + 32 * piece : 0;
        cp_async_16_zfill(to + 32 * place + 16 * (piece ^ (place / 4 & 1)), o.codes + at / 2, there ? 16 : 0);
    }

    // Whether there is magnitude i of a step, and its block.
    static __device__ __forceinline__ bool find(u32& block, const Operands& o, u32 i, u32 first_output, u32 first_term) {
        block = (first_output + i) * (o.d_in / BLOCK) + first_term / BLOCK;
        return first_output + i < o.d_out;
    }

    static __device__ __forceinline__ void decode(
        Fragments& a, const float2* pairs, const u8* codes, const float* magnitudes, u32 strip, u32 half) {
        u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        const u8* from = codes + 32 * (32 * strip + g) + 16 * (half ^ (g / 4)) + 4 * t;
        float4 m = *reinterpret_cast<const float4*>(magnitudes + 32 * strip + 4 * g);
        const float scales[4] = {m.x, m.y, m.z, m.w};
        u32 words[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) words[i] = *reinterpret_cast<const u32*>(from + 32 * 8 * i);
        decode_rows(a, pairs, words, scales);
    }

    // Four terms of the right factor of the update for the outputs `row` to `row + 3`, in the order of `decode_rows`. What
    // is behind the last row is not kept.
    static __device__ __forceinline__ void factors(u32 (&a)[2][4], const Operands& o, u32 row, u32 term) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            float4 v = four_terms(o.update.right + (u64)min(row + i, o.d_out - 1) * o.update.rank, term, o.update.rank);
            a[i / 2][i % 2] = bf16_pair(v.x, v.y);
            a[i / 2][i % 2 + 2] = bf16_pair(v.z, v.w);
        }
    }
};

// The backward: outputs are columns of the weight, terms its rows.
struct Backward {
    static __device__ __forceinline__ u32 outputs(const Operands& o) { return o.d_in; }
    static __device__ __forceinline__ u32 terms(const Operands& o) { return o.d_out; }

    // The codes of 128 columns: pieces lie so that rows eight apart have them in other banks.
    static __device__ __forceinline__ void fetch(u8* to, const Operands& o, u32 first_output, u32 first_term) {
        u32 row = threadIdx.x / 4, piece = threadIdx.x % 4;
        bool there = first_term + row < o.d_out && first_output + 32 * piece < o.d_in;
        u64 at = there ? (u64)(first_term + row) * o.d_in + first_output + 32 * piece : 0;
        cp_async_16_zfill(to + 64 * row + 16 * (piece ^ (row / 8 % 4)), o.codes + at / 2, there ? 16 : 0);
    }

    // First the magnitudes of 64 rows in the first 64 columns, then those in the others.
    static __device__ __forceinline__ bool find(u32& block, const Operands& o, u32 i, u32 first_output, u32 first_term) {
        u32 row = first_term + i % TERMS, column = first_output + i / TERMS * BLOCK;
        block = row * (o.d_in / BLOCK) + column / BLOCK;
        return row < o.d_out && column < o.d_in;
    }

    // Lane (g, t) has the columns 4g to 4g + 3 of the rows 8t + i. Tile m has the columns 4g + 2m and 4g + 2m + 1, step s
    // the rows 8t + 4s to 8t + 4s + 3.
    static __device__ __forceinline__ void decode(
        Fragments& a, const float2* pairs, const u8* codes, const float* magnitudes, u32 strip, u32 half) {
        u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, first = 32 * half + 8 * t;
        const u8* from = codes + 64 * first + 16 * (strip ^ t) + 2 * g;
        const float4* scales = reinterpret_cast<const float4*>(magnitudes + TERMS * (strip / 2) + first);
#pragma unroll
        for (u32 s = 0; s < 2; s++) {
            float4 scale = scales[s];
#pragma unroll
            for (u32 k = 0; k < 2; k++) {
                u32 earlier = *reinterpret_cast<const u16*>(from + 64 * (4 * s + 2 * k));
                u32 later = *reinterpret_cast<const u16*>(from + 64 * (4 * s + 2 * k + 1));
                float m0 = k == 0 ? scale.x : scale.z, m1 = k == 0 ? scale.y : scale.w;
#pragma unroll
                for (u32 m = 0; m < 2; m++) {
                    float2 v0 = look_up(pairs, earlier, m), v1 = look_up(pairs, later, m);
                    a.at[m][s][2 * k] = bf16_pair(v0.x * m0, v1.x * m1);
                    a.at[m][s][2 * k + 1] = bf16_pair(v0.y * m0, v1.y * m1);
                }
            }
        }
    }

    // As in the forward, but the outputs are neighbours in memory. Columns come in whole blocks: four are there or none.
    static __device__ __forceinline__ void factors(u32 (&a)[2][4], const Operands& o, u32 column, u32 term) {
        float4 v[4];
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            const float* from = o.update.right + (u64)(term + j) * o.d_in + column;
            v[j] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (term + j < o.update.rank && column < o.d_in) v[j] = *reinterpret_cast<const float4*>(from);
        }
#pragma unroll
        for (u32 k = 0; k < 2; k++) {
            const float4 &earlier = v[2 * k], &later = v[2 * k + 1];
            a[0][2 * k] = bf16_pair(earlier.x, later.x);
            a[0][2 * k + 1] = bf16_pair(earlier.y, later.y);
            a[1][2 * k] = bf16_pair(earlier.z, later.z);
            a[1][2 * k + 1] = bf16_pair(earlier.w, later.w);
        }
    }
};
