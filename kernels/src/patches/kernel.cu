// Pictures to rows of patches: four neighbours of the rows a thread, written in accesses of 16 bytes where a picture has a
// multiple of four values; a thread divides to find the place of the first and goes on from there. 5 bytes a value for
// pictures of bytes, 8 for floats; bytes are read once from memory and from the cache for the other two channels. A byte is
// normalised where it is read, by the operations that the host makes its table with: a table in shared memory would have to
// be brought to every block, and lanes with different bytes would wait for each other.

// Where a value of a row lies in its picture, and how pictures fall into patches.
struct Place {
    u32 side, width, height;
    u32 x, y, channel, left, top;

    // Of a value, counted through the rows of a picture.
    __device__ __forceinline__ Place(u32 value, u32 down, u32 across, u32 side)
        : side(side), width(across * side), height(down * side) {
        u32 line = value / side, plane = line / side, patch = plane / 3;
        x = value - line * side;
        y = line - plane * side;
        channel = plane - patch * 3;
        top = patch / across * side;
        left = patch % across * side;
    }

    // Goes to the next value: the next pixel, line, channel or patch.
    __device__ __forceinline__ void advance() {
        if (++x < side) return;
        x = 0;
        if (++y < side) return;
        y = 0;
        if (++channel < 3) return;
        channel = 0;
        left += side;
        if (left < width) return;
        left = 0;
        top += side;
    }

    __device__ __forceinline__ u32 interleaved() const { return ((top + y) * width + left + x) * 3 + channel; }
    __device__ __forceinline__ u32 planar() const { return (channel * height + top + y) * width + left + x; }
};

// Writes a thread's four values, each what `value_at` finds at its place; `blocks` are those of a picture.
template <typename T, typename ValueAt>
__device__ __forceinline__ void fill(
    const T* pictures, float* rows, u32 blocks, u32 down, u32 across, u32 side, ValueAt value_at) {
    u32 each = 3 * down * across * side * side, picture = blockIdx.x / blocks;
    u32 i = 4 * ((blockIdx.x - picture * blocks) * blockDim.x + threadIdx.x);
    if (i >= each) return;
    pictures += (u64)picture * each;
    rows += (u64)picture * each;
    Place place(i, down, across, side);
    Four<float> values = {};
#pragma unroll
    for (u32 k = 0; k < 4; k++) {
        if (i + k < each) values.at[k] = value_at(pictures, place);
        place.advance();
    }
    if (each % 4 == 0) {
        write4(rows, i, each, values);
    } else {
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            if (i + k < each) rows[i + k] = values.at[k];
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) normalised(
    const u8* __restrict__ pictures,
    float* __restrict__ rows,
    u32 blocks,
    u32 down,
    u32 across,
    u32 side,
    float rescale,
    float mean_red,
    float mean_green,
    float mean_blue,
    float std_red,
    float std_green,
    float std_blue)
{
    fill(pictures, rows, blocks, down, across, side, [=](const u8* picture, const Place& place) {
        float mean = place.channel == 0 ? mean_red : place.channel == 1 ? mean_green : mean_blue;
        float std = place.channel == 0 ? std_red : place.channel == 1 ? std_green : std_blue;
        return ((float)picture[place.interleaved()] * rescale - mean) / std;
    });
}

extern "C" __global__ void __launch_bounds__(256) cut(
    const float* __restrict__ pictures,
    float* __restrict__ rows,
    u32 blocks,
    u32 down,
    u32 across,
    u32 side)
{
    fill(pictures, rows, blocks, down, across, side, [](const float* picture, const Place& place) {
        return picture[place.planar()];
    });
}
