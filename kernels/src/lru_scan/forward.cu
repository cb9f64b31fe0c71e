// The fused layer, forward: y = Re(C h + c). A block takes an item of work and all channels, or 32 of them if the rows are
// few. Weights and the next rows arrive while the block computes.
//
// Bytes of a row: 4 d read and 4 d written; of weights 512 d for 64 rows and 32 channels, from the second-level cache.
// Multiply-adds of a row: 4 d state, each thread one a clock: bound by arithmetic. Three blocks fit a multiprocessor of an
// H200, two of an A100, one of an RTX 4090.

// The states at the ends of chunks that others follow, from nothing at their begins, where the next chunk's are kept.
extern "C" __global__ void __launch_bounds__(THREADS, 4) ends(
    const float* __restrict__ x,
    const float* __restrict__ in_re,
    const float* __restrict__ in_im,
    const float* __restrict__ in_bias_re,
    const float* __restrict__ in_bias_im,
    const float* __restrict__ table,
    const uint4* __restrict__ work,
    const u32* __restrict__ starts,
    float* __restrict__ carries,
    u32 d,
    u32 state)
{
    SHARED_MEMORY(float, memory);
    float *x_tile = memory, *states = memory + BUFFER, *in = memory + 2 * BUFFER;
    u32 groups = (state + GROUP - 1) / GROUP, number = blockIdx.x / groups, first = blockIdx.x % groups * GROUP;
    if (number >= count_of(work)) return;
    const Item item = item_at(work, number);
    if (item.behind == 0) return;
    u32 channel = first + own_place() * 2;
    const Channels channels = channels_at(table, channel, state, 1.0f);
    copy_in(in, in_re, in_im, first, d, state);
    Complex2 carry = {};
    for (u32 tile = 0; tile < tiles_of(item); tile++) {
        const Tile at = tile_of(item, tile);
        __syncthreads();
        copy_rows(x_tile, x + (u64)at.first * d, at.rows, d);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        float v[8][4];
        project(v, x_tile, in, in_bias_re, in_bias_im, channel, d, state);
        u32 begins = starts_at(starts, at.first + own_group() * 8) & 0xff;
        carry = run(states, v, channels, begins, enter<false>(v, channels.gamma, channels, begins, carry), at.rows);
        carry = shuffle_from(carry, 7);
    }
    if (own_group() == 7) keep(carries, item_at(work, number + 1).slot, channel, state, carry);
}

// y = Re(C h + c). With several splits a block takes 32 channels and leaves its part of the sum in y, which is
// [splits, n, d] then; the state of a tile's end is kept for the next tile and for the backward.
extern "C" __global__ void __launch_bounds__(THREADS, 3) forward(
    const float* __restrict__ x,
    const float* __restrict__ in_re,
    const float* __restrict__ in_im,
    const float* __restrict__ in_bias_re,
    const float* __restrict__ in_bias_im,
    const float* __restrict__ out_re,
    const float* __restrict__ out_im,
    const float* __restrict__ out_bias,
    const float* __restrict__ table,
    const uint4* __restrict__ work,
    const u32* __restrict__ starts,
    float* carries,
    float* __restrict__ y,
    u32 n,
    u32 d,
    u32 state,
    u32 splits)
{
    SHARED_MEMORY(float, memory);
    float *x_tile = memory, *states = memory + BUFFER, *in = memory + 2 * BUFFER, *out = memory + 3 * BUFFER;
    u32 number = blockIdx.x / splits, split = blockIdx.x % splits;
    if (number >= count_of(work)) return;
    const Item item = item_at(work, number);
    u32 groups = (state + GROUP - 1) / GROUP / splits, begin = split * groups * GROUP, end = begin + groups * GROUP;
    u32 group = own_group(), place = own_place(), tiles = tiles_of(item);
    copy_rows(x_tile, x + (u64)item.first * d, min((u32)TILE, item.rows), d);
    copy_in(in, in_re, in_im, begin, d, state);
    cp_async_commit();
    for (u32 tile = 0; tile < tiles; tile++) {
        const Tile at = tile_of(item, tile);
        u32 begins = starts_at(starts, at.first + 8 * group) & 0xff;
        float4 bias = splits == 1 && 4 * place < d ? four(out_bias + 4 * place) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        float sums[8][4];
#pragma unroll
        for (u32 i = 0; i < 8; i++) sums[i][0] = bias.x, sums[i][1] = bias.y, sums[i][2] = bias.z, sums[i][3] = bias.w;
#pragma unroll 1
        for (u32 first = begin; first < end; first += GROUP) {
            bool last = first + GROUP == end;
            cp_async_wait<0>();
            __syncthreads();
            if (groups > 1 || tile == 0) copy_out(out, out_re, out_im, first, d, state);
            cp_async_commit();
            u32 channel = first + 2 * place;
            const Channels channels = channels_at(table, channel, state, 1.0f);
            bool goes_on = group == 0 && (tile > 0 || item.goes_on);
            const Complex2 carry = goes_on ? kept(carries, at.slot, channel, state) : Complex2{};
            float v[8][4];
            project(v, x_tile, in, in_bias_re, in_bias_im, channel, d, state);
            const Complex2 entering = enter<false>(v, channels.gamma, channels, begins, carry);
            const Complex2 leaving = run(states, v, channels, begins, entering, at.rows);
            if (group == 7 && tile + 1 < tiles) keep(carries, at.slot + 1, channel, state, leaving);
            cp_async_wait<0>();
            __syncthreads();
            // What was read is free for what is next.
            if (groups > 1) copy_in(in, in_re, in_im, last ? begin : first + GROUP, d, state);
            if (last && tile + 1 < tiles) {
                const Tile next = tile_of(item, tile + 1);
                copy_rows(x_tile, x + (u64)next.first * d, next.rows, d);
            }
            cp_async_commit();
            if (4 * place < d) product(states, out, 2 * GROUP, sums);
        }
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            if (8 * group + i < at.rows && 4 * place < d) {
                float* to = y + ((u64)split * n + at.first + 8 * group + i) * d + 4 * place;
                *reinterpret_cast<float4*>(to) = make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
            }
        }
    }
    cp_async_wait<0>();
}

// sum = bias + Σ parts, all of [n, d] in fours; the bias [d] may be absent.
extern "C" __global__ void __launch_bounds__(256) add_parts(
    const float* __restrict__ parts,
    const float* __restrict__ bias,
    float* __restrict__ sum,
    u32 count,
    u64 fours,
    u32 d)
{
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= fours) return;
    float4 v = bias ? four(bias + 4 * i % d) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (u32 part = 0; part < count; part++) {
        float4 more = four(parts + 4 * (part * fours + i));
        v.x += more.x, v.y += more.y, v.z += more.z, v.w += more.w;
    }
    *reinterpret_cast<float4*>(sum + 4 * i) = v;
}
