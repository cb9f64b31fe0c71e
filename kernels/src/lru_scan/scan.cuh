// The recurrence alone, forward and backward: h_t = λ h_{t-1} + γ v_t.
//
// A block takes an item of work and a slice of the channels, as many rows at a time as it has threads. A thread has eight
// rows of four neighbouring channels, which it copies to a place of its own in shared memory, 16 bytes at a time: all of them
// are under way before the first is waited for, no register waits for them, and a row of a block is a line of 128 bytes.
// It runs over its rows from nothing; the ends are chained by shuffles within a warp, which has four times eight rows, and
// through shared memory over the warps; then it runs over its rows again from where they truly begin.
// Kernels with `_any` are for states whose rows are no multiples of 16 bytes: there a thread has one channel.
//
// Bytes of a row and channel: 8 read and 8 written; back 24 read and 8 written. Of sequences that are longer than a chunk
// every row is read once more, for the states at the ends of chunks. About 60 instructions for 64 bytes: bound by memory.
// Three blocks of `scan` fit a multiprocessor of an H200 and have 192 KiB under way, two of `scan_back` as many; one of
// either fits an RTX 4090.

#define ROWS 8
#define LANES 8
#define MOST_WARPS 8

// Neighbouring slice.
template <u32 W>
struct Complex {
    float re[W], im[W];
};

// What is not there reads as zero.
template <u32 W>
__device__ __forceinline__ void load(float (&to)[W], const float* from, bool there) {
    if constexpr (W == 4) {
        float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (there) v = *reinterpret_cast<const float4*>(from);
        to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    } else {
        to[0] = there ? *from : 0.0f;
    }
}

template <u32 W>
__device__ __forceinline__ void store(float* to, bool there, const float (&from)[W]) {
    if constexpr (W == 4) {
        if (there) *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
    } else {
        if (there) *to = from[0];
    }
}

// The channels of a thread. Where time runs back, λ is conjugate.
template <u32 W, bool BACK>
struct Slice {
    const float* table;
    u32 channel, state;

    __device__ __forceinline__ Slice(const float* table, u32 state, u32 slices)
        : table(table), channel((blockIdx.x % slices * LANES + threadIdx.x % LANES) * W), state(state) {}

    __device__ __forceinline__ u64 place(u64 row) const { return row * state + channel; }

    __device__ __forceinline__ bool inside() const { return channel < state; }

    __device__ __forceinline__ Complex<W> at(const float* re, const float* im, u64 row, bool there) const {
        Complex<W> v;
        load<W>(v.re, re + place(row), there && inside());
        load<W>(v.im, im + place(row), there && inside());
        return v;
    }

    __device__ __forceinline__ void put(float* re, float* im, u64 row, bool there, const Complex<W>& v) const {
        store<W>(re + place(row), there && inside(), v.re);
        store<W>(im + place(row), there && inside(), v.im);
    }

    __device__ __forceinline__ Complex<W> power(u32 row) const {
        Complex<W> v = at(table, table + state, row, true);
#pragma unroll
        for (u32 k = 0; k < W; k++) v.im[k] = BACK ? -v.im[k] : v.im[k];
        return v;
    }

    __device__ __forceinline__ void gamma(float (&to)[W]) const { load<W>(to, table + place(GAMMA), inside()); }
};

// a b + c
template <u32 W>
__device__ __forceinline__ Complex<W> multiply_add(const Complex<W>& a, const Complex<W>& b, const Complex<W>& c) {
    Complex<W> v;
#pragma unroll
    for (u32 k = 0; k < W; k++) {
        v.re[k] = fmaf(a.re[k], b.re[k], fmaf(-a.im[k], b.im[k], c.re[k]));
        v.im[k] = fmaf(a.re[k], b.im[k], fmaf(a.im[k], b.re[k], c.im[k]));
    }
    return v;
}

// The state of a row from that of the row before, or from nothing where the recurrence begins anew.
template <u32 W>
__device__ __forceinline__ Complex<W> next(
    const Complex<W>& lambda, const Complex<W>& state, const Complex<W>& input, bool anew) {
    Complex<W> v = multiply_add(lambda, state, input);
#pragma unroll
    for (u32 k = 0; k < W; k++) {
        v.re[k] = anew ? input.re[k] : v.re[k];
        v.im[k] = anew ? input.im[k] : v.im[k];
    }
    return v;
}

// Adds to `end` that of the thread so many lanes before, times a power of λ, where it joins.
template <u32 W>
__device__ __forceinline__ void chain(Complex<W>& end, const Complex<W>& power, u32 lanes, bool joins) {
#pragma unroll
    for (u32 k = 0; k < W; k++) {
        float re = __shfl_up_sync(0xffffffffu, end.re[k], lanes), im = __shfl_up_sync(0xffffffffu, end.im[k], lanes);
        if (joins) {
            end.re[k] = fmaf(power.re[k], re, fmaf(-power.im[k], im, end.re[k]));
            end.im[k] = fmaf(power.re[k], im, fmaf(power.im[k], re, end.im[k]));
        }
    }
}

// The threads that have the last rows of a block, in the order of time: they write what is carried on.
__device__ __forceinline__ bool last_rows() {
    return threadIdx.x >= blockDim.x - LANES;
}

// The places of a thread in shared memory: one for each of its rows, of so many tensors.
template <u32 W>
struct Places {
    float* own;

    __device__ __forceinline__ explicit Places(float* memory) : own(memory + threadIdx.x * W) {}

    __device__ __forceinline__ float* of(u32 part, u32 i) const { return own + (part * ROWS + i) * blockDim.x * W; }

    __device__ __forceinline__ void fetch(u32 part, u32 i, const float* from, bool there) const {
        if constexpr (W == 4) {
            cp_async_16_zfill(of(part, i), from, there ? 16 : 0);
        } else {
            *of(part, i) = there ? *from : 0.0f;
        }
    }

    // A row of a complex tensor, whose real parts are the `part`-th tensor.
    template <bool BACK>
    __device__ __forceinline__ void fetch(
        u32 part, u32 i, const float* re, const float* im, u64 row, bool there, const Slice<W, BACK>& slice) const {
        there = there && slice.inside();
        u64 place = there ? slice.place(row) : 0;
        fetch(part, i, re + place, there);
        fetch(part + 1, i, im + place, there);
    }

    __device__ __forceinline__ Complex<W> at(u32 part, u32 i) const {
        Complex<W> v;
        load<W>(v.re, of(part, i), true);
        load<W>(v.im, of(part + 1, i), true);
        return v;
    }
};

// Finds the states of a block's rows, in the order of time: thread threadIdx.x / 8 has eight of them, with inputs input(i),
// and gets their states by put(i, state). Bit i of `begins` says that the recurrence begins anew at the thread's row i.
// `carry`, which is shared, is the state before the first row and becomes that of the last.
template <u32 W, bool BACK, typename Input, typename Put>
__device__ __forceinline__ void scan_step(
    Input input, u32 begins, const Slice<W, BACK>& slice, Complex<W> (&carry)[LANES], Put put) {
    SHARED_ARRAY(Complex<W>, ends, [MOST_WARPS][LANES]);
    SHARED_ARRAY(u32, open, [MOST_WARPS]);
    u32 warp = threadIdx.x / 32, group = threadIdx.x % 32 / LANES, lane = threadIdx.x % LANES;
    const Complex<W> lambda = slice.power(LAMBDA);
    Complex<W> end = {};
#pragma unroll 4
    for (u32 i = 0; i < ROWS; i++) end = next(lambda, end, input(i), begins >> i & 1);

    // Over the rows of the warp. Bit 8 g of `whole`: nothing begins anew in the rows of group g.
    u32 whole = __ballot_sync(0xffffffffu, begins == 0) & 0x01010101u;
    bool joins = whole >> 8 * group & 1, joins_two = group > 1 && joins && whole >> 8 * (group - 1) & 1;
    chain(end, slice.power(POWER_8), LANES, group > 0 && joins);
    chain(end, slice.power(POWER_16), 2 * LANES, joins_two);
    if (group == 3) ends[warp][lane] = end;
    if (threadIdx.x % 32 == 0) open[warp] = whole == 0x01010101u;
#pragma unroll
    for (u32 k = 0; k < W; k++) {
        end.re[k] = __shfl_up_sync(0xffffffffu, end.re[k], LANES);
        end.im[k] = __shfl_up_sync(0xffffffffu, end.im[k], LANES);
    }
    __syncthreads();

    // Over the warps before, and the groups before.
    Complex<W> state = carry[lane];
    const Complex<W> power_32 = slice.power(POWER_32);
    for (u32 w = 0; w < warp; w++) {
        state = open[w] ? multiply_add(power_32, state, ends[w][lane]) : ends[w][lane];
    }
    if (group > 0) {
        u32 before = 0x00010101u >> 8 * (3 - group);
        bool through = (whole & before) == before;
        state = through ? multiply_add(slice.power(POWER_8 + 2 * (group - 1)), state, end) : end;
    }
#pragma unroll 4
    for (u32 i = 0; i < ROWS; i++) {
        state = next(lambda, state, input(i), begins >> i & 1);
        put(i, state);
    }
    __syncthreads();
    if (last_rows()) carry[lane] = state;
}

// Sets what is carried on to what is kept for an item, [slots, 2, state], or to nothing.
template <u32 W, bool BACK>
__device__ __forceinline__ void begin(
    Complex<W> (&carry)[LANES], bool goes_on, const float* carries, u32 slot, const Slice<W, BACK>& slice) {
    if (!last_rows()) return;
    carry[threadIdx.x % LANES] = slice.at(carries, carries + slice.state, 2ull * slot, goes_on);
}

template <u32 W, bool BACK>
__device__ __forceinline__ void keep(
    const Complex<W> (&carry)[LANES], float* carries, u32 slot, const Slice<W, BACK>& slice) {
    if (last_rows()) slice.put(carries, carries + slice.state, 2ull * slot, true, carry[threadIdx.x % LANES]);
}

// What a kernel reads, [n, state] as real and imaginary part, and how.
struct Rows {
    const float *re, *im, *table;
    const uint4* work;
    const u32* starts;
    u32 state, slices;
};

// Goes over the rows of an item; put(row, there, state) gets the states of a thread's rows.
template <u32 W, typename Put>
__device__ __forceinline__ void scan_item(
    const Rows& v, const Item& item, const Slice<W, false>& slice, Complex<W> (&carry)[LANES], Put put) {
    SHARED_MEMORY(float, memory);
    const Places<W> places(memory);
    u32 end = item.first + item.rows;
    float gamma[W];
    slice.gamma(gamma);
    for (u32 base = item.first; base < end; base += blockDim.x) {
        u32 row = base + threadIdx.x / LANES * ROWS;
#pragma unroll
        for (u32 i = 0; i < ROWS; i++) places.fetch(0, i, v.re, v.im, row + i, row + i < end, slice);
        cp_async_commit();
        u32 begins = starts_at(v.starts, row) & 0xff;
        cp_async_wait<0>();
        auto input = [&](u32 i) {
            Complex<W> u = places.at(0, i);
#pragma unroll
            for (u32 k = 0; k < W; k++) u.re[k] *= gamma[k], u.im[k] *= gamma[k];
            return u;
        };
        scan_step(input, begins, slice, carry, [&](u32 i, const Complex<W>& h) { put(row + i, row + i < end, h); });
    }
}

// The states at the ends of chunks that others follow, from nothing at their begins, where the next chunk's are kept.
template <u32 W>
__device__ __forceinline__ void scan_to_ends(const Rows& v, float* carries) {
    u32 number = blockIdx.x / v.slices;
    if (number >= count_of(v.work)) return;
    const Item item = item_at(v.work, number);
    if (item.behind == 0) return;
    const Slice<W, false> slice(v.table, v.state, v.slices);
    SHARED_ARRAY(Complex<W>, carry, [LANES]);
    begin(carry, false, carries, 0, slice);
    scan_item(v, item, slice, carry, [](u32, bool, const Complex<W>&) {});
    keep(carry, carries, item_at(v.work, number + 1).slot, slice);
}

template <u32 W>
__device__ __forceinline__ void scan_items(const Rows& v, const float* carries, float* h_re, float* h_im) {
    u32 number = blockIdx.x / v.slices;
    if (number >= count_of(v.work)) return;
    const Item item = item_at(v.work, number);
    const Slice<W, false> slice(v.table, v.state, v.slices);
    SHARED_ARRAY(Complex<W>, carry, [LANES]);
    begin(carry, item.goes_on, carries, item.slot, slice);
    scan_item(v, item, slice, carry, [&](u32 row, bool there, const Complex<W>& h) {
        slice.put(h_re, h_im, row, there, h);
    });
}

// Goes back over the rows of an item. A thread's row i is the `row` of fetch(row, end) minus i; put(i, row, there, has_past,
// gradient) gets the gradients of the states, where has_past says that the row is not the first of its sequence.
template <u32 W, typename Fetch, typename Put>
__device__ __forceinline__ void scan_item_back(
    const Rows& g, const Item& item, const Slice<W, true>& slice, const Places<W>& places, Complex<W> (&carry)[LANES],
    Fetch fetch, Put put) {
    u32 end = item.first + item.rows;
    for (u32 steps = (item.rows + blockDim.x - 1) / blockDim.x; steps > 0; steps--) {
        u32 row = item.first + steps * blockDim.x - 1 - threadIdx.x / LANES * ROWS;
#pragma unroll
        for (u32 i = 0; i < ROWS; i++) places.fetch(0, i, g.re, g.im, row - i, row - i < end, slice);
        // Bit 7 - i: a sequence begins at row i, and bit 8 - i, behind it: there time begins anew.
        u32 marks = starts_at(g.starts, row - (ROWS - 1)), begins = 0;
#pragma unroll
        for (u32 i = 0; i < ROWS; i++) begins |= (marks >> (ROWS - i) & 1) << i;
        auto has_past = [&](u32 i) { return row - i < end && !(marks >> (ROWS - 1 - i) & 1); };
#pragma unroll
        for (u32 i = 0; i < ROWS; i++) fetch(i, row - i, row - i < end, has_past(i));
        cp_async_commit();
        cp_async_wait<0>();
        scan_step([&](u32 i) { return places.at(0, i); }, begins, slice, carry, [&](u32 i, const Complex<W>& gradient) {
            put(i, row - i, row - i < end, has_past(i), gradient);
        });
    }
}

// The gradients that reach the first rows of chunks from their own, where those of the chunk before are kept.
template <u32 W>
__device__ __forceinline__ void scan_back_to_ends(const Rows& g, float* carries) {
    SHARED_MEMORY(float, memory);
    u32 number = blockIdx.x / g.slices;
    if (number >= count_of(g.work)) return;
    const Item item = item_at(g.work, number);
    if (!item.goes_on) return;
    const Slice<W, true> slice(g.table, g.state, g.slices);
    SHARED_ARRAY(Complex<W>, carry, [LANES]);
    begin(carry, false, carries, 0, slice);
    auto nothing = [](u32, u32, bool, bool) {};
    scan_item_back(g, item, slice, Places<W>(memory), carry, nothing, [](u32, u32, bool, bool, const Complex<W>&) {});
    keep(carry, carries, item_at(g.work, number - 1).slot, slice);
}

// Per channel, sums over rows: Re and Im of g conj(h of the row before), and Re(conj(v) g).
template <u32 W>
struct SliceSums {
    float v[3][W];

    __device__ __forceinline__ void add(
        const Complex<W>& g, const Complex<W>& input, const Complex<W>& past, bool has_past) {
#pragma unroll
        for (u32 k = 0; k < W; k++) {
            if (has_past) {
                v[0][k] += fmaf(g.re[k], past.re[k], g.im[k] * past.im[k]);
                v[1][k] += fmaf(g.im[k], past.re[k], -(g.re[k] * past.im[k]));
            }
            v[2][k] += fmaf(input.re[k], g.re[k], input.im[k] * g.im[k]);
        }
    }

    // Those of all threads of the block, in a fixed order: parts is [bands, 3, state]. The shared memory is free for it.
    __device__ __forceinline__ void put(float* memory, float* parts, u32 band, const Slice<W, true>& slice) {
        SliceSums<W>(*of_warps)[LANES] = reinterpret_cast<SliceSums<W>(*)[LANES]>(memory);
        u32 warp = threadIdx.x / 32, lane = threadIdx.x % LANES;
#pragma unroll
        for (u32 j = 0; j < 3; j++) {
#pragma unroll
            for (u32 k = 0; k < W; k++) {
                v[j][k] += __shfl_xor_sync(0xffffffffu, v[j][k], LANES);
                v[j][k] += __shfl_xor_sync(0xffffffffu, v[j][k], 2 * LANES);
            }
        }
        __syncthreads();
        if (threadIdx.x % 32 < LANES) of_warps[warp][lane] = *this;
        __syncthreads();
        if (threadIdx.x >= LANES) return;
        for (u32 w = 1; w < blockDim.x / 32; w++) {
#pragma unroll
            for (u32 j = 0; j < 3; j++) {
#pragma unroll
                for (u32 k = 0; k < W; k++) v[j][k] += of_warps[w][lane].v[j][k];
            }
        }
#pragma unroll
        for (u32 j = 0; j < 3; j++) {
            store<W>(parts + slice.place(3ull * band + j), slice.inside(), v[j]);
        }
    }
};

// In g comes the gradient that reaches the states from the output, and goes that of v; a block takes every bands-th item.
template <u32 W>
__device__ __forceinline__ void scan_items_back(
    const Rows& v, const float* h_re, const float* h_im, const float* carries, float* g_re, float* g_im, float* parts,
    u32 bands) {
    SHARED_MEMORY(float, memory);
    u32 band = blockIdx.x / v.slices, count = count_of(v.work);
    if (band >= count) return;
    const Slice<W, true> slice(v.table, v.state, v.slices);
    const Places<W> places(memory);
    SHARED_ARRAY(Complex<W>, carry, [LANES]);
    SliceSums<W> sums = {};
    float gamma[W];
    slice.gamma(gamma);
    const Rows g = {g_re, g_im, v.table, v.work, v.starts, v.state, v.slices};
    auto fetch = [&](u32 i, u32 row, bool there, bool has_past) {
        places.fetch(2, i, v.re, v.im, row, there, slice);
        places.fetch(4, i, h_re, h_im, (u64)row - 1, has_past, slice);
    };
    auto put = [&](u32 i, u32 row, bool there, bool has_past, Complex<W> gradient) {
        if (there) sums.add(gradient, places.at(2, i), places.at(4, i), has_past);
#pragma unroll
        for (u32 k = 0; k < W; k++) gradient.re[k] *= gamma[k], gradient.im[k] *= gamma[k];
        slice.put(g_re, g_im, row, there, gradient);
    };
    for (u32 number = band; number < count; number += bands) {
        const Item item = item_at(v.work, number);
        begin(carry, item.behind > 0, carries, item.slot, slice);
        scan_item_back(g, item, slice, places, carry, fetch, put);
    }
    sums.put(memory, parts, band, slice);
}
