// Tiles of exact scores, which stay in registers.
//
// A block has 64 rows and goes through a range of classes, 128 at a time, 16 steps of depth at a time: 15 KiB in
// shared memory, the next part on its way while one is multiplied. A thread has 8 x 8 scores in registers and reads 16
// times 16 bytes of shared memory for 256 multiply-adds; rows of 20 floats put what a quarter of a warp reads into
// different banks, and lanes that differ in one bit only read the same, which halves the reads. The products decide: 64
// multiply-adds a score at a width of 64, against 3 operations for the comparison. Of every tile 128 rows of W and 64 of x
// come from the cache or from memory: 48 KiB for half a million multiply-adds.

#define ROWS 64
#define CLASSES 128
#define DEPTH 16
#define STRIDE 20
#define THREADS 128

struct Operands {
    const float* x;       // [.., d]
    const float* weight;  // [classes, d]
    const float* bias;    // [classes], may be absent
    const u32* rows;      // [n]: which rows of x are meant; may be absent
    u32 n, d;
};

struct Stage {
    float x[ROWS][STRIDE];
    float weight[CLASSES][STRIDE];
};

// A part of a row: four elements, of which those beyond the end are zeros. Rows that are not there are zeros, too.
__device__ __forceinline__ void copy_quad(float* to, const float* row, u32 at, u32 d, bool there) {
    if (d % 4 == 0) {
        bool inside = there && at < d;
        cp_async_16_zfill(to, inside ? row + at : row, inside ? 16 : 0);
        return;
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) to[i] = there && at + i < d ? row[at + i] : 0.0f;
}

__device__ __forceinline__ void copy_stage(Stage& stage, const Operands& o, u32 first_row, u32 first, u32 end, u32 depth) {
    u32 quad = threadIdx.x % (DEPTH / 4) * 4, at = threadIdx.x / (DEPTH / 4);
#pragma unroll
    for (u32 i = at; i < ROWS; i += THREADS / (DEPTH / 4)) {
        u32 row = first_row + i;
        bool there = row < o.n;
        u32 place = !there ? 0 : o.rows ? o.rows[row] : row;
        copy_quad(&stage.x[i][quad], o.x + (u64)place * o.d, depth + quad, o.d, there);
    }
#pragma unroll
    for (u32 i = at; i < CLASSES; i += THREADS / (DEPTH / 4)) {
        bool there = first + i < end;
        copy_quad(&stage.weight[i][quad], o.weight + (u64)(there ? first + i : 0) * o.d, depth + quad, o.d, there);
    }
}

// The rows and classes of a thread within a tile: row + 8 i and column + 16 j.
struct Place {
    u32 row, column;
};

__device__ __forceinline__ Place place_of_thread() {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Place place;
    place.row = (lane & 1) + (lane >> 4) * 2 + (warp & 1) * 4;
    place.column = (lane >> 1 & 7) + (warp >> 1) * 8;
    return place;
}

__device__ __forceinline__ void multiply(float (&sums)[8][8], const Stage& stage, const Place& place) {
#pragma unroll
    for (u32 depth = 0; depth < DEPTH; depth += 4) {
        float4 w[8];
#pragma unroll
        for (u32 j = 0; j < 8; j++) w[j] = *reinterpret_cast<const float4*>(&stage.weight[place.column + 16 * j][depth]);
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            float4 x = *reinterpret_cast<const float4*>(&stage.x[place.row + 8 * i][depth]);
#pragma unroll
            for (u32 j = 0; j < 8; j++) sums[i][j] = fmaf(x.x, w[j].x, sums[i][j]);
#pragma unroll
            for (u32 j = 0; j < 8; j++) sums[i][j] = fmaf(x.y, w[j].y, sums[i][j]);
#pragma unroll
            for (u32 j = 0; j < 8; j++) sums[i][j] = fmaf(x.z, w[j].z, sums[i][j]);
#pragma unroll
            for (u32 j = 0; j < 8; j++) sums[i][j] = fmaf(x.w, w[j].w, sums[i][j]);
        }
    }
}

// Adds a block of depth to what there is: the bias, for the first.
__device__ __forceinline__ void add_block(
    float (&totals)[8][8], float (&sums)[8][8], const float* bias, u32 first, u32 end, const Place& place, bool begins)
{
#pragma unroll
    for (u32 j = 0; j < 8; j++) {
        u32 id = first + place.column + 16 * j;
        float b = begins && bias && id < end ? bias[id] : 0.0f;
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            float onto = begins ? b : totals[i][j];
            totals[i][j] = begins && !bias ? sums[i][j] : sums[i][j] + onto;
            sums[i][j] = 0.0f;
        }
    }
}

// f(first class, scores) for every tile of the classes from `begin` to `end`. DEEP is for more than a block of depth, which
// takes a second register for every score.
template <bool DEEP, typename F>
__device__ __forceinline__ void for_each_tile(const Operands& o, Stage* stages, u32 first_row, u32 begin, u32 end, F f) {
    Place place = place_of_thread();
    u32 parts = (o.d + DEPTH - 1) / DEPTH, steps = (end - begin + CLASSES - 1) / CLASSES * parts;
    float sums[8][8] = {}, totals[8][8];
    copy_stage(stages[0], o, first_row, begin, end, 0);
    cp_async_commit();
    u32 first = begin, part = 0;
#pragma unroll 1
    for (u32 step = 0; step < steps; step++) {
        cp_async_wait<0>();
        __syncthreads();
        bool last = part + 1 == parts;
        u32 next_first = last ? first + CLASSES : first, next_part = last ? 0 : part + 1;
        if (step + 1 < steps) copy_stage(stages[(step + 1) % 2], o, first_row, next_first, end, next_part * DEPTH);
        cp_async_commit();
        multiply(sums, stages[step % 2], place);
        if (last || (DEEP && (part + 1) % (DEPTH_BLOCK / DEPTH) == 0)) {
            add_block(totals, sums, o.bias, first, end, place, !DEEP || part < DEPTH_BLOCK / DEPTH);
        }
        if (last) f(first, totals);
        first = next_first, part = next_part;
    }
}
