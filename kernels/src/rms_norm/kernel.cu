// Root-mean-square normalisation on rows as rows.cuh has them: a row is read once and stays in registers, up to 8192
// elements; what is beyond is read again. The gain comes from the caches.
//
// Bytes of memory an element: forward 8 (x in, y out); add_forward 16 (x and y in, x and the result out); with a result in
// bfloat16 two less;
// backward_input 12 (dy and x in, dx out); backward the same and, for the sums of bands of 16 rows or more, at most
// 0.25 each way.

// y = w * x * scale, where ADDS after x += y.
template <bool ALIGNED, bool ADDS, typename T>
__device__ __forceinline__ void normalise(
    const float* x, const float* y, float* total, const float* w, T* out, float* scales, u32 rows, u32 d, float eps)
{
    SHARED_ARRAY(float, partial, [ROW_WARPS][1]);
    u32 row = blockIdx.x * blockDim.y + threadIdx.y, quads = row < rows ? (d + 3) / 4 : 0;
    u64 begin = (u64)row * d;
    x += begin, out += begin;
    if (ADDS) y += begin, total += begin;
    float squares[1] = {0.0f};
    auto add_squares = [&](const Quad& v) {
#pragma unroll
        for (u32 k = 0; k < 4; k++) squares[0] = fmaf(v.v[k], v.v[k], squares[0]);
    };

    Quad kept[ROW_QUADS];
    load_kept<ALIGNED>(kept, x, quads, d);
    if (ADDS) {
        Quad added[ROW_QUADS];
        load_kept<ALIGNED>(added, y, quads, d);
#pragma unroll
        for (u32 j = 0; j < ROW_QUADS; j++) add_quad(kept[j], added[j]);
        store_kept<ALIGNED>(total, kept, quads, d);
    }
    for_kept(quads, [&](u32 j, u32) { add_squares(kept[j]); });
    for_others(quads, [&](u32 quad) {
        Quad v = load_quad<ALIGNED>(x, quad, d);
        if (ADDS) {
            add_quad(v, load_quad<ALIGNED>(y, quad, d));
            store_quad<ALIGNED>(total, quad, d, v);
        }
        add_squares(v);
    });
    Quad gain[ROW_QUADS];
    load_kept<ALIGNED>(gain, w, quads, d);
    row_sums(squares, partial);
    float scale = 1.0f / sqrtf(squares[0] / (float)d + eps);

    auto finish = [&](u32 quad, Quad v, const Quad& gain) {
#pragma unroll
        for (u32 k = 0; k < 4; k++) v.v[k] = v.v[k] * scale * gain.v[k];
        store_quad<ALIGNED>(out, quad, d, v);
    };
    for_kept(quads, [&](u32 j, u32 quad) { finish(quad, kept[j], gain[j]); });
    for_others(quads, [&](u32 quad) {
        finish(quad, load_quad<ALIGNED>(ADDS ? total : x, quad, d), load_quad<ALIGNED>(w, quad, d));
    });
    if (threadIdx.x == 0 && row < rows) scales[row] = scale;
}

extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, 2) forward(
    const float* __restrict__ x,
    const float* __restrict__ w,
    float* __restrict__ y,
    float* __restrict__ scales,
    u32 rows,
    u32 d,
    float eps)
{
    if (d % 4 == 0) {
        normalise<true, false>(x, nullptr, nullptr, w, y, scales, rows, d, eps);
    } else {
        normalise<false, false>(x, nullptr, nullptr, w, y, scales, rows, d, eps);
    }
}

extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, 2) forward_rounded(
    const float* __restrict__ x,
    const float* __restrict__ w,
    bf16* __restrict__ y,
    float* __restrict__ scales,
    u32 rows,
    u32 d,
    float eps)
{
    if (d % 4 == 0) {
        normalise<true, false>(x, nullptr, nullptr, w, y, scales, rows, d, eps);
    } else {
        normalise<false, false>(x, nullptr, nullptr, w, y, scales, rows, d, eps);
    }
}

extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, 2) add_forward(
    float* x,
    const float* __restrict__ y,
    const float* __restrict__ w,
    float* __restrict__ out,
    float* __restrict__ scales,
    u32 rows,
    u32 d,
    float eps)
{
    if (d % 4 == 0) {
        normalise<true, true>(x, y, x, w, out, scales, rows, d, eps);
    } else {
        normalise<false, true>(x, y, x, w, out, scales, rows, d, eps);
    }
}

extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, 2) add_forward_rounded(
    float* x,
    const float* __restrict__ y,
    const float* __restrict__ w,
    bf16* __restrict__ out,
    float* __restrict__ scales,
    u32 rows,
    u32 d,
    float eps)
{
    if (d % 4 == 0) {
        normalise<true, true>(x, y, x, w, out, scales, rows, d, eps);
    } else {
        normalise<false, true>(x, y, x, w, out, scales, rows, d, eps);
    }
}

// dx of one row after the other, a block for a band of them; where GAIN the sums of dy * x * scale too. The bands do
// not depend on the card.
template <bool ALIGNED, bool GAIN>
__device__ __forceinline__ void differentiate(
    const float* dy, const float* x, const float* scales, const float* w, float* dx, float* parts, u32 rows, u32 d,
    u32 band)
{
    SHARED_ARRAY(float, partial, [2][ROW_WARPS][1]);
    u32 begin = blockIdx.x * band, end = begin + min(band, rows - begin);
    if (GAIN) parts += (u64)blockIdx.x * d;
    Quad gain[ROW_QUADS], dw[1][ROW_QUADS] = {};
    if (GAIN) load_kept<ALIGNED>(gain, w, (d + 3) / 4, d);
    for (u32 first = begin; first < end; first += blockDim.y) {
        u32 row = first + threadIdx.y, quads = row < end ? (d + 3) / 4 : 0;
        u64 at = (u64)row * d;
        float scale = row < end ? scales[row] : 0.0f, pull[1] = {0.0f};
        // Of dy the gradient behind the gain is left.
        auto absorb = [&](Quad& g, const Quad& v, const Quad& gain, Quad& sums) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                if (GAIN) sums.v[k] = fmaf(g.v[k], v.v[k] * scale, sums.v[k]);
                g.v[k] = g.v[k] * scale * gain.v[k];
                pull[0] = fmaf(g.v[k], v.v[k], pull[0]);
            }
        };
        Quad g[ROW_QUADS], v[ROW_QUADS];
        load_kept<ALIGNED>(g, dy + at, quads, d);
        load_kept<ALIGNED>(v, x + at, quads, d);
        for_kept(quads, [&](u32 j, u32 quad) {
            absorb(g[j], v[j], GAIN ? gain[j] : load_quad<ALIGNED>(w, quad, d), dw[0][j]);
        });
        for_others(quads, [&](u32 quad) {
            Quad other = load_quad<ALIGNED>(dy + at, quad, d), sums = {};
            if (GAIN && first > begin) sums = load_quad<ALIGNED>(parts, quad, d);
            absorb(other, load_quad<ALIGNED>(x + at, quad, d), load_quad<ALIGNED>(w, quad, d), sums);
            if (GAIN) store_quad<ALIGNED>(parts, quad, d, sums);
        });
        row_sums(pull, partial[(first - begin) / blockDim.y % 2]);

        float factor = pull[0] * scale * scale / (float)d;
        auto finish = [&](u32 quad, Quad g, const Quad& v) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) g.v[k] -= v.v[k] * factor;
            store_quad<ALIGNED>(dx + at, quad, d, g);
        };
        for_kept(quads, [&](u32 j, u32 quad) { finish(quad, g[j], v[j]); });
        for_others(quads, [&](u32 quad) {
            Quad g = load_quad<ALIGNED>(dy + at, quad, d), gain = load_quad<ALIGNED>(w, quad, d);
#pragma unroll
            for (u32 k = 0; k < 4; k++) g.v[k] = g.v[k] * scale * gain.v[k];
            finish(quad, g, load_quad<ALIGNED>(x + at, quad, d));
        });
    }
    if (GAIN) {
        SHARED_MEMORY(Quad, shared);
        store_kept_sums<ALIGNED>(dw, shared, parts, d);
    }
}

extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS) backward_input(
    const float* __restrict__ dy,
    const float* __restrict__ x,
    const float* __restrict__ scales,
    const float* __restrict__ w,
    float* __restrict__ dx,
    u32 rows,
    u32 d)
{
    if (d % 4 == 0) {
        differentiate<true, false>(dy, x, scales, w, dx, nullptr, rows, d, blockDim.y);
    } else {
        differentiate<false, false>(dy, x, scales, w, dx, nullptr, rows, d, blockDim.y);
    }
}

extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS) backward(
    const float* __restrict__ dy,
    const float* __restrict__ x,
    const float* __restrict__ scales,
    const float* __restrict__ w,
    float* __restrict__ dx,
    float* __restrict__ parts,  // [bands, d]
    u32 rows,
    u32 d,
    u32 band)
{
    if (d % 4 == 0) {
        differentiate<true, true>(dy, x, scales, w, dx, parts, rows, d, band);
    } else {
        differentiate<false, true>(dy, x, scales, w, dx, parts, rows, d, band);
    }
}

// The second stage: the bands onto what is there.
extern "C" __global__ void __launch_bounds__(1024) add_parts(
    const float* __restrict__ parts,  // [bands, d]
    float* __restrict__ dw,
    u32 bands,
    u32 d)
{
    float sum = column_sum(parts, bands, d);
    u32 column = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && column < d) dw[column] += sum;
}
