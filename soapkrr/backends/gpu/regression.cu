// Kernels, design rows, choice of sparse points, and sums over pairs; as backends/cpu/regression.py.

// One block per row of U: energies[i] = sum_q w_q u^zeta, and U becomes w_q zeta u^(zeta - 1).
extern "C" __global__ void __launch_bounds__(256) dot_product_energy(int n, const double* __restrict__ weights, double zeta, double* U, double* energies) {
    double *u = U + (long long)blockIdx.x * n, total = 0;
    const int power = (int)zeta;
    const bool whole = power == zeta && power <= 16;
    for (int q = threadIdx.x; q < n; q += blockDim.x) {
        double v = u[q], s = weights[q];
        if (whole) {
            for (int k = 1; k < power; k++) s *= v;
        } else {
            v = max(v, 0.0);
            s *= pow(v, zeta - 1);
        }
        total += s * v;
        u[q] = zeta * s;
    }
    total = block_sum(total);
    if (threadIdx.x == 0) energies[blockIdx.x] = total;
}

// One block per row of U and V: energies[i] = sum_q [w_q F(u) + F'(u) v] with F = u^zeta; U becomes w_q F' + F'' v, V becomes F'.
extern "C" __global__ void __launch_bounds__(256) dot_product_observed(int n, const double* __restrict__ weights, double zeta, double* U, double* V,
    double* energies) {
    double *u = U + (long long)blockIdx.x * n, *v = V + (long long)blockIdx.x * n, total = 0;
    const int power = (int)zeta;
    const bool whole = power == zeta && power <= 16;
    const double least = zeta >= 2 ? 0 : 1e-12;  // below zeta = 2 the curvature diverges at u = 0, where v vanishes faster
    for (int q = threadIdx.x; q < n; q += blockDim.x) {
        double x = u[q], rest = 1;
        if (zeta == 1) {
            total += weights[q] * x + v[q];
            u[q] = weights[q];
            v[q] = 1;
            continue;
        }
        if (whole) {
            for (int k = 2; k < power; k++) rest *= x;
        } else {
            rest = pow(max(x, least), zeta - 2);
            x = max(x, 0.0);
        }
        const double slope = zeta * rest * x;
        total += weights[q] * rest * x * x + slope * v[q];
        u[q] = weights[q] * slope + zeta * (zeta - 1) * rest * v[q];
        v[q] = slope;
    }
    total = block_sum(total);
    if (threadIdx.x == 0) energies[blockIdx.x] = total;
}

// One block per row (target, b) of out (n_targets, k, n): entries order[offsets[target]:offsets[target + 1]] are gathered in their order.
extern "C" __global__ void __launch_bounds__(256) scatter_rows(const double* __restrict__ T, const double* __restrict__ slope, const long long* centre,
    const long long* order, const long long* offsets, int k, int n, double* out) {
    const long long target = blockIdx.x / k, first = offsets[target], last = offsets[target + 1];
    const int b = blockIdx.x % k;
    double* row = out + (long long)blockIdx.x * n;
    for (int q = threadIdx.x; q < n; q += blockDim.x) {
        double sum = row[q];
        for (long long m = first; m < last; m++) sum -= slope[centre[order[m]] * n + q] * T[(order[m] * k + b) * n + q];
        row[q] = sum;
    }
}

// As scatter_rows, with along[e, b] in place of T[e, b, q].
extern "C" __global__ void __launch_bounds__(256) scatter_norms(const double* __restrict__ along, const double* __restrict__ slope,
    const long long* centre, const long long* order, const long long* offsets, int k, int n, double* out) {
    const long long target = blockIdx.x / k, first = offsets[target], last = offsets[target + 1];
    const int b = blockIdx.x % k;
    double* row = out + (long long)blockIdx.x * n;
    for (int q = threadIdx.x; q < n; q += blockDim.x) {
        double sum = row[q];
        for (long long m = first; m < last; m++) sum -= slope[centre[order[m]] * n + q] * along[order[m] * k + b];
        row[q] = sum;
    }
}

// One warp per point: best[i] = min(best[i], |x_i - x_new|^2), where `now` is the place of the newest pick.
extern "C" __global__ void __launch_bounds__(256) nearer(const double* __restrict__ X, long long n_points, int n, const long long* picked, int now, double* best) {
    const long long i = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;
    if (i >= n_points) return;  // the whole warp
    const double *x = X + i * n, *y = X + picked[now] * n;
    double sum = 0;
    for (int f = threadIdx.x % 32; f < n; f += 32) sum += (y[f] - x[f]) * (y[f] - x[f]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) best[i] = min(best[i], sum);
}

// One block: the first of the largest of best, into picked[now] and gaps[now].
extern "C" __global__ void __launch_bounds__(1024) farthest(const double* __restrict__ best, long long n_points, int now, long long* picked, double* gaps) {
    __shared__ double value[1024];
    __shared__ long long place[1024];
    const int t = threadIdx.x;
    double far = -1;
    long long at = 0;
    for (long long i = t; i < n_points; i += blockDim.x)
        if (best[i] > far) far = best[i], at = i;
    value[t] = far, place[t] = at;
    for (int d = blockDim.x / 2; d; d /= 2) {
        __syncthreads();
        if (t < d && (value[t + d] > value[t] || (value[t + d] == value[t] && place[t + d] < place[t]))) value[t] = value[t + d], place[t] = place[t + d];
    }
    if (t == 0) picked[now] = place[0], gaps[now] = value[0];
}

// One warp per atom i: forces[i] = sum of g over its pairs, less the sum over the pairs order[towards[i]:towards[i + 1]] that end at i;
// and its part of the strain derivative, (r_a g_b + r_b g_a) / 2 over its own pairs.
extern "C" __global__ void __launch_bounds__(128) pair_sums(long long n_atoms, const long long* offsets, const double* __restrict__ vectors,
    const double* __restrict__ g, const long long* order, const long long* towards, double* forces, double* strain) {
    const int lane = threadIdx.x % 32;
    const long long i = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / 32;
    if (i >= n_atoms) return;  // the whole warp
    double f[3] = {0, 0, 0}, s[6] = {0, 0, 0, 0, 0, 0};
    for (long long p = offsets[i] + lane; p < offsets[i + 1]; p += 32) {
        const double x = vectors[3 * p], y = vectors[3 * p + 1], z = vectors[3 * p + 2], gx = g[3 * p], gy = g[3 * p + 1], gz = g[3 * p + 2];
        f[0] += gx, f[1] += gy, f[2] += gz;
        s[0] += x * gx, s[1] += y * gy, s[2] += z * gz;
        s[3] += 0.5 * (y * gz + z * gy), s[4] += 0.5 * (x * gz + z * gx), s[5] += 0.5 * (x * gy + y * gx);
    }
    for (long long m = towards[i] + lane; m < towards[i + 1]; m += 32)
        for (int a = 0; a < 3; a++) f[a] -= g[3 * order[m] + a];
    for (int a = 0; a < 3; a++) {
        const double total = warp_sum(f[a]);
        if (lane == 0) forces[3 * i + a] = total;
    }
    for (int v = 0; v < 6; v++) {
        const double total = warp_sum(s[v]);
        if (lane == 0) strain[6 * i + v] = total;
    }
}

// One block per structure: sums of rows of six.
extern "C" __global__ void __launch_bounds__(256) structure_sums(const long long* atom_offsets, const double* __restrict__ rows, double* sums) {
    double s[6] = {0, 0, 0, 0, 0, 0};
    for (long long i = atom_offsets[blockIdx.x] + threadIdx.x; i < atom_offsets[blockIdx.x + 1]; i += blockDim.x)
        for (int v = 0; v < 6; v++) s[v] += rows[6 * i + v];
    for (int v = 0; v < 6; v++) {
        const double total = block_sum(s[v]);
        if (threadIdx.x == 0) sums[6ll * blockIdx.x + v] = total;
    }
}
