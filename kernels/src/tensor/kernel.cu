// Sums of tensors, and rounding between f32 and bfloat16: four neighbours a thread, which it reads and writes in accesses of
// 16 bytes, or of 8 where an element has two. Traffic is that of the operands: 12 bytes an element for `add`, 6 for the
// others. Eight elements a thread would make accesses of bfloat16 as wide as those of f32, but put a gap between those of
// neighbouring threads.

extern "C" __global__ void __launch_bounds__(256) add(
    float* __restrict__ a,
    const float* __restrict__ b,
    u64 n)
{
    u64 i = first_of_four();
    Four<float> sum = read4(a, i, n), more = read4(b, i, n);
#pragma unroll
    for (u32 k = 0; k < 4; k++) sum.at[k] += more.at[k];
    write4(a, i, n, sum);
}

extern "C" __global__ void __launch_bounds__(256) narrow(
    const float* __restrict__ x,
    bf16* __restrict__ y,
    u64 n)
{
    u64 i = first_of_four();
    Four<float> wide = read4(x, i, n);
    Four<bf16> rounded;
#pragma unroll
    for (u32 k = 0; k < 4; k++) rounded.at[k] = to_bf16(wide.at[k]);
    write4(y, i, n, rounded);
}

extern "C" __global__ void __launch_bounds__(256) widen(
    const bf16* __restrict__ x,
    float* __restrict__ y,
    u64 n)
{
    u64 i = first_of_four();
    Four<bf16> narrow = read4(x, i, n);
    Four<float> wide;
#pragma unroll
    for (u32 k = 0; k < 4; k++) wide.at[k] = to_float(narrow.at[k]);
    write4(y, i, n, wide);
}
