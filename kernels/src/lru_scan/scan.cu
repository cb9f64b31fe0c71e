// The kernels of scan.cuh.

extern "C" __global__ void __launch_bounds__(256, 3) scan_ends(
    const float* __restrict__ v_re,
    const float* __restrict__ v_im,
    const float* __restrict__ table,
    const uint4* __restrict__ work,
    const u32* __restrict__ starts,
    float* __restrict__ carries,
    u32 state,
    u32 slices)
{
    scan_to_ends<4>(Rows{v_re, v_im, table, work, starts, state, slices}, carries);
}

extern "C" __global__ void __launch_bounds__(256, 3) scan_ends_any(
    const float* __restrict__ v_re,
    const float* __restrict__ v_im,
    const float* __restrict__ table,
    const uint4* __restrict__ work,
    const u32* __restrict__ starts,
    float* __restrict__ carries,
    u32 state,
    u32 slices)
{
    scan_to_ends<1>(Rows{v_re, v_im, table, work, starts, state, slices}, carries);
}

extern "C" __global__ void __launch_bounds__(256, 3) scan(
    const float* __restrict__ v_re,
    const float* __restrict__ v_im,
    const float* __restrict__ table,
    const uint4* __restrict__ work,
    const u32* __restrict__ starts,
    const float* __restrict__ carries,
    float* __restrict__ h_re,
    float* __restrict__ h_im,
    u32 state,
    u32 slices)
{
    scan_items<4>(Rows{v_re, v_im, table, work, starts, state, slices}, carries, h_re, h_im);
}

extern "C" __global__ void __launch_bounds__(256, 3) scan_any(
    const float* __restrict__ v_re,
    const float* __restrict__ v_im,
    const float* __restrict__ table,
    const uint4* __restrict__ work,
    const u32* __restrict__ starts,
    const float* __restrict__ carries,
    float* __restrict__ h_re,
    float* __restrict__ h_im,
    u32 state,
    u32 slices)
{
    scan_items<1>(Rows{v_re, v_im, table, work, starts, state, slices}, carries, h_re, h_im);
}

extern "C" __global__ void __launch_bounds__(256, 3) scan_back_ends(
    const float* __restrict__ g_re,
    const float* __restrict__ g_im,
    const float* __restrict__ table,
    const uint4* __restrict__ work,
    const u32* __restrict__ starts,
    float* __restrict__ carries,
    u32 state,
    u32 slices)
{
    scan_back_to_ends<4>(Rows{g_re, g_im, table, work, starts, state, slices}, carries);
}

extern "C" __global__ void __launch_bounds__(256, 3) scan_back_ends_any(
    const float* __restrict__ g_re,
    const float* __restrict__ g_im,
    const float* __restrict__ table,
    const uint4* __restrict__ work,
    const u32* __restrict__ starts,
    float* __restrict__ carries,
    u32 state,
    u32 slices)
{
    scan_back_to_ends<1>(Rows{g_re, g_im, table, work, starts, state, slices}, carries);
}

extern "C" __global__ void __launch_bounds__(128, 2) scan_back(
    const float* __restrict__ v_re,
    const float* __restrict__ v_im,
    const float* __restrict__ h_re,
    const float* __restrict__ h_im,
    const float* __restrict__ table,
    const uint4* __restrict__ work,
    const u32* __restrict__ starts,
    const float* __restrict__ carries,
    float* __restrict__ g_re,
    float* __restrict__ g_im,
    float* __restrict__ parts,
    u32 state,
    u32 slices,
    u32 bands)
{
    const Rows v = {v_re, v_im, table, work, starts, state, slices};
    scan_items_back<4>(v, h_re, h_im, carries, g_re, g_im, parts, bands);
}

extern "C" __global__ void __launch_bounds__(128, 2) scan_back_any(
    const float* __restrict__ v_re,
    const float* __restrict__ v_im,
    const float* __restrict__ h_re,
    const float* __restrict__ h_im,
    const float* __restrict__ table,
    const uint4* __restrict__ work,
    const u32* __restrict__ starts,
    const float* __restrict__ carries,
    float* __restrict__ g_re,
    float* __restrict__ g_im,
    float* __restrict__ parts,
    u32 state,
    u32 slices,
    u32 bands)
{
    const Rows v = {v_re, v_im, table, work, starts, state, slices};
    scan_items_back<1>(v, h_re, h_im, carries, g_re, g_im, parts, bands);
}
