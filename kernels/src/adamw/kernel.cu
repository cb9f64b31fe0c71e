// AdamW for all parameters in one launch: a block for 1,024 elements of one of them, four neighbours a thread. Memory bounds
// the time: 16 bytes read, 12 written per element, in accesses of 16. A block finds its parameter in a table of 80 bytes
// each, by some five reads that all blocks share; one entry per block would make the table grow with the parameters.

// What one step multiplies with.
struct Factors {
    float grad_scale;
    float keep;
    float one_minus_beta1;
    float beta2;
    float one_minus_beta2;
    float step_size;
    float root_correction;
    float eps;
};

// A parameter; `first` counts the chunks of those before.
struct Part {
    float* param;
    const float* grad;
    float* m;
    float* v;
    u64 len;
    u64 first;
    Factors factors;
};

// The update of one element, operation for operation that of the host.
__device__ __forceinline__ void update(float& p, float grad, float& m, float& v, float grad_scale, const Factors& f) {
    float g = grad * grad_scale;
    m = fmaf(g - m, f.one_minus_beta1, m);
    v = fmaf(g * f.one_minus_beta2, g, v * f.beta2);
    float denominator = fmaf(sqrtf(v), f.root_correction, f.eps);
    p = fmaf(m / denominator, -f.step_size, p * f.keep);
}

extern "C" __global__ void __launch_bounds__(256) step(
    const Part* __restrict__ parts,
    u32 count,
    const float* __restrict__ clipping)  // in the place of the table's factor, if there is one
{
    const Part& part = part_of(parts, count, blockIdx.x);
    Factors factors = part.factors;
    float grad_scale = clipping ? *clipping : factors.grad_scale;
    u64 i = 4 * ((blockIdx.x - part.first) * blockDim.x + threadIdx.x), n = part.len;
    Four<float> p = read4(part.param, i, n), g = read4(part.grad, i, n);
    Four<float> m = read4(part.m, i, n), v = read4(part.v, i, n);
#pragma unroll
    for (u32 k = 0; k < 4; k++) update(p.at[k], g.at[k], m.at[k], v.at[k], grad_scale, factors);
    write4(part.param, i, n, p);
    write4(part.m, i, n, m);
    write4(part.v, i, n, v);
}
