// Rows of a table, copied and added up, in pieces that a group of 8 to 32 lanes keeps in registers: up to 512 columns
// at a time, quad by quad as rows.cuh has them. Geometry depends on the number of ids and not on what they are, so
// that a recorded launch serves other ids.
//
// Bytes of memory: forward 8 an element, of bfloat16 4, and 4 an id. backward reads an element of dy once (4 bytes), reads and writes
// a row of the table once for every id that occurs, and for ids that occur more than 32 times writes and reads 4
// bytes an element of every 32 rows.

// In `lengths`, of a band whose id has several.
#define ONE_OF_SEVERAL 0x80000000u

// The columns from `first` on that this block works on, of a row of d.
__device__ __forceinline__ u32 piece(u32& first, u32 d) {
    first = blockIdx.y * blockDim.x * ROW_QUADS * 4;
    return min(d - first, blockDim.x * ROW_QUADS * 4);
}

template <bool ALIGNED, typename T>
__device__ __forceinline__ void gather(const T* table, const u32* ids, T* y, u32 n, u32 d) {
    u32 row = blockIdx.x * blockDim.y + threadIdx.y, first;
    if (row >= n) return;
    u32 columns = piece(first, d), quads = (columns + 3) / 4;
    Quad kept[ROW_QUADS];
    load_kept<ALIGNED>(kept, table + (u64)ids[row] * d + first, quads, columns);
    store_kept<ALIGNED>(y + (u64)row * d + first, kept, quads, columns);
}

extern "C" __global__ void __launch_bounds__(256) forward(
    const float* __restrict__ table,
    const u32* __restrict__ ids,
    float* __restrict__ y,
    u32 n,
    u32 d)
{
    if (d % 4 == 0) {
        gather<true>(table, ids, y, n, d);
    } else {
        gather<false>(table, ids, y, n, d);
    }
}

extern "C" __global__ void __launch_bounds__(256) forward_bf16(
    const bf16* __restrict__ table,
    const u32* __restrict__ ids,
    bf16* __restrict__ y,
    u32 n,
    u32 d)
{
    if (d % 4 == 0) {
        gather<true>(table, ids, y, n, d);
    } else {
        gather<false>(table, ids, y, n, d);
    }
}

// Rows of dy sorted by id are cut into bands of no more than 32 rows of one id. The group of a band's first row adds
// them in order: onto the table if that is all of the id, else to a row of `parts`.
template <bool ALIGNED>
__device__ __forceinline__ void add_band(
    const float* dy, const u32* order, const u32* lengths, const u32* places, float* d_table, float* parts, u32 n,
    u32 d)
{
    u32 begin = blockIdx.x * blockDim.y + threadIdx.y, first;
    u32 length = begin < n ? lengths[begin] : 0;
    if (length == 0) return;
    bool whole = !(length & ONE_OF_SEVERAL);
    length &= ~ONE_OF_SEVERAL;
    u32 columns = piece(first, d), quads = (columns + 3) / 4;
    float* to = (whole ? d_table : parts) + (u64)places[begin] * d + first;
    Quad sum[ROW_QUADS];
    load_kept<ALIGNED>(sum, to, whole ? quads : 0, columns);
#pragma unroll 2
    for (u32 i = 0; i < length; i++) {
        Quad row[ROW_QUADS];
        load_kept<ALIGNED>(row, dy + (u64)order[begin + i] * d + first, quads, columns);
#pragma unroll
        for (u32 j = 0; j < ROW_QUADS; j++) add_quad(sum[j], row[j]);
    }
    store_kept<ALIGNED>(to, sum, quads, columns);
}

extern "C" __global__ void __launch_bounds__(256) add_bands(
    const float* __restrict__ dy,
    const u32* __restrict__ order,
    const u32* __restrict__ lengths,
    const u32* __restrict__ places,
    float* __restrict__ d_table,
    float* __restrict__ parts,
    u32 n,
    u32 d)
{
    if (d % 4 == 0) {
        add_band<true>(dy, order, lengths, places, d_table, parts, n, d);
    } else {
        add_band<false>(dy, order, lengths, places, d_table, parts, n, d);
    }
}

// A block for every id of several bands. Its groups take turns with the bands, then the first adds what the groups
// have, in order.
template <bool ALIGNED>
__device__ __forceinline__ void add_parts_of(u32 begin, u32 bands, u32 id, const float* parts, float* d_table, u32 d) {
    SHARED_ARRAY(Quad, sums, [ROW_QUADS][256]);
    u32 first, columns = piece(first, d), quads = (columns + 3) / 4;
    u32 thread = threadIdx.y * blockDim.x + threadIdx.x;
    Quad sum[ROW_QUADS] = {};
#pragma unroll 2
    for (u32 i = threadIdx.y; i < bands; i += blockDim.y) {
        Quad row[ROW_QUADS];
        load_kept<ALIGNED>(row, parts + (u64)(begin + i) * d + first, quads, columns);
#pragma unroll
        for (u32 j = 0; j < ROW_QUADS; j++) add_quad(sum[j], row[j]);
    }
#pragma unroll
    for (u32 j = 0; j < ROW_QUADS; j++) sums[j][thread] = sum[j];
    __syncthreads();
    if (threadIdx.y > 0) return;
    float* to = d_table + (u64)id * d + first;
    load_kept<ALIGNED>(sum, to, quads, columns);
    for (u32 group = 0; group < min(bands, blockDim.y); group++) {
#pragma unroll
        for (u32 j = 0; j < ROW_QUADS; j++) add_quad(sum[j], sums[j][group * blockDim.x + thread]);
    }
    store_kept<ALIGNED>(to, sum, quads, columns);
}

extern "C" __global__ void __launch_bounds__(256) add_parts(
    const float* __restrict__ parts,
    const u32* __restrict__ begins,
    const u32* __restrict__ bands,  // 0 behind the last id
    const u32* __restrict__ ids,
    float* __restrict__ d_table,
    u32 d)
{
    u32 own = blockIdx.x;
    if (bands[own] == 0) return;
    if (d % 4 == 0) {
        add_parts_of<true>(begins[own], bands[own], ids[own], parts, d_table, d);
    } else {
        add_parts_of<false>(begins[own], bands[own], ids[own], parts, d_table, d);
    }
}
