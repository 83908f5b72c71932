// What an update on a GPU does besides matrix products, each in one pass over memory. Four numbers at a time: rows and columns are
// multiples of 4. Strides and sizes are in floats; blockIdx.y is the matrix (a member, or a member's copy).

__device__ float rectified(float x) { return x < 0 ? 0 : x; }  // NaN stays
__device__ float gated(float g, float y) { return y <= 0 ? 0 : g; }

// x [N, B, H] = max(x + bias, 0), with bias [N, H] in rows `stride` apart.
extern "C" __global__ void winnow_rectify(float4* x, const float* bias, int size, int columns, int stride) {
    x += (unsigned long long)blockIdx.y * size / 4;
    const float4* own = (const float4*)(bias + (unsigned long long)blockIdx.y * stride);
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < size / 4; i += gridDim.x * blockDim.x) {
        float4 v = x[i], b = own[i % (columns / 4)];
        x[i] = make_float4(rectified(v.x + b.x), rectified(v.y + b.y), rectified(v.z + b.z), rectified(v.w + b.w));
    }
}

// gradient [N, B, H] = 0 where y [N, B, H] is 0, and its sums over B into sums [N, H], in rows `stride` apart. A block has 16 x 16
// threads: 64 columns, and every 16th row to each. Where `weight` is given, the gradient that comes in is the product of `outer` [N, B]
// and `weight` [N, H], in rows `stride` apart: that of a layer with one output.
extern "C" __global__ void winnow_gate(
    float4* gradient, const float4* y, float* sums, int rows, int columns, int stride, const float* outer, const float* weight
) {
    __shared__ float4 parts[16][16];
    int column = blockIdx.x * 16 + threadIdx.x, width = columns / 4;
    unsigned long long first = (unsigned long long)blockIdx.y * rows;
    float4 sum = make_float4(0, 0, 0, 0);
    if (column < width) {
        float4 w = sum;
        if (weight) w = *(const float4*)(weight + (unsigned long long)blockIdx.y * stride + 4 * column);
        for (int row = threadIdx.y; row < rows; row += 16) {
            unsigned long long at = (first + row) * width + column;
            float4 v = y[at], g;
            if (weight) {
                float o = outer[first + row];
                g = make_float4(o * w.x, o * w.y, o * w.z, o * w.w);
            } else {
                g = gradient[at];
            }
            g = make_float4(gated(g.x, v.x), gated(g.y, v.y), gated(g.z, v.z), gated(g.w, v.w));
            gradient[at] = g;
            sum.x += g.x, sum.y += g.y, sum.z += g.z, sum.w += g.w;
        }
    }
    if (!sums) return;
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || column >= width) return;
    for (int row = 1; row < 16; row++) {
        float4 p = parts[row][threadIdx.x];
        sum.x += p.x, sum.y += p.y, sum.z += p.z, sum.w += p.w;
    }
    *(float4*)(sums + (unsigned long long)blockIdx.y * stride + 4 * column) = sum;
}

__device__ void adam(float& p, float g, float& first, float& second, float rate, float root, double beta1, double beta2, double epsilon) {
    first = (float)beta1 * first + (float)(1 - beta1) * g;
    second = (float)beta2 * second + (float)(1 - beta2) * g * g;
    p -= rate * first / (sqrtf(second) / root + (float)epsilon);
}

// Adam on rows [K, V] with learning rates [K] and the count of updates, this one included.
extern "C" __global__ void winnow_adam(
    float4* parameters, const float4* gradient, float4* first, float4* second, const float* rates, const float* count, int width,
    double beta1, double beta2, double epsilon
) {
    __shared__ float shared[2];
    if (!threadIdx.x) {
        shared[0] = rates[blockIdx.y] / (1 - pow(beta1, (double)*count));
        shared[1] = sqrt(1 - pow(beta2, (double)*count));
    }
    __syncthreads();
    float rate = shared[0], root = shared[1];
    unsigned long long start = (unsigned long long)blockIdx.y * width / 4;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < width / 4; i += gridDim.x * blockDim.x) {
        float4 p = parameters[start + i], g = gradient[start + i], m = first[start + i], v = second[start + i];
        adam(p.x, g.x, m.x, v.x, rate, root, beta1, beta2, epsilon);
        adam(p.y, g.y, m.y, v.y, rate, root, beta1, beta2, epsilon);
        adam(p.z, g.z, m.z, v.z, rate, root, beta1, beta2, epsilon);
        adam(p.w, g.w, m.w, v.w, rate, root, beta1, beta2, epsilon);
        parameters[start + i] = p, first[start + i] = m, second[start + i] = v;
    }
}
