// Layer normalisation on rows as rows.cuh has them: a row is read once and stays in registers for the mean, the
// deviations from it and the result, up to 8192 elements; what is beyond is read again. Weight and bias come from the
// caches.
//
// Bytes of memory an element: forward 8 (x in, y out), forward_rounded 6, add_forward 16 (x and y in, x and the
// result out), backward 12 (dy and x in, dx out) and, for the sums of bands of 16 rows or more, at most 0.5 each way.
//
// Tried before: sums by a kernel of their own, a thread a column, which read dy and x once more.

// The elements from the mean on; zeros beyond the end of a row.
template <bool ALIGNED>
__device__ __forceinline__ Quad deviations(const Quad& v, float mean, u32 quad, u32 d) {
    Quad found;
#pragma unroll
    for (u32 k = 0; k < 4; k++) found.v[k] = ALIGNED || 4 * quad + k < d ? v.v[k] - mean : 0.0f;
    return found;
}

// y = (x - mean) / deviation * weight + bias, where ADDS after x += y. The statistics may be left out.
template <bool ALIGNED, bool ADDS, typename Out>
__device__ __forceinline__ void normalise(
    const float* x, const float* y, float* total, const float* weight, const float* bias, Out* out, float* means,
    float* inverses, u32 rows, u32 d, float eps)
{
    SHARED_ARRAY(float, partial, [2][ROW_WARPS][1]);
    u32 row = blockIdx.x * blockDim.y + threadIdx.y, quads = row < rows ? (d + 3) / 4 : 0;
    u64 begin = (u64)row * d;
    x += begin, out += begin;
    if (ADDS) y += begin, total += begin;

    Quad kept[ROW_QUADS];
    load_kept<ALIGNED>(kept, x, quads, d);
    if (ADDS) {
        Quad added[ROW_QUADS];
        load_kept<ALIGNED>(added, y, quads, d);
#pragma unroll
        for (u32 j = 0; j < ROW_QUADS; j++) add_quad(kept[j], added[j]);
        store_kept<ALIGNED>(total, kept, quads, d);
    }
    float sum[1] = {0.0f}, squares[1] = {0.0f};
    auto add = [&](const Quad& v) { sum[0] += (v.v[0] + v.v[1]) + (v.v[2] + v.v[3]); };
    for_kept(quads, [&](u32 j, u32) { add(kept[j]); });
    for_others(quads, [&](u32 quad) {
        Quad v = load_quad<ALIGNED>(x, quad, d);
        if (ADDS) {
            add_quad(v, load_quad<ALIGNED>(y, quad, d));
            store_quad<ALIGNED>(total, quad, d, v);
        }
        add(v);
    });
    row_sums(sum, partial[0]);
    float mean = sum[0] / (float)d;

    auto other = [&](u32 quad) {
        return deviations<ALIGNED>(load_quad<ALIGNED>(ADDS ? total : x, quad, d), mean, quad, d);
    };
    auto add_squares = [&](const Quad& v) {
#pragma unroll
        for (u32 k = 0; k < 4; k++) squares[0] = fmaf(v.v[k], v.v[k], squares[0]);
    };
    for_kept(quads, [&](u32 j, u32 quad) { add_squares(kept[j] = deviations<ALIGNED>(kept[j], mean, quad, d)); });
    for_others(quads, [&](u32 quad) { add_squares(other(quad)); });
    row_sums(squares, partial[1]);
    float inverse = 1.0f / sqrtf(squares[0] / (float)d + eps);

    auto finish = [&](u32 quad, Quad v) {
        Quad w = load_quad<ALIGNED>(weight, quad, d), b = load_quad<ALIGNED>(bias, quad, d);
#pragma unroll
        for (u32 k = 0; k < 4; k++) v.v[k] = fmaf(v.v[k] * inverse, w.v[k], b.v[k]);
        store_quad<ALIGNED>(out, quad, d, v);
    };
    for_kept(quads, [&](u32 j, u32 quad) { finish(quad, kept[j]); });
    for_others(quads, [&](u32 quad) { finish(quad, other(quad)); });
    if (means && threadIdx.x == 0 && row < rows) {
        means[row] = mean;
        inverses[row] = inverse;
    }
}

extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, 2) forward(
    const float* __restrict__ x,
    const float* __restrict__ weight,
    const float* __restrict__ bias,
    float* __restrict__ y,
    float* __restrict__ means,
    float* __restrict__ inverses,
    u32 rows,
    u32 d,
    float eps)
{
    if (d % 4 == 0) {
        normalise<true, false>(x, nullptr, nullptr, weight, bias, y, means, inverses, rows, d, eps);
    } else {
        normalise<false, false>(x, nullptr, nullptr, weight, bias, y, means, inverses, rows, d, eps);
    }
}

extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, 2) forward_rounded(
    const float* __restrict__ x,
    const float* __restrict__ weight,
    const float* __restrict__ bias,
    bf16* __restrict__ y,
    u32 rows,
    u32 d,
    float eps)
{
    if (d % 4 == 0) {
        normalise<true, false>(x, nullptr, nullptr, weight, bias, y, nullptr, nullptr, rows, d, eps);
    } else {
        normalise<false, false>(x, nullptr, nullptr, weight, bias, y, nullptr, nullptr, rows, d, eps);
    }
}

extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS, 2) add_forward(
    float* x,
    const float* __restrict__ y,
    const float* __restrict__ weight,
    const float* __restrict__ bias,
    float* __restrict__ out,
    float* __restrict__ means,
    float* __restrict__ inverses,
    u32 rows,
    u32 d,
    float eps)
{
    if (d % 4 == 0) {
        normalise<true, true>(x, y, x, weight, bias, out, means, inverses, rows, d, eps);
    } else {
        normalise<false, true>(x, y, x, weight, bias, out, means, inverses, rows, d, eps);
    }
}

// dx of one row after the other and the sums of the gradients of weight and bias, a block for a band of rows. The
// bands do not depend on the card.
template <bool ALIGNED>
__device__ __forceinline__ void differentiate(
    const float* dy, const float* x, const float* means, const float* inverses, const float* weight, float* dx,
    float* parts, u32 rows, u32 d, u32 band)
{
    SHARED_ARRAY(float, partial, [2][ROW_WARPS][2]);
    u32 begin = blockIdx.x * band, end = begin + min(band, rows - begin);
    parts += (u64)blockIdx.x * 2 * d;
    Quad sums[2][ROW_QUADS] = {};  // of the weight and of the bias
    for (u32 first = begin; first < end; first += blockDim.y) {
        u32 row = first + threadIdx.y, quads = row < end ? (d + 3) / 4 : 0;
        u64 at = (u64)row * d;
        float mean = row < end ? means[row] : 0.0f, inverse = row < end ? inverses[row] : 0.0f;
        float means_of_row[2] = {0.0f, 0.0f};  // the shift and the pull
        // Of dy the gradient behind the weight is left, of x what was normal.
        auto open = [&](u32 quad, Quad& g, Quad& v, Quad& dw, Quad& db) {
            Quad w = load_quad<ALIGNED>(weight, quad, d);
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                v.v[k] = (v.v[k] - mean) * inverse;
                dw.v[k] = fmaf(g.v[k], v.v[k], dw.v[k]);
                db.v[k] += g.v[k];
                g.v[k] *= w.v[k];
            }
        };
        auto absorb = [&](const Quad& g, const Quad& normal) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                means_of_row[0] += g.v[k];
                means_of_row[1] = fmaf(g.v[k], normal.v[k], means_of_row[1]);
            }
        };
        Quad g[ROW_QUADS], v[ROW_QUADS];
        load_kept<ALIGNED>(g, dy + at, quads, d);
        load_kept<ALIGNED>(v, x + at, quads, d);
        for_kept(quads, [&](u32 j, u32 quad) {
            open(quad, g[j], v[j], sums[0][j], sums[1][j]);
            absorb(g[j], v[j]);
        });
        for_others(quads, [&](u32 quad) {
            Quad g = load_quad<ALIGNED>(dy + at, quad, d), v = load_quad<ALIGNED>(x + at, quad, d), dw = {}, db = {};
            if (first > begin) dw = load_quad<ALIGNED>(parts, quad, d), db = load_quad<ALIGNED>(parts + d, quad, d);
            open(quad, g, v, dw, db);
            absorb(g, v);
            store_quad<ALIGNED>(parts, quad, d, dw);
            store_quad<ALIGNED>(parts + d, quad, d, db);
        });
        row_sums(means_of_row, partial[(first - begin) / blockDim.y % 2]);

        float shift = means_of_row[0] / (float)d, pull = means_of_row[1] / (float)d;
        auto finish = [&](u32 quad, Quad g, const Quad& normal) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) g.v[k] = (g.v[k] - shift - normal.v[k] * pull) * inverse;
            store_quad<ALIGNED>(dx + at, quad, d, g);
        };
        for_kept(quads, [&](u32 j, u32 quad) { finish(quad, g[j], v[j]); });
        for_others(quads, [&](u32 quad) {
            Quad g = load_quad<ALIGNED>(dy + at, quad, d), v = load_quad<ALIGNED>(x + at, quad, d), unused = {};
            open(quad, g, v, unused, unused);
            finish(quad, g, v);
        });
    }
    SHARED_MEMORY(Quad, shared);
    store_kept_sums<ALIGNED>(sums, shared, parts, d);
}

extern "C" __global__ void __launch_bounds__(32 * ROW_WARPS) backward(
    const float* __restrict__ dy,
    const float* __restrict__ x,
    const float* __restrict__ means,
    const float* __restrict__ inverses,
    const float* __restrict__ weight,
    float* __restrict__ dx,
    float* __restrict__ parts,  // [bands, 2, d]
    u32 rows,
    u32 d,
    u32 band)
{
    if (d % 4 == 0) {
        differentiate<true>(dy, x, means, inverses, weight, dx, parts, rows, d, band);
    } else {
        differentiate<false>(dy, x, means, inverses, weight, dx, parts, rows, d, band);
    }
}

// The second stage: the bands onto what is there.
extern "C" __global__ void __launch_bounds__(1024) add_parts(
    const float* __restrict__ parts,  // [bands, 2, d]
    float* __restrict__ d_weight,
    float* __restrict__ d_bias,
    u32 bands,
    u32 d)
{
    float sum = column_sum(parts, bands, 2 * d);
    u32 column = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && column < 2 * d) *(column < d ? d_weight + column : d_bias + (column - d)) += sum;
}
