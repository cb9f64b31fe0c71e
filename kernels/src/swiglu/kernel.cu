// The gated activation: four neighbours a thread, in accesses of 16 bytes, or of 8 where an element has two. Three elements are
// moved forward, five backward: memory bounds the time, so quotients and exponentials are exact ones. The backward works the
// sigmoid out again, which costs less than to read it. Of bfloat16 everything between is in f32.

// 1 + e^-g, where the exponential goes no higher than on the host: a gate of minus infinity stays infinite.
__device__ __forceinline__ float denominator(float g) {
    return 1.0f + expf(fminf(-g, 88.0f));
}

template <typename T>
__device__ __forceinline__ void gated(const T* gate, const T* up, T* y, u64 n) {
    u64 i = first_of_four();
    Four<float> g = read4_float(gate, i, n), u = read4_float(up, i, n);
#pragma unroll
    for (u32 k = 0; k < 4; k++) u.at[k] *= g.at[k] / denominator(g.at[k]);
    write4_float(y, i, n, u);
}

template <typename T>
__device__ __forceinline__ void differentiate(const T* dy, const T* gate, const T* up, T* dgate, T* dup, u64 n) {
    u64 i = first_of_four();
    Four<float> d = read4_float(dy, i, n), g = read4_float(gate, i, n), u = read4_float(up, i, n);
#pragma unroll
    for (u32 k = 0; k < 4; k++) {
        float s = 1.0f / denominator(g.at[k]);
        u.at[k] = d.at[k] * u.at[k] * s * (1.0f + g.at[k] * (1.0f - s));
        d.at[k] = d.at[k] * g.at[k] * s;
    }
    write4_float(dgate, i, n, u);
    write4_float(dup, i, n, d);
}

extern "C" __global__ void __launch_bounds__(256) forward(
    const float* __restrict__ gate,
    const float* __restrict__ up,
    float* __restrict__ y,
    u64 n)
{
    gated(gate, up, y, n);
}

extern "C" __global__ void __launch_bounds__(256) forward_bf16(
    const bf16* __restrict__ gate,
    const bf16* __restrict__ up,
    bf16* __restrict__ y,
    u64 n)
{
    gated(gate, up, y, n);
}

extern "C" __global__ void __launch_bounds__(256) backward(
    const float* __restrict__ dy,
    const float* __restrict__ gate,
    const float* __restrict__ up,
    float* __restrict__ dgate,
    float* __restrict__ dup,
    u64 n)
{
    differentiate(dy, gate, up, dgate, dup, n);
}

extern "C" __global__ void __launch_bounds__(256) backward_bf16(
    const bf16* __restrict__ dy,
    const bf16* __restrict__ gate,
    const bf16* __restrict__ up,
    bf16* __restrict__ dgate,
    bf16* __restrict__ dup,
    u64 n)
{
    differentiate(dy, gate, up, dgate, dup, n);
}
