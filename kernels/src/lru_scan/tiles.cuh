// What the kernels of the fused layer have in common: products, recurrence and products of a tile of 64 rows in shared
// memory, 32 channels at a time, for at most 64 inputs.
//
// A block has 128 threads. A thread holds eight rows, those of its group, and four columns of every product, those of its
// place: sums of 32 elements for 12 reads of 16 bytes and 128 multiply-adds. Its columns of B x + b are the real and imaginary
// parts of two channels, so the recurrence runs in registers: over the eight rows from nothing, by shuffles over the eight
// groups of a tile, and over the rows again.
//
// Rows of shared memory are 68 floats apart, and those that the groups read at once lie one after another: no bank is asked
// twice. Lanes 2 i and 2 i + 1 are of one group, lanes that differ by 2 of one place: what both read, 16 bytes each, is then
// fetched once for half a warp.
//
// f32 throughout: tensor cores have no product of it, and three of tf32 for one would lose bits for a gain of two at best.

#define TILE 64
#define GROUP 32
#define PITCH 68
#define BUFFER (TILE * PITCH)
#define THREADS 128

// The thread's group of rows, 8 g to 8 g + 7, and its place among the columns.
__device__ __forceinline__ u32 own_group() {
    return threadIdx.x / 2 % 8;
}

__device__ __forceinline__ u32 own_place() {
    return threadIdx.x / 16 * 2 + threadIdx.x % 2;
}

// The lane of another group in the same place.
__device__ __forceinline__ u32 lane_of(u32 group) {
    return (threadIdx.x & 17) + 2 * group;
}

__device__ __forceinline__ float4 four(const float* at) {
    return *reinterpret_cast<const float4*>(at);
}

__device__ __forceinline__ float2 two(const float* at) {
    return *reinterpret_cast<const float2*>(at);
}

// Begins to copy rows of a [rows, d] matrix; row r goes to r % 8 * 8 + r / 8, and rows behind the last are zeros.
__device__ __forceinline__ void copy_rows(float* to, const float* from, u32 rows, u32 d) {
    u32 column = threadIdx.x % 16 * 4;
    if (column >= d) return;
    for (u32 r = threadIdx.x / 16; r < TILE; r += THREADS / 16) {
        u64 at = r < rows ? (u64)r * d + column : 0;
        cp_async_16_zfill(to + (r % 8 * 8 + r / 8) * PITCH + column, from + at, r < rows ? 16 : 0);
    }
}

// Begins to copy the rows of B for 32 channels, first the real parts: channel c goes to c % 2 * 16 + c / 2.
__device__ __forceinline__ void copy_in(float* to, const float* re, const float* im, u32 first, u32 d, u32 state) {
    u32 column = threadIdx.x % 16 * 4;
    if (column >= d) return;
    for (u32 r = threadIdx.x / 16; r < 2 * GROUP; r += THREADS / 16) {
        u32 c = r % GROUP;
        bool there = first + c < state;
        const float* from = r < GROUP ? re : im;
        u64 at = there ? (u64)(first + c) * d + column : 0;
        cp_async_16_zfill(to + (r / GROUP * GROUP + c % 2 * 16 + c / 2) * PITCH + column, from + at, there ? 16 : 0);
    }
}

// Begins to copy 32 columns of C, then those of the imaginary part: row r goes to r % 4 * 16 + r / 4.
__device__ __forceinline__ void copy_out(float* to, const float* re, const float* im, u32 first, u32 d, u32 state) {
    u32 column = threadIdx.x % 16 * 4, c = column % GROUP;
    bool there = first + c < state;
    const float* from = column < GROUP ? re : im;
    for (u32 r = threadIdx.x / 16; r < d; r += THREADS / 16) {
        u64 at = there ? (u64)r * state + first + c : 0;
        cp_async_16_zfill(to + (r % 4 * 16 + r / 4) * PITCH + column, from + at, there ? 16 : 0);
    }
}

// sums[i][j] += Σ_k a[8 i + group][k] b[16 j + place][k]
__device__ __forceinline__ void product(const float* a, const float* b, u32 depth, float (&sums)[8][4]) {
    a += own_group() * PITCH;
    b += own_place() * PITCH;
    for (u32 k = 0; k < depth; k += 4) {
        float4 right[4];
#pragma unroll
        for (u32 j = 0; j < 4; j++) right[j] = four(b + 16 * j * PITCH + k);
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            float4 left = four(a + 8 * i * PITCH + k);
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                sums[i][j] = fmaf(left.x, right[j].x, sums[i][j]);
                sums[i][j] = fmaf(left.y, right[j].y, sums[i][j]);
                sums[i][j] = fmaf(left.z, right[j].z, sums[i][j]);
                sums[i][j] = fmaf(left.w, right[j].w, sums[i][j]);
            }
        }
    }
}

// Two neighbouring channels, complex.
struct Complex2 {
    float re[2], im[2];
};

// The coefficients of a thread's channels; zeros if there are no such channels.
struct Channels {
    Complex2 lambda, powers[3];
    float gamma[2];
};

__device__ __forceinline__ Complex2 complex_at(const float* table, u32 row, u32 channel, u32 state, float sign) {
    float2 re = two(table + (u64)row * state + channel), im = two(table + (u64)(row + 1) * state + channel);
    return Complex2{{re.x, re.y}, {sign * im.x, sign * im.y}};
}

// With sign -1, λ is conjugate.
__device__ __forceinline__ Channels channels_at(const float* table, u32 channel, u32 state, float sign) {
    Channels found = {};
    if (channel >= state) return found;
    found.lambda = complex_at(table, LAMBDA, channel, state, sign);
    found.powers[0] = complex_at(table, POWER_8, channel, state, sign);
    found.powers[1] = complex_at(table, POWER_16, channel, state, sign);
    found.powers[2] = complex_at(table, POWER_32, channel, state, sign);
    float2 gamma = two(table + (u64)GAMMA * state + channel);
    found.gamma[0] = gamma.x, found.gamma[1] = gamma.y;
    return found;
}

// a b + c
__device__ __forceinline__ Complex2 multiply_add(const Complex2& a, const Complex2& b, const Complex2& c) {
    Complex2 v;
#pragma unroll
    for (u32 k = 0; k < 2; k++) {
        v.re[k] = fmaf(a.re[k], b.re[k], fmaf(-a.im[k], b.im[k], c.re[k]));
        v.im[k] = fmaf(a.re[k], b.im[k], fmaf(a.im[k], b.re[k], c.im[k]));
    }
    return v;
}

// A row of a product as complex numbers, times γ.
__device__ __forceinline__ Complex2 input_of(const float (&v)[4], const float (&gamma)[2]) {
    return Complex2{{gamma[0] * v[0], gamma[1] * v[1]}, {gamma[0] * v[2], gamma[1] * v[3]}};
}

__device__ __forceinline__ Complex2 shuffle_from(const Complex2& v, u32 group) {
    Complex2 from;
#pragma unroll
    for (u32 k = 0; k < 2; k++) {
        from.re[k] = __shfl_sync(0xffffffffu, v.re[k], lane_of(group % 8));
        from.im[k] = __shfl_sync(0xffffffffu, v.im[k], lane_of(group % 8));
    }
    return from;
}

// The state in which the recurrence enters a thread's rows, given that in which it enters the tile; forward, or back in
// time. Bit i of `begins` says that it begins anew at row i, in the order of time.
template <bool BACK>
__device__ __forceinline__ Complex2 enter(
    const float (&x)[8][4], const float (&gamma)[2], const Channels& channels, u32 begins, const Complex2& carry) {
    u32 group = own_group(), distance = BACK ? 7 - group : group;
    Complex2 end = distance == 0 ? carry : Complex2{};
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        const Complex2 input = input_of(x[BACK ? 7 - i : i], gamma);
        end = begins >> i & 1 ? input : multiply_add(channels.lambda, end, input);
    }
    // Bit 2 g: nothing begins anew in the rows of group g.
    u32 whole = __ballot_sync(0xffffffffu, begins == 0) >> (threadIdx.x & 17);
#pragma unroll
    for (u32 step = 0; step < 3; step++) {
        u32 groups = 1u << step, all = 0x5555u & ((1u << 2 * groups) - 1);
        const Complex2 before = shuffle_from(end, BACK ? group + groups : group - groups);
        bool joins = distance >= groups && (whole >> 2 * (BACK ? group : group + 1 - groups) & all) == all;
        if (joins) end = multiply_add(channels.powers[step], before, end);
    }
    const Complex2 before = shuffle_from(end, BACK ? group + 1 : group - 1);
    return distance == 0 ? carry : before;
}

// Where a block is.
struct Tile {
    u32 first, rows, slot;
};

__device__ __forceinline__ Tile tile_of(const Item& item, u32 tile) {
    return Tile{item.first + tile * TILE, min((u32)TILE, item.rows - tile * TILE), item.slot + tile};
}

__device__ __forceinline__ u32 tiles_of(const Item& item) {
    return (item.rows + TILE - 1) / TILE;
}

// What is kept for a slot: carries is [slots, 2, state].
__device__ __forceinline__ Complex2 kept(const float* carries, u32 slot, u32 channel, u32 state) {
    if (channel >= state) return Complex2{};
    float2 re = two(carries + 2ull * slot * state + channel), im = two(carries + (2ull * slot + 1) * state + channel);
    return Complex2{{re.x, re.y}, {im.x, im.y}};
}

__device__ __forceinline__ void keep(float* carries, u32 slot, u32 channel, u32 state, const Complex2& v) {
    if (channel >= state) return;
    *reinterpret_cast<float2*>(carries + 2ull * slot * state + channel) = make_float2(v.re[0], v.re[1]);
    *reinterpret_cast<float2*>(carries + (2ull * slot + 1) * state + channel) = make_float2(v.im[0], v.im[1]);
}

// v[i] = B x + b for a thread's rows and channels, from tiles of x and B.
__device__ __forceinline__ void project(
    float (&v)[8][4], const float* x, const float* in, const float* bias_re, const float* bias_im, u32 channel, u32 d,
    u32 state) {
    bool there = channel < state;
    float2 re = there ? two(bias_re + channel) : make_float2(0.0f, 0.0f);
    float2 im = there ? two(bias_im + channel) : make_float2(0.0f, 0.0f);
#pragma unroll
    for (u32 i = 0; i < 8; i++) v[i][0] = re.x, v[i][1] = re.y, v[i][2] = im.x, v[i][3] = im.y;
    product(x, in, d, v);
}

// Runs from the state that enters a thread's rows and puts the states where products find them: real parts, then negative
// imaginary ones; zeros behind the last row. Returns the last.
__device__ __forceinline__ Complex2 run(
    float* states, const float (&v)[8][4], const Channels& channels, u32 begins, Complex2 state, u32 rows) {
    u32 group = own_group();
    float* to = states + group * PITCH + own_place() * 2;
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        const Complex2 input = input_of(v[i], channels.gamma);
        state = begins >> i & 1 ? input : multiply_add(channels.lambda, state, input);
        bool there = 8 * group + i < rows;
        float2 re = there ? make_float2(state.re[0], state.re[1]) : make_float2(0.0f, 0.0f);
        float2 im = there ? make_float2(-state.im[0], -state.im[1]) : make_float2(0.0f, 0.0f);
        *reinterpret_cast<float2*>(to + 8 * i * PITCH) = re;
        *reinterpret_cast<float2*>(to + 8 * i * PITCH + GROUP) = im;
    }
    return state;
}
