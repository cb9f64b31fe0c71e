// What the kernels of attention share: which sequence, head and tile a block works on, and where rows lie.

// A sequence, which the list of work holds once for each of its tiles.
struct Sequence {
    u32 first;  // tile of the list
    u32 tiles;
    u32 queries_begin;
    u32 queries;
    u32 keys_begin;
    u32 keys;
};

// What a block works on.
struct Place {
    Sequence sequence;
    u32 head;
    u32 tile;
};

// The blocks of a sequence take head after head, and of a head tile after tile: those that run at a time read the same
// keys and values, which then come from the cache. Of the tiles the last is the first, since it sees the most keys.
__device__ __forceinline__ Place place_of_block(const Sequence* work, u32 heads) {
    Place place;
    place.sequence = work[blockIdx.x / heads];
    u32 at = blockIdx.x - place.sequence.first * heads;
    place.head = at / place.sequence.tiles;
    place.tile = place.sequence.tiles - 1 - at % place.sequence.tiles;
    return place;
}

// Where the rows of one head lie in arrays of all heads, counted in elements: those of a prefix, then those of a
// sequence. Keys and values lie alike.
struct Rows {
    u32 prefix;    // rows of it
    u32 rows;      // of both
    u32 features;  // of the head
    u32 stride;    // of all heads
    u32 prefix_begin;
    u64 own_begin;  // less the rows of the prefix
};

__device__ __forceinline__ Rows rows_of(u32 prefix, u32 begin, u32 rows, u32 head, u32 heads, u32 features) {
    u32 stride = heads * features;
    u64 own_begin = (u64)begin * stride + head * features - (u64)prefix * stride;
    return Rows{prefix, prefix + rows, features, stride, head * features, own_begin};
}

// Where 16 bytes of a row lie in a tile, counted in elements. The places are turned from row to row, so that eight
// neighbouring rows have the same bytes in different banks: neither ldmatrix nor loads of 16 bytes meet a conflict.
template <u32 WIDTH, typename T>
__device__ __forceinline__ u32 turned(u32 row, u32 piece) {
    constexpr u32 PIECE = 16 / sizeof(T), TURNS = WIDTH / PIECE % 8 == 0 ? 8 : 4;
    static_assert(WIDTH / PIECE % 4 == 0, "pieces are turned in groups of eight or four");
    return row * WIDTH + (piece ^ row / (8 / TURNS) % TURNS) * PIECE;
}

// The place an even number of pieces behind that of piece 0 or 1, in an instruction.
template <u32 WIDTH, typename T>
__device__ __forceinline__ u32 further(u32 place, u32 pieces) {
    constexpr u32 PIECE = 16 / sizeof(T), TURNS = WIDTH / PIECE % 8 == 0 ? 8 : 4;
    return (place ^ pieces % TURNS * PIECE) + pieces / TURNS * TURNS * PIECE;
}

// Copies rows from `first` on to shared memory, as tiles of WIDTH features in pieces of 16 bytes of which `turned` says
// the place; zeros are where there are no rows or features. The copies are begun, to be waited for by cp_async_wait,
// unless the rows are not aligned to 16 bytes.
template <u32 ROWS, u32 WIDTH, u32 THREADS, typename T>
__device__ __forceinline__ void load_tile(T* tile, const T* prefix, const T* own, const Rows& rows, u32 first) {
    constexpr u32 PIECE = 16 / sizeof(T), PIECES = WIDTH / PIECE;
    // Neighbouring threads take the pieces of a row; where those are no power of two some idle.
    constexpr u32 LANES = PIECES > 32 ? 64 : PIECES > 16 ? 32 : PIECES > 8 ? 16 : PIECES > 4 ? 8 : 4;
    constexpr u32 STEP = THREADS / LANES;
    static_assert(ROWS % STEP == 0 && PIECES <= LANES, "all threads copy as many rows");
    u32 thread = opaque(threadIdx.x), row = thread / LANES, piece = thread % LANES, feature = piece * PIECE;
    if (piece >= PIECES) return;
    u32 there = feature < rows.features ? rows.rows - first : 0;
    bool aligned = rows.features % PIECE == 0;
    if (aligned && first >= rows.prefix) {
        u64 step = (u64)rows.stride * STEP;
        const T* from = own + rows.own_begin + (u64)(first + row) * rows.stride + feature;
#pragma unroll
        for (u32 i = 0; i < ROWS; i += STEP) {
            cp_async_16_zfill(tile + turned<WIDTH, T>(row + i, piece), from, row + i < there ? 16 : 0);
            from += step;
        }
        return;
    }
#pragma unroll 1
    for (; row < ROWS; row += STEP) {
        bool shared = first + row < rows.prefix;
        const T* from = shared ? prefix + rows.prefix_begin : own + rows.own_begin;
        from += (u64)(first + row) * rows.stride + feature;
        T* to = tile + turned<WIDTH, T>(row, piece);
        if (aligned) {
            cp_async_16_zfill(to, from, row < there ? 16 : 0);
        } else {
#pragma unroll 1
            for (u32 k = 0; k < PIECE; k++) to[k] = row < there && feature + k < rows.features ? from[k] : T{};
        }
    }
}
