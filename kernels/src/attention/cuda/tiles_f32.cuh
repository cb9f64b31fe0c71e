// What the kernels of 32-bit floats share: products of tiles by 16 x 8 threads, each of which holds every 16th row of
// the left operand and every 8th of the right one.

#define LINES 16
#define COLUMNS 8

__device__ __forceinline__ float4 scaled(float factor, const float4& v) {
    return make_float4(factor * v.x, factor * v.y, factor * v.z, factor * v.w);
}

__device__ __forceinline__ float4 added(float f, const float4& v, const float4& to) {
    return make_float4(fmaf(f, v.x, to.x), fmaf(f, v.y, to.y), fmaf(f, v.z, to.z), fmaf(f, v.w, to.w));
}

// The sum, or the maximum, over the threads that share rows, in each of them.
__device__ __forceinline__ float sum_of_line(float v) {
#pragma unroll
    for (u32 offset = COLUMNS / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

__device__ __forceinline__ float max_of_line(float v) {
#pragma unroll
    for (u32 offset = COLUMNS / 2; offset > 0; offset /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, offset));
    return v;
}

__device__ __forceinline__ const float4& four(const float* at) {
    return *reinterpret_cast<const float4*>(at);
}

// products += left · rightᵀ, over tiles of WIDTH features.
template <u32 WIDTH, u32 R, u32 C>
__device__ __forceinline__ void add_products(float (&products)[R][C], const float* left, const float* right) {
    u32 thread = opaque(threadIdx.x), line = thread / COLUMNS, column = thread % COLUMNS;
#pragma unroll 4
    for (u32 piece = 0; piece < WIDTH / 4; piece++) {
        float4 a[R];
#pragma unroll
        for (u32 i = 0; i < R; i++) a[i] = four(left + turned<WIDTH, float>(line, piece) + LINES * i * WIDTH);
#pragma unroll
        for (u32 j = 0; j < C; j++) {
            float4 b = four(right + turned<WIDTH, float>(column, piece) + COLUMNS * j * WIDTH);
#pragma unroll
            for (u32 i = 0; i < R; i++) {
                float sum = fmaf(a[i].x, b.x, products[i][j]);
                sum = fmaf(a[i].y, b.y, sum);
                sum = fmaf(a[i].z, b.z, sum);
                products[i][j] = fmaf(a[i].w, b.w, sum);
            }
        }
    }
}

// The place of a weight, turned so that the four rows of a warp lie in different banks.
template <u32 KEYS>
__device__ __forceinline__ u32 place_of_weight(u32 row, u32 key) {
    return row * KEYS + (key / 4 ^ row % 4 * 2) * 4 + key % 4;
}

// Puts what the threads hold to where those that share their rows find it.
template <u32 KEYS, u32 R, u32 C>
__device__ __forceinline__ void put_weights(float* weights, const float (&held)[R][C]) {
    u32 thread = opaque(threadIdx.x), line = thread / COLUMNS, column = thread % COLUMNS;
#pragma unroll
    for (u32 i = 0; i < R; i++) {
#pragma unroll
        for (u32 j = 0; j < C; j++) weights[place_of_weight<KEYS>(line + LINES * i, column + COLUMNS * j)] = held[i][j];
    }
}

// sums += weights · rows, of which a thread holds features 4 * column + 32 * n and the three behind.
template <u32 WIDTH, u32 KEYS, u32 R>
__device__ __forceinline__ void add_weighted(float4 (&sums)[R][WIDTH / 32], const float* weights, const float* rows) {
    u32 thread = opaque(threadIdx.x), line = thread / COLUMNS, column = thread % COLUMNS;
#pragma unroll 2
    for (u32 key = 0; key < KEYS; key += 4) {
        float4 w[R];
#pragma unroll
        for (u32 i = 0; i < R; i++) w[i] = four(weights + place_of_weight<KEYS>(line, key) + LINES * i * KEYS);
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
#pragma unroll
            for (u32 n = 0; n < WIDTH / 32; n++) {
                float4 row = four(rows + turned<WIDTH, float>(key + k, column + COLUMNS * n));
#pragma unroll
                for (u32 i = 0; i < R; i++) {
                    float weight = k == 0 ? w[i].x : k == 1 ? w[i].y : k == 2 ? w[i].z : w[i].w;
                    sums[i][n] = added(weight, row, sums[i][n]);
                }
            }
        }
    }
}

// Writes a thread's features of a row, multiplied with a factor.
template <u32 WIDTH>
__device__ __forceinline__ void store_row(float* row, const float4 (&sums)[WIDTH / 32], float factor, u32 features) {
    u32 column = threadIdx.x % COLUMNS;
#pragma unroll
    for (u32 n = 0; n < WIDTH / 32; n++) {
        u32 feature = 4 * (column + COLUMNS * n);
        float4 v = scaled(factor, sums[n]);
        if (features % 4 == 0) {
            if (feature < features) *reinterpret_cast<float4*>(row + feature) = v;
        } else {
            if (feature < features) row[feature] = v.x;
            if (feature + 1 < features) row[feature + 1] = v.y;
            if (feature + 2 < features) row[feature + 2] = v.z;
            if (feature + 3 < features) row[feature + 3] = v.w;
        }
    }
}
