// Sums of tensors, and rounding between f32 and bfloat16: four neighbours a thread, which it reads and writes in accesses of
// 16 bytes, or of 8 where an element has two. Traffic is that of the operands: 12 bytes an element for `add`, 10 for `add_bf16`,
// 6 for the others. Eight elements a thread would make accesses of bfloat16 as wide as those of f32, but put a gap between those of
// neighbouring threads.

template <typename T>
__device__ __forceinline__ void add_to(float* a, const T* b, u64 n) {
    u64 i = first_of_four();
    Four<float> sum = read4(a, i, n), more = read4_float(b, i, n);
#pragma unroll
    for (u32 k = 0; k < 4; k++) sum.at[k] += more.at[k];
    write4(a, i, n, sum);
}

extern "C" __global__ void __launch_bounds__(256) add(
    float* __restrict__ a,
    const float* __restrict__ b,
    u64 n)
{
    add_to(a, b, n);
}

extern "C" __global__ void __launch_bounds__(256) add_bf16(
    float* __restrict__ a,
    const bf16* __restrict__ b,
    u64 n)
{
    add_to(a, b, n);
}

extern "C" __global__ void __launch_bounds__(256) narrow(
    const float* __restrict__ x,
    bf16* __restrict__ y,
    u64 n)
{
    u64 i = first_of_four();
    write4_float(y, i, n, read4(x, i, n));
}

extern "C" __global__ void __launch_bounds__(256) widen(
    const bf16* __restrict__ x,
    float* __restrict__ y,
    u64 n)
{
    u64 i = first_of_four();
    write4(y, i, n, read4_float(x, i, n));
}
