// What the kernels of 32-bit floats share that compute gradients. Weights are computed again from the logarithms of
// their denominators. One kernel sums over queries, for the keys and values; another over keys, for the queries: that
// is two of seven products more than with atomic additions, whose order and so whose bits would be others every time.
//
// Threads: blocks of 16 x 8, with a tile of those rows in the lines whose gradients they are, and tiles of the others
// in the columns. Lines are 64, 32 or 16 rows by the width of the heads, columns 32.
//
// Shared memory: two tiles of either side and one of weights, 56 KiB for heads of 64 and 68 KiB for those of 128, which
// leave room for three blocks on an H200 and two on an A100; at most 98 KiB.
//
// Traffic: a block reads its own tiles once and those of the other side once for every query head that it serves, from
// the L2 cache but for the first: 16 bytes a thread, rows as a whole.
//
// Sums go over heads, sequences, tiles and rows in their order. So the bits of the gradients of a sequence depend on
// that sequence and the prefix alone; those of the prefix are summed over parts of the sequences, and the parts in
// order.

#define THREADS (LINES * COLUMNS)

// Rows of a thread in lines, and in columns.
template <u32 WIDTH>
struct Extent {
    static constexpr u32 R = WIDTH > 128 ? 1 : WIDTH > 64 ? 2 : 4;
    static constexpr u32 C = 4;
    static constexpr u32 ROWS = LINES * R;
    static constexpr u32 OTHERS = COLUMNS * C;
};

// Weights of scores, and in `pushes` the gradient of the scores from that of the weights.
__device__ __forceinline__ void weigh(float& score, float& push, bool visible, float log_sum, float pull, float scale) {
    float weight = visible ? expf(score * scale - log_sum) : 0.0f;
    push = visible ? weight * (push - pull) * scale : 0.0f;
    score = weight;
}
