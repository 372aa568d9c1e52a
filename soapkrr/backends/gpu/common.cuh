// What all kernels share. Blocks are whole warps; sums have a fixed order, so that results repeat to the last bit.

const unsigned FULL = 0xffffffffu;

// Voigt order xx, yy, zz, yz, xz, xy.
__device__ const int VOIGT_A[6] = {0, 1, 2, 1, 0, 0};
__device__ const int VOIGT_B[6] = {0, 1, 2, 2, 2, 1};

// Sum over the lanes of a warp, known to all of them.
__device__ __forceinline__ double warp_sum(double v) {
    for (int d = 16; d; d /= 2) v += __shfl_xor_sync(FULL, v, d);
    return v;
}

// Sum over the threads of a block, known to all of them; all must call.
__device__ double block_sum(double v) {
    __shared__ double part[32];
    v = warp_sum(v);
    __syncthreads();  // the last sum has been read
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    double total = 0.0;
    for (int w = 0; w < blockDim.x / 32; w++) total += part[w];
    return total;
}

// Function e of a table of quintics (n_knots, 6, n_e) over [0, 1], and its slope.
__device__ __forceinline__ void quintic(double r, const double* __restrict__ table, int n_knots, int n_e, int e, double& value, double& slope) {
    double u = r * n_knots;
    int k = min((int)u, n_knots - 1);
    double t = u - k;
    const double* q = table + 6ll * k * n_e + e;
    double q1 = q[n_e], q2 = q[2 * n_e], q3 = q[3 * n_e], q4 = q[4 * n_e], q5 = q[5 * n_e];
    value = q[0] + t * (q1 + t * (q2 + t * (q3 + t * (q4 + t * q5))));
    slope = n_knots * (q1 + t * (2 * q2 + t * (3 * q3 + t * (4 * q4 + t * 5 * q5))));
}

// The atom whose pairs hold pair p: offsets[i] <= p < offsets[i + 1], searched from `first` up to `last`.
__device__ __forceinline__ long long atom_of_pair(long long p, const long long* __restrict__ offsets, long long first, long long last) {
    while (last - first > 1) {
        long long middle = (first + last) / 2;
        if (offsets[middle] <= p) first = middle;
        else last = middle;
    }
    return first;
}
