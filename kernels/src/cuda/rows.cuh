
// ---- Rows of matrices of f32, each read from memory once ----
//
// The threads of one threadIdx.y share a row: 8, 16 or 32 lanes of a warp, or whole warps, which then have the block
// for themselves; `rows.rs` says how many for which width. They take quads, four neighbouring elements, in turn: the
// j-th of a thread is quad threadIdx.x + j * blockDim.x. The first ROW_QUADS of them stay in its registers. ALIGNED
// says that rows are multiples of four elements: then a quad is one access of 16 bytes. What is beyond the end of a
// row reads as zeros.

constexpr u32 ROW_QUADS = 4;
constexpr u32 ROW_WARPS = 16;

struct Quad {
    float v[4];
};

template <bool ALIGNED>
__device__ __forceinline__ Quad load_quad(const float* row, u32 quad, u32 d) {
    Quad found;
    if (ALIGNED) {
        float4 all = reinterpret_cast<const float4*>(row)[quad];
        found = Quad{{all.x, all.y, all.z, all.w}};
    } else {
#pragma unroll
        for (u32 k = 0; k < 4; k++) found.v[k] = 4 * quad + k < d ? row[4 * quad + k] : 0.0f;
    }
    return found;
}

// The same of bfloat16, as floats: 8 bytes.
template <bool ALIGNED>
__device__ __forceinline__ Quad load_quad(const bf16* row, u32 quad, u32 d) {
    Quad found;
    if (ALIGNED) {
        uint2 all = reinterpret_cast<const uint2*>(row)[quad];
        u32 pairs[2] = {all.x, all.y};
#pragma unroll
        for (u32 k = 0; k < 4; k++) found.v[k] = to_float(bf16{(u16)(pairs[k / 2] >> (k % 2 * 16))});
    } else {
#pragma unroll
        for (u32 k = 0; k < 4; k++) found.v[k] = 4 * quad + k < d ? to_float(row[4 * quad + k]) : 0.0f;
    }
    return found;
}

template <bool ALIGNED>
__device__ __forceinline__ void store_quad(float* row, u32 quad, u32 d, const Quad& values) {
    if (ALIGNED) {
        float4 all;
        all.x = values.v[0], all.y = values.v[1], all.z = values.v[2], all.w = values.v[3];
        reinterpret_cast<float4*>(row)[quad] = all;
    } else {
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            if (4 * quad + k < d) row[4 * quad + k] = values.v[k];
        }
    }
}

// The same, rounded: 8 bytes.
template <bool ALIGNED>
__device__ __forceinline__ void store_quad(bf16* row, u32 quad, u32 d, const Quad& values) {
    u32 bits[4];
#pragma unroll
    for (u32 k = 0; k < 4; k++) bits[k] = to_bf16(values.v[k]).bits;
    if (ALIGNED) {
        uint2 all;
        all.x = bits[0] | bits[1] << 16, all.y = bits[2] | bits[3] << 16;
        reinterpret_cast<uint2*>(row)[quad] = all;
    } else {
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            if (4 * quad + k < d) row[4 * quad + k] = bf16{(u16)bits[k]};
        }
    }
}

// f(j, quad) for the quads, of so many of a row, that stay in registers.
template <typename F>
__device__ __forceinline__ void for_kept(u32 quads, F f) {
#pragma unroll
    for (u32 j = 0; j < ROW_QUADS; j++) {
        u32 quad = threadIdx.x + j * blockDim.x;
        if (quad < quads) f(j, quad);
    }
}

// f(quad) for those that do not.
template <typename F>
__device__ __forceinline__ void for_others(u32 quads, F f) {
#pragma unroll 1
    for (u32 quad = threadIdx.x + ROW_QUADS * blockDim.x; quad < quads; quad += blockDim.x) f(quad);
}

// All loads are on their way before the first is waited for.
template <bool ALIGNED, typename T>
__device__ __forceinline__ void load_kept(Quad (&kept)[ROW_QUADS], const T* row, u32 quads, u32 d) {
#pragma unroll
    for (u32 j = 0; j < ROW_QUADS; j++) kept[j] = Quad{};
    for_kept(quads, [&](u32 j, u32 quad) { kept[j] = load_quad<ALIGNED>(row, quad, d); });
}

template <bool ALIGNED, typename T>
__device__ __forceinline__ void store_kept(T* row, const Quad (&kept)[ROW_QUADS], u32 quads, u32 d) {
    for_kept(quads, [&](u32 j, u32 quad) { store_quad<ALIGNED>(row, quad, d, kept[j]); });
}

__device__ __forceinline__ void add_quad(Quad& a, const Quad& b) {
#pragma unroll
    for (u32 k = 0; k < 4; k++) a.v[k] += b.v[k];
}

// Sums over the threads of a row, the same in all of them and always in the same order. Warps leave theirs in
// `partial`, which is shared, where they are read until the next call returns: calls take turns with two places.
template <u32 N>
__device__ __forceinline__ void row_sums(float (&sums)[N], float (*partial)[N]) {
#pragma unroll
    for (u32 offset = 16; offset > 0; offset /= 2) {
        if (offset >= blockDim.x) continue;
#pragma unroll
        for (u32 i = 0; i < N; i++) sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], offset);
    }
    if (blockDim.x <= 32) return;
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 i = 0; i < N; i++) {
        if (lane == 0) partial[threadIdx.x / 32][i] = sums[i];
    }
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < N; i++) sums[i] = warp_sum(lane < blockDim.x / 32 ? partial[lane][i] : 0.0f);
}

// Adds up what the rows of a block have kept, in a fixed order, and writes the N sums to `out`, [N, d]. If there are
// several rows, `shared` has a place for N * ROW_QUADS * blockDim.x quads of every warp.
template <bool ALIGNED, u32 N>
__device__ __forceinline__ void store_kept_sums(Quad (&sums)[N][ROW_QUADS], Quad* shared, float* out, u32 d) {
    u32 quads = (d + 3) / 4, width = ROW_QUADS * blockDim.x;
    if (blockDim.y == 1) {
#pragma unroll
        for (u32 i = 0; i < N; i++) store_kept<ALIGNED>(out + (u64)i * d, sums[i], quads, d);
        return;
    }
    u32 thread = threadIdx.y * blockDim.x + threadIdx.x, warps = blockDim.x * blockDim.y / 32;
#pragma unroll
    for (u32 i = 0; i < N; i++) {
#pragma unroll
        for (u32 j = 0; j < ROW_QUADS; j++) {
            for (u32 offset = blockDim.x; offset < 32; offset *= 2) {
#pragma unroll
                for (u32 k = 0; k < 4; k++) sums[i][j].v[k] += __shfl_xor_sync(0xffffffffu, sums[i][j].v[k], offset);
            }
            u32 place = (thread / 32 * N + i) * width + threadIdx.x + j * blockDim.x;
            if (thread % 32 < blockDim.x) shared[place] = sums[i][j];
        }
    }
    __syncthreads();
    for (u32 place = thread; place < N * width; place += 32 * warps) {
        if (place % width >= quads) continue;
        Quad total = shared[place];
        for (u32 warp = 1; warp < warps; warp++) add_quad(total, shared[warp * N * width + place]);
        store_quad<ALIGNED>(out + (u64)(place / width) * d, place % width, d, total);
    }
}

// The sum of column blockIdx.x * 32 + threadIdx.y of `parts`, [n, width], in every lane. Blocks have 32 x 32 threads:
// every 32nd row is added in order, then the 32 sums as a tree.
__device__ __forceinline__ float column_sum(const float* parts, u32 n, u32 width) {
    SHARED_ARRAY(float, slices, [32][33]);
    u32 column = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.0f;
    if (column < width) {
#pragma unroll 4
        for (u32 i = threadIdx.y; i < n; i += 32) sum += parts[(u64)i * width + column];
    }
    slices[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    return warp_sum(slices[threadIdx.x][threadIdx.y]);
}
