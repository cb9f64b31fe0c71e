// What is done for every channel, with the recurrence alone and with the fused layer: coefficients, the states between the
// chunks of long sequences, the coefficients' gradients. A thread has a channel, neighbours have neighbouring ones; the
// traffic is that of the table, of 8 bytes a chunk and channel and of the partial sums.

#define WARPS 8

// [13, state] from log ν, log θ and log γ. Powers are those of the rounded λ, so that a jump over rows is worth the steps.
extern "C" __global__ void __launch_bounds__(128) coefficients(
    const float* __restrict__ params_log,
    float* __restrict__ table,
    u32 state,
    u32 chunk)
{
    u32 s = blockIdx.x * blockDim.x + threadIdx.x;
    if (s >= state) return;
    double size = exp(-exp((double)params_log[s])), angle = exp((double)params_log[state + s]);
    float lambda_re = (float)(size * cos(angle)), lambda_im = (float)(size * sin(angle));
    table += s;
    table[0] = lambda_re;
    table[state] = lambda_im;
    table[GAMMA * state] = (float)exp((double)params_log[2 * state + s]);
    double re = lambda_re, im = lambda_im, re_8 = 0.0, im_8 = 0.0;
    for (u32 power = 2; power <= chunk; power *= 2) {
        double square = re * re - im * im;
        im = 2.0 * re * im;
        re = square;
        u32 row = power == 8 ? POWER_8 : power == 16 ? POWER_16 : power == 32 ? POWER_32 : POWER_CHUNK;
        if (power == 8) re_8 = re, im_8 = im;
        if (power == 16) {
            table[POWER_24 * state] = (float)(re * re_8 - im * im_8);
            table[(POWER_24 + 1) * state] = (float)(re * im_8 + im * re_8);
        }
        if (power >= 8) {
            table[row * state] = (float)re;
            table[(row + 1) * state] = (float)im;
        }
    }
}

// Turns the states at the ends of chunks, each from nothing, into those that the chunks truly begin with; back in time
// likewise. A block takes the chunks of a sequence, a thread a channel; eight states are read at a time.
template <bool BACK>
__device__ __forceinline__ void join(const float* table, const uint4* work, float* carries, u32 state) {
    if (blockIdx.x >= count_of(work)) return;
    const Item item = item_at(work, blockIdx.x);
    if (item.goes_on || item.behind < 2) return;
    u64 stride = 2ull * (item_at(work, blockIdx.x + 1).slot - item.slot) * state;
    carries += 2ull * item.slot * state;
    for (u32 s = threadIdx.x; s < state; s += blockDim.x) {
        float power_re = table[POWER_CHUNK * state + s], power_im = table[(POWER_CHUNK + 1) * state + s];
        if (BACK) power_im = -power_im;
        float re = 0.0f, im = 0.0f;
        // The k-th of item.behind states: kept for the chunks behind the first, or back in time for those before the last.
        auto place = [&](u32 k) { return carries + (BACK ? item.behind - 1 - k : 1 + k) * stride + s; };
        for (u32 first = 0; first < item.behind; first += 8) {
            float next_re[8], next_im[8];
#pragma unroll
            for (u32 j = 0; j < 8; j++) {
                if (first + j < item.behind) next_re[j] = place(first + j)[0], next_im[j] = place(first + j)[state];
            }
#pragma unroll
            for (u32 j = 0; j < 8; j++) {
                if (first + j < item.behind) {
                    float old = re;
                    if (first + j > 0) {
                        re = fmaf(power_re, re, fmaf(-power_im, im, next_re[j]));
                        im = fmaf(power_re, im, fmaf(power_im, old, next_im[j]));
                    } else {
                        re = next_re[j], im = next_im[j];
                    }
                    place(first + j)[0] = re;
                    place(first + j)[state] = im;
                }
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(128) join_chunks(
    const float* __restrict__ table,
    const uint4* __restrict__ work,
    float* __restrict__ carries,
    u32 state)
{
    join<false>(table, work, carries, state);
}

extern "C" __global__ void __launch_bounds__(128) join_chunks_back(
    const float* __restrict__ table,
    const uint4* __restrict__ work,
    float* __restrict__ carries,
    u32 state)
{
    join<true>(table, work, carries, state);
}

// The second stage of the sums over rows, and the gradients of the logarithms: with z = conj(Σ g conj(h)) λ, dν = -Re z and
// dθ = -Im z, each times the number whose logarithm is stored. A block takes 32 channels; its warp w adds the bands w,
// w + 8 and so on, then the first adds those of all. A band has the three sums and, if they are asked for, those of the two
// biases, all [state].
extern "C" __global__ void __launch_bounds__(256) add_gradient(
    const float* __restrict__ parts,
    u64 stride,
    u32 bands,
    const uint4* __restrict__ work,
    const float* __restrict__ params_log,
    const float* __restrict__ table,
    float* __restrict__ d_params_log,
    float* __restrict__ d_bias_re,
    float* __restrict__ d_bias_im,
    u32 state)
{
    SHARED_ARRAY(float, of_warps, [WARPS][5][32]);
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, s = blockIdx.x * 32 + lane, kinds = d_bias_re ? 5 : 3;
    u32 filled = min(bands, count_of(work));
    float sums[5] = {};
    if (s < state) {
#pragma unroll 4
        for (u32 band = warp; band < filled; band += WARPS) {
#pragma unroll
            for (u32 j = 0; j < 5; j++) {
                if (j < kinds) sums[j] += parts[band * stride + j * state + s];
            }
        }
    }
#pragma unroll
    for (u32 j = 0; j < 5; j++) of_warps[warp][j][lane] = sums[j];
    __syncthreads();
    if (warp > 0 || s >= state) return;
    for (u32 w = 1; w < WARPS; w++) {
#pragma unroll
        for (u32 j = 0; j < 5; j++) sums[j] += of_warps[w][j][lane];
    }
    float re = table[s], im = table[state + s];
    float nu = (float)exp((double)params_log[s]), theta = (float)exp((double)params_log[state + s]);
    d_params_log[s] -= nu * (sums[0] * re + sums[1] * im);
    d_params_log[state + s] -= theta * (sums[0] * im - sums[1] * re);
    d_params_log[2 * state + s] += table[GAMMA * state + s] * sums[2];
    if (kinds == 5) {
        d_bias_re[s] += sums[3];
        d_bias_im[s] += sums[4];
    }
}
