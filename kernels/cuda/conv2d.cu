/*
 * conv2d.cu - convolutions of the picture codec as products in f32: pixels around each cell times packed weights.
 *
 * A cell is an output pixel (for UP an input pixel, which becomes 2x2: one phase of the weights for each place). A
 * block makes CELLS cells times COLUMNS output channels; a thread 8 times 4 of them. DEPTH products at a time, the
 * pixels (normalised as they are read, zero outside the picture) and the weights of the block lie in shared memory.
 * Every number is one chain over (row, column, channel) of the kernel, whatever lies beside it in the block.
 */
#include "kernels/cuda/cuda.cuh"

enum { DEPTH = 16, QUAD = 4, CELLS_A_THREAD = 8, COLUMNS_A_THREAD = 4, PANEL = 32 };

struct arguments {
    float *y;
    const float *x, *residual, *scale, *shift; /* scale NULL: x as it is */
    const float *bias, *panels;                /* panels: of phase 0 */
    size_t phase_floats;
    int n_in, n_out, n_columns, taps, depth;   /* depth: taps * taps * n_in */
    int width, height;                         /* of x */
    int cells_across, n_cells;
    int stride, border, zoom;
    int swish;
};

template <int CELLS, int COLUMNS> struct tile {
    enum {
        THREADS = CELLS * COLUMNS / (CELLS_A_THREAD * COLUMNS_A_THREAD),
        QUADS_A_THREAD = CELLS * DEPTH / QUAD / THREADS,
        WEIGHTS_A_THREAD = COLUMNS * DEPTH / QUAD / THREADS,
        CELLS_STRIDE = CELLS + QUAD, /* rows begin at other banks, aligned to 16 bytes */
        SHARED_FLOATS = DEPTH * (CELLS_STRIDE + COLUMNS)
    };
};

static __device__ __forceinline__ float normalised(const struct arguments &a, float x, int channel)
{
    if (!a.scale)
        return x;
    float v = x * a.scale[channel] + a.shift[channel];
    return a.swish ? v / (1.0f + expf(-v)) : v;
}

/* Number k of the pixels around the cell whose first pixel is (top, left). */
static __device__ __forceinline__ float read_pixel(const struct arguments &a, int top, int left, int k)
{
    if (k >= a.depth)
        return 0;
    const int tap = k / a.n_in, channel = k - tap * a.n_in;
    const int row = top + tap / a.taps, column = left + tap % a.taps;
    if (row < 0 || row >= a.height || column < 0 || column >= a.width)
        return 0;
    return normalised(a, a.x[((size_t)row * (size_t)a.width + (size_t)column) * (size_t)a.n_in + (size_t)channel],
                      channel);
}

/* Numbers k to k + 3 of them, k a multiple of 4. */
static __device__ __forceinline__ void read_quad(float out[QUAD], const struct arguments &a, int top, int left, int k)
{
    if (a.n_in % QUAD) {
#pragma unroll
        for (int i = 0; i < QUAD; i++)
            out[i] = read_pixel(a, top, left, k + i);
        return;
    }
    const int tap = k / a.n_in, channel = k - tap * a.n_in;
    const int row = top + tap / a.taps, column = left + tap % a.taps;
    out[0] = out[1] = out[2] = out[3] = 0;
    if (k >= a.depth || row < 0 || row >= a.height || column < 0 || column >= a.width)
        return;
    const float4 x = *(const float4 *)(a.x + ((size_t)row * (size_t)a.width + (size_t)column) * (size_t)a.n_in +
                                       (size_t)channel);
    out[0] = normalised(a, x.x, channel);
    out[1] = normalised(a, x.y, channel + 1);
    out[2] = normalised(a, x.z, channel + 2);
    out[3] = normalised(a, x.w, channel + 3);
}

/* Weights k of output channels column to column + 3; beyond the last ones zeros. */
static __device__ __forceinline__ float4 read_weights(const struct arguments &a, const float *panels, int k,
                                                      int column)
{
    float4 zero = {0, 0, 0, 0};
    if (k >= a.depth || column >= a.n_columns)
        return zero;
    const int first = column / PANEL * PANEL;
    const int wide = a.n_columns - first < PANEL ? a.n_columns - first : PANEL;
    return *(const float4 *)(panels + (size_t)a.depth * (size_t)first + (size_t)k * (size_t)wide +
                             (size_t)(column - first));
}

/* Numbers [k, k + DEPTH) of the block's cells and weights into shared memory. */
template <int CELLS, int COLUMNS>
static __device__ __forceinline__ void fetch(const struct arguments &a, const float *panels, float *pixels,
                                             float *weights, int first_cell, int first_column, int k)
{
    typedef tile<CELLS, COLUMNS> T;
    const int phase_row = (int)blockIdx.z / 2 - a.border, phase_column = (int)blockIdx.z % 2 - a.border;
#pragma unroll
    for (int i = 0; i < T::QUADS_A_THREAD; i++) {
        const int at = (int)threadIdx.x + i * T::THREADS, quad = at % (DEPTH / QUAD), cell = at / (DEPTH / QUAD);
        const int number = first_cell + cell;
        const int row = number / a.cells_across, column = number - row * a.cells_across;
        float x[QUAD] = {0, 0, 0, 0};
        if (number < a.n_cells)
            read_quad(x, a, row * a.stride + phase_row, column * a.stride + phase_column, k + quad * QUAD);
#pragma unroll
        for (int j = 0; j < QUAD; j++)
            pixels[(quad * QUAD + j) * T::CELLS_STRIDE + cell] = x[j];
    }
#pragma unroll
    for (int i = 0; i < T::WEIGHTS_A_THREAD; i++) {
        const int at = (int)threadIdx.x + i * T::THREADS, quad = at % (COLUMNS / QUAD), depth = at / (COLUMNS / QUAD);
        *(float4 *)(weights + depth * COLUMNS + quad * QUAD) =
            read_weights(a, panels, k + depth, first_column + quad * QUAD);
    }
}

/* sums += DEPTH products; pixels and weights: from the thread's own cells and columns on. */
template <int CELLS, int COLUMNS>
static __device__ __forceinline__ void multiply(float sums[CELLS_A_THREAD][COLUMNS_A_THREAD], const float *pixels,
                                                const float *weights)
{
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
        const float4 low = *(const float4 *)(pixels + k * tile<CELLS, COLUMNS>::CELLS_STRIDE);
        const float4 high = *(const float4 *)(pixels + k * tile<CELLS, COLUMNS>::CELLS_STRIDE + QUAD);
        const float4 w = *(const float4 *)(weights + k * COLUMNS);
        const float x[CELLS_A_THREAD] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
        for (int i = 0; i < CELLS_A_THREAD; i++) {
            sums[i][0] = multiply_add(x[i], w.x, sums[i][0]);
            sums[i][1] = multiply_add(x[i], w.y, sums[i][1]);
            sums[i][2] = multiply_add(x[i], w.z, sums[i][2]);
            sums[i][3] = multiply_add(x[i], w.w, sums[i][3]);
        }
    }
}

/* y = sums + bias (+ residual). */
static __device__ __forceinline__ void write(const struct arguments &a,
                                             float sums[CELLS_A_THREAD][COLUMNS_A_THREAD], int first_cell,
                                             int first_column)
{
    const int phase = (int)blockIdx.z;
    for (int i = 0; i < CELLS_A_THREAD && first_cell + i < a.n_cells; i++) {
        const int row = (first_cell + i) / a.cells_across, column = first_cell + i - row * a.cells_across;
        const size_t pixel = (size_t)(row * a.zoom + phase / 2) * (size_t)(a.cells_across * a.zoom) +
                             (size_t)(column * a.zoom + phase % 2);
#pragma unroll
        for (int j = 0; j < COLUMNS_A_THREAD; j++) {
            if (first_column + j >= a.n_out)
                continue;
            const size_t at = pixel * (size_t)a.n_out + (size_t)(first_column + j);
            float v = sums[i][j] + a.bias[first_column + j];
            a.y[at] = a.residual ? v + a.residual[at] : v;
        }
    }
}

template <int CELLS, int COLUMNS>
static __global__ void __launch_bounds__(CELLS *COLUMNS / (CELLS_A_THREAD * COLUMNS_A_THREAD))
    conv2d_kernel(struct arguments a)
{
    DYNAMIC_SHARED(shared);
    float *pixels = (float *)shared, *weights = pixels + DEPTH * tile<CELLS, COLUMNS>::CELLS_STRIDE;
    const float *panels = a.panels + blockIdx.z * a.phase_floats;
    const int first_cell = (int)blockIdx.x * CELLS, first_column = (int)blockIdx.y * COLUMNS;
    const int cell = (int)threadIdx.x / (COLUMNS / COLUMNS_A_THREAD) * CELLS_A_THREAD;
    const int column = (int)threadIdx.x % (COLUMNS / COLUMNS_A_THREAD) * COLUMNS_A_THREAD;
    float sums[CELLS_A_THREAD][COLUMNS_A_THREAD] = {};
    for (int k = 0; k < a.depth; k += DEPTH) {
        fetch<CELLS, COLUMNS>(a, panels, pixels, weights, first_cell, first_column, k);
        __syncthreads();
        multiply<CELLS, COLUMNS>(sums, pixels + cell, weights + column);
        __syncthreads(); /* all have read before the next numbers come */
    }
    write(a, sums, first_cell + cell, first_column + column);
}

template <int CELLS, int COLUMNS>
static void launch(struct cuda_device *cuda, const struct arguments &a, int n_phases)
{
    typedef tile<CELLS, COLUMNS> T;
    dim3 grid(blocks_for((size_t)a.n_cells, CELLS), blocks_for((size_t)a.n_columns, COLUMNS), (unsigned)n_phases);
    LAUNCH((conv2d_kernel<CELLS, COLUMNS>), grid, dim3(T::THREADS), T::SHARED_FLOATS * sizeof(float), cuda->stream, a);
}

enum status conv2d_cuda(struct device *device, const struct conv2d_launch *l)
{
    struct cuda_device *cuda = cuda_of(device);
    const struct conv2d_weight *w = l->weight;
    const enum conv2d_kind kind = w->shape.kind;
    const int cells_across = kind == CONV2D_DOWN ? l->width / 2 : l->width;
    const int cells_down = kind == CONV2D_DOWN ? l->height / 2 : l->height;
    struct arguments a = {l->y,
                          l->x,
                          l->residual,
                          l->norm ? l->norm->scale : NULL,
                          l->norm ? l->norm->shift : NULL,
                          w->memory,
                          w->memory + conv2d_weight_panel_at(w, 0, 0),
                          w->phase_floats,
                          w->shape.n_in,
                          w->shape.n_out,
                          w->n_columns,
                          w->taps,
                          w->taps * w->taps * w->shape.n_in,
                          l->width,
                          l->height,
                          cells_across,
                          cells_across * cells_down,
                          kind == CONV2D_DOWN ? 2 : 1,
                          kind == CONV2D_DOWN ? 0 : w->shape.kernel / 2,
                          kind == CONV2D_UP ? 2 : 1,
                          l->norm && l->norm->swish};
    if (w->n_columns <= PANEL)
        launch<128, 32>(cuda, a, w->n_phases);
    else
        launch<64, 128>(cuda, a, w->n_phases);
    return cuda_launched(cuda, "conv2d");
}
