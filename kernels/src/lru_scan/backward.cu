// The fused layer, backward. A block takes a band of items and 32 channels. States are computed again, tile by tile, from those
// that the forward kept for every tile; they and their gradients never leave the chip. The gradients of both weights stay in
// registers, 64 sums a thread, until the band is done; a second stage adds the bands in a fixed order.
//
// Multiply-adds of a row: 10 d state, each thread one a clock: bound by arithmetic. Bytes of a row and 32 channels: 8 d read,
// from the second-level cache but for the first time, and 4 d written, which the sum over the channels reads again. Two
// blocks fit a multiprocessor of an H200, one of an A100 and of an RTX 4090.

// sums[i][j] += Σ_k a[8 i + group][k] b(k)[j], with four floats b(k, l) for element l of the four from k on.
template <typename Right>
__device__ __forceinline__ void product_of(const float* a, u32 depth, Right b, float (&sums)[8][4]) {
    a += own_group() * PITCH;
    for (u32 k = 0; k < depth; k += 4) {
        float4 left[8];
#pragma unroll
        for (u32 i = 0; i < 8; i++) left[i] = four(a + 8 * i * PITCH + k);
#pragma unroll
        for (u32 l = 0; l < 4; l++) {
            float4 right = b(k, l);
#pragma unroll
            for (u32 i = 0; i < 8; i++) {
                float v = l == 0 ? left[i].x : l == 1 ? left[i].y : l == 2 ? left[i].z : left[i].w;
                sums[i][0] = fmaf(v, right.x, sums[i][0]);
                sums[i][1] = fmaf(v, right.y, sums[i][1]);
                sums[i][2] = fmaf(v, right.z, sums[i][2]);
                sums[i][3] = fmaf(v, right.w, sums[i][3]);
            }
        }
    }
}

// sums[e][j] += Σ_r states[r][c] inputs[r][4 place + j] over the rows, where c is 4 group + e for the real parts, e < 4, and
// 28 + 4 group + e for the imaginary ones.
__device__ __forceinline__ void outer_product(const float* states, const float* inputs, float (&sums)[8][4]) {
    states += own_group() * 4;
    inputs += own_place() * 4;
#pragma unroll 4
    for (u32 r = 0; r < TILE; r++) {
        float4 re = four(states + r * PITCH), im = four(states + r * PITCH + GROUP), input = four(inputs + r * PITCH);
        const float left[8] = {re.x, re.y, re.z, re.w, im.x, im.y, im.z, im.w};
#pragma unroll
        for (u32 e = 0; e < 8; e++) {
            sums[e][0] = fmaf(left[e], input.x, sums[e][0]);
            sums[e][1] = fmaf(left[e], input.y, sums[e][1]);
            sums[e][2] = fmaf(left[e], input.z, sums[e][2]);
            sums[e][3] = fmaf(left[e], input.w, sums[e][3]);
        }
    }
}

// The gradients of a thread's states from its rows of dy and C, before the recurrence; zeros behind the last row.
__device__ __forceinline__ void project_back(float (&g)[8][4], const float* dy, const float* out, u32 d, u32 rows) {
#pragma unroll
    for (u32 i = 0; i < 8; i++) g[i][0] = 0.0f, g[i][1] = 0.0f, g[i][2] = 0.0f, g[i][3] = 0.0f;
    const float* right = out + own_place() * 2;
    auto row = [&](u32 k, u32 l) {
        const float* at = right + (16 * l + k / 4) * PITCH;
        float2 re = two(at), im = two(at + GROUP);
        return make_float4(re.x, re.y, im.x, im.y);
    };
    product_of(dy, d, row, g);
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        bool there = own_group() * 8 + i < rows;
        g[i][0] = there ? g[i][0] : 0.0f;
        g[i][1] = there ? g[i][1] : 0.0f;
        g[i][2] = there ? -g[i][2] : 0.0f;
        g[i][3] = there ? -g[i][3] : 0.0f;
    }
}

// Adds what comes from later rows to the gradients of a thread's states, and returns that of its first row. Bit i of `marks`
// says that a sequence begins at row i.
__device__ __forceinline__ Complex2 run_back(float (&g)[8][4], const Channels& back, u32 marks, const Complex2& carry) {
    const float one[2] = {1.0f, 1.0f};
    u32 begins = 0;
#pragma unroll
    for (u32 i = 0; i < 8; i++) begins |= (marks >> (8 - i) & 1) << i;
    Complex2 state = enter<true>(g, one, back, begins, carry);
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        float(&row)[4] = g[7 - i];
        const Complex2 input = input_of(row, one);
        state = begins >> i & 1 ? input : multiply_add(back.lambda, state, input);
        row[0] = state.re[0], row[1] = state.re[1], row[2] = state.im[0], row[3] = state.im[1];
    }
    return state;
}

// The gradients that reach the first rows of chunks from their own, where those of the chunk before are kept.
extern "C" __global__ void __launch_bounds__(THREADS, 4) ends_back(
    const float* __restrict__ dy,
    const float* __restrict__ out_re,
    const float* __restrict__ out_im,
    const float* __restrict__ table,
    const uint4* __restrict__ work,
    const u32* __restrict__ starts,
    float* __restrict__ carries,
    u32 d,
    u32 state)
{
    SHARED_MEMORY(float, memory);
    float *dy_tile = memory, *out = memory + BUFFER;
    u32 groups = (state + GROUP - 1) / GROUP, number = blockIdx.x / groups, first = blockIdx.x % groups * GROUP;
    if (number >= count_of(work)) return;
    const Item item = item_at(work, number);
    if (!item.goes_on) return;
    u32 channel = first + own_place() * 2;
    const Channels back = channels_at(table, channel, state, -1.0f);
    copy_out(out, out_re, out_im, first, d, state);
    Complex2 carry = {};
    for (u32 tile = tiles_of(item); tile-- > 0;) {
        const Tile at = tile_of(item, tile);
        __syncthreads();
        copy_rows(dy_tile, dy + (u64)at.first * d, at.rows, d);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        float g[8][4];
        project_back(g, dy_tile, out, d, at.rows);
        carry = shuffle_from(run_back(g, back, starts_at(starts, at.first + own_group() * 8), carry), 0);
    }
    if (own_group() == 0) keep(carries, item_at(work, number - 1).slot, channel, state, carry);
}

// Sums over a thread's rows for its two channels: Re and Im of g conj(h of the row before), Re(conj(v) g), and of γ g.
struct Sums {
    float v[5][2];
};

// Adds the rows of a tile to the sums, and multiplies the gradients by γ.
__device__ __forceinline__ void add_rows(
    Sums& sums, float (&g)[8][4], const float (&v)[8][4], const float* states, const Complex2& entering, const float (&gamma)[2],
    u32 marks, u32 rows) {
    u32 group = own_group();
    const float* from = states + group * PITCH + own_place() * 2;
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        bool there = 8 * group + i < rows, has_past = there && !(marks >> i & 1);
        float2 re = i > 0 ? two(from + 8 * (i - 1) * PITCH) : make_float2(entering.re[0], entering.re[1]);
        float2 negative = i > 0 ? two(from + 8 * (i - 1) * PITCH + GROUP) : make_float2(-entering.im[0], -entering.im[1]);
        const float past_re[2] = {re.x, re.y}, past_im[2] = {-negative.x, -negative.y};
#pragma unroll
        for (u32 k = 0; k < 2; k++) {
            float g_re = g[i][k], g_im = g[i][2 + k];
            if (has_past) {
                sums.v[0][k] += fmaf(g_re, past_re[k], g_im * past_im[k]);
                sums.v[1][k] += fmaf(g_im, past_re[k], -(g_re * past_im[k]));
            }
            if (there) sums.v[2][k] += fmaf(v[i][k], g_re, v[i][2 + k] * g_im);
            g[i][k] = there ? gamma[k] * g_re : 0.0f;
            g[i][2 + k] = there ? gamma[k] * g_im : 0.0f;
            sums.v[3][k] += g[i][k];
            sums.v[4][k] += g[i][2 + k];
        }
    }
}

// The places of a band's sums: dB real and imaginary [state, d], dC likewise [d, state], the five sums of the channels
// [state], and two sums of dy [d].
__device__ __forceinline__ u64 part_length(u32 d, u32 state) {
    return 4ull * d * state + 5 * state + 2 * d;
}

// Writes a block's sums where those of its band lie.
__device__ __forceinline__ void store_sums(
    float* part, const float (&d_in)[8][4], const float (&d_out)[8][4], Sums& sums, u32 first, u32 d, u32 state) {
    u32 group = own_group(), place = own_place(), matrix = d * state, channel = first + 4 * group;
    if (channel < state && 4 * place < d) {
#pragma unroll
        for (u32 e = 0; e < 8; e++) {
            float* to = part + (e < 4 ? 0 : matrix) + (channel + e % 4) * d + 4 * place;
            *reinterpret_cast<float4*>(to) = make_float4(d_in[e][0], d_in[e][1], d_in[e][2], d_in[e][3]);
        }
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            float* to = part + 2 * matrix + (4 * place + j) * state + channel;
            *reinterpret_cast<float4*>(to) = make_float4(d_out[0][j], d_out[1][j], d_out[2][j], d_out[3][j]);
            *reinterpret_cast<float4*>(to + matrix) = make_float4(d_out[4][j], d_out[5][j], d_out[6][j], d_out[7][j]);
        }
    }
#pragma unroll
    for (u32 j = 0; j < 5; j++) {
#pragma unroll
        for (u32 k = 0; k < 2; k++) {
            float v = sums.v[j][k];
            v += __shfl_xor_sync(0xffffffffu, v, 2);
            v += __shfl_xor_sync(0xffffffffu, v, 4);
            v += __shfl_xor_sync(0xffffffffu, v, 8);
            u32 s = first + 2 * place + k;
            if (group == 0 && s < state) part[4 * matrix + j * state + s] = v;
        }
    }
}

// A block takes every bands-th item and 32 channels, and the tiles of an item from the last to the first. dx is [groups of
// channels, n, d].
extern "C" __global__ void __launch_bounds__(THREADS, 2) backward(
    const float* __restrict__ dy,
    const float* __restrict__ x,
    const float* __restrict__ in_re,
    const float* __restrict__ in_im,
    const float* __restrict__ in_bias_re,
    const float* __restrict__ in_bias_im,
    const float* __restrict__ out_re,
    const float* __restrict__ out_im,
    const float* __restrict__ table,
    const uint4* __restrict__ work,
    const u32* __restrict__ starts,
    const float* __restrict__ carries,
    const float* __restrict__ carries_back,
    float* __restrict__ dx,
    float* __restrict__ parts,
    u32 n,
    u32 d,
    u32 state,
    u32 bands)
{
    SHARED_MEMORY(float, memory);
    float *x_tile = memory, *dy_tile = memory + BUFFER, *states = memory + 2 * BUFFER;
    float *in = memory + 3 * BUFFER, *out = memory + 4 * BUFFER;
    u32 groups = (state + GROUP - 1) / GROUP, band = blockIdx.x / groups, number = band;
    u32 first = blockIdx.x % groups * GROUP, count = count_of(work);
    if (band >= count) return;
    u32 group = own_group(), place = own_place(), channel = first + 2 * place;
    Item item = item_at(work, number);
    u32 tile = tiles_of(item) - 1;
    Tile at = tile_of(item, tile);
    copy_in(in, in_re, in_im, first, d, state);
    copy_out(out, out_re, out_im, first, d, state);
    copy_rows(x_tile, x + (u64)at.first * d, at.rows, d);
    copy_rows(dy_tile, dy + (u64)at.first * d, at.rows, d);
    cp_async_commit();

    float d_in[8][4] = {}, d_out[8][4] = {}, d_bias = 0.0f;
    Sums sums = {};
    Complex2 carry = item.behind > 0 ? kept(carries_back, item.slot, channel, state) : Complex2{};
    for (;;) {
        cp_async_wait<0>();
        __syncthreads();
        u32 marks = starts_at(starts, at.first + 8 * group);
        float v[8][4], g[8][4];
        Complex2 entering;
        float gamma[2];
        {
            const Channels channels = channels_at(table, channel, state, 1.0f);
            bool goes_on = group == 0 && (tile > 0 || item.goes_on);
            const Complex2 before = goes_on ? kept(carries, at.slot, channel, state) : Complex2{};
            project(v, x_tile, in, in_bias_re, in_bias_im, channel, d, state);
            entering = enter<false>(v, channels.gamma, channels, marks & 0xff, before);
            run(states, v, channels, marks & 0xff, entering, at.rows);
            gamma[0] = channels.gamma[0], gamma[1] = channels.gamma[1];
        }
        project_back(g, dy_tile, out, d, at.rows);
        carry = shuffle_from(run_back(g, channels_at(table, channel, state, -1.0f), marks, carry), 0);
        add_rows(sums, g, v, states, entering, gamma, marks, at.rows);
        __syncthreads();
        if (4 * place < d) outer_product(states, dy_tile, d_out);
        if (first == 0 && threadIdx.x % 64 < d) {
            for (u32 r = 0; r < TILE / 2; r++) d_bias += dy_tile[(threadIdx.x / 64 * 32 + r) * PITCH + threadIdx.x % 64];
        }
        __syncthreads();

        // The next tile, whose rows arrive while this one is finished.
        const Tile done = at;
        bool more = tile > 0 || number + bands < count;
        if (tile > 0) {
            tile--;
        } else if (more) {
            number += bands;
            item = item_at(work, number);
            tile = tiles_of(item) - 1;
            carry = item.behind > 0 ? kept(carries_back, item.slot, channel, state) : Complex2{};
        }
        at = tile_of(item, tile);
        if (more) copy_rows(dy_tile, dy + (u64)at.first * d, at.rows, d);
        cp_async_commit();

        float* to = states + group * PITCH + 2 * place;
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            *reinterpret_cast<float2*>(to + 8 * i * PITCH) = make_float2(g[i][0], g[i][1]);
            *reinterpret_cast<float2*>(to + 8 * i * PITCH + GROUP) = make_float2(g[i][2], g[i][3]);
        }
        __syncthreads();
        if (4 * place < d) outer_product(states, x_tile, d_in);
        __syncthreads();
        if (more) copy_rows(x_tile, x + (u64)at.first * d, at.rows, d);
        cp_async_commit();

        if (4 * place < d) {
#pragma unroll
            for (u32 i = 0; i < 8; i++) g[i][0] = 0.0f, g[i][1] = 0.0f, g[i][2] = 0.0f, g[i][3] = 0.0f;
            const float* right = in + 4 * place;
            auto row = [&](u32 k, u32 l) {
                return four(right + (k / GROUP * GROUP + l % 2 * 16 + k % GROUP / 2 + l / 2) * PITCH);
            };
            product_of(states, 2 * GROUP, row, g);
            float* rows = dx + ((u64)(first / GROUP) * n + done.first + 8 * group) * d + 4 * place;
#pragma unroll
            for (u32 i = 0; i < 8; i++) {
                if (8 * group + i < done.rows) {
                    *reinterpret_cast<float4*>(rows + (u64)i * d) = make_float4(g[i][0], g[i][1], g[i][2], g[i][3]);
                }
            }
        }
        if (!more) break;
    }
    float* part = parts + band * part_length(d, state);
    store_sums(part, d_in, d_out, sums, first, d, state);
    if (first == 0 && threadIdx.x % 64 < d) {
        part[4ull * d * state + 5 * state + threadIdx.x / 64 * d + threadIdx.x % 64] = d_bias;
    }
    cp_async_wait<0>();
}

// The second stage of the weights' gradients. A block takes 32 times four neighbouring elements of the matrix blockIdx.y; its
// warp w adds the bands w, w + 8 and so on, then the first adds those of all. Matrix 4 is the bias of the output.
extern "C" __global__ void __launch_bounds__(256) add_weight_gradient(
    const float* __restrict__ parts,
    u32 bands,
    const uint4* __restrict__ work,
    float* __restrict__ d_in_re,
    float* __restrict__ d_in_im,
    float* __restrict__ d_out_re,
    float* __restrict__ d_out_im,
    float* __restrict__ d_out_bias,
    u32 d,
    u32 state)
{
    SHARED_ARRAY(float4, of_warps, [8][32]);
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, matrix = blockIdx.y, filled = min(bands, count_of(work));
    u32 at = (blockIdx.x * 32 + lane) * 4, length = matrix < 4 ? d * state : d;
    const float* part = parts + (u64)matrix * d * state + (matrix < 4 ? 0 : 5 * state) + at;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (at < length) {
#pragma unroll 8
        for (u32 band = warp; band < filled; band += 8) {
            float4 more = four(part + band * part_length(d, state));
            sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
            if (matrix == 4) {
                more = four(part + band * part_length(d, state) + d);
                sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
            }
        }
    }
    of_warps[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || at >= length) return;
    for (u32 w = 1; w < 8; w++) {
        float4 more = of_warps[w][lane];
        sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
    }
    float* const results[5] = {d_in_re, d_in_im, d_out_re, d_out_im, d_out_bias};
    float* to = results[0] + at;
#pragma unroll
    for (u32 i = 1; i < 5; i++) {
        if (i == matrix) to = results[i] + at;
    }
    float4 old = four(to);
    *reinterpret_cast<float4*>(to) = make_float4(old.x + sum.x, old.y + sum.y, old.z + sum.z, old.w + sum.w);
}
