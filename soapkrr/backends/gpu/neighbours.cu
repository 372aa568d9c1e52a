// Neighbour pairs of one structure from a grid of bins, each at least as wide as the cutoff where the cell allows it.
// grid: bins along each axis, how many of them to search on either side, and whether the axis is periodic.

// Visits the pairs of one atom (entry t of the atoms sorted by bin) in a fixed order: visit(entry of the neighbour, x, y, z).
template <class Visit>
__device__ __forceinline__ void search(long long t, const double* __restrict__ points, const long long* bins, const long long* shifts,
    const long long* starts, const double* __restrict__ cell, const long long* grid, double square, Visit visit) {
    const long long bin = bins[t], at[3] = {bin / (grid[1] * grid[2]), bin / grid[2] % grid[1], bin % grid[2]};
    const double x = points[3 * t], y = points[3 * t + 1], z = points[3 * t + 2];
    const long long searched[3] = {2 * grid[3] + 1, 2 * grid[4] + 1, 2 * grid[5] + 1};
    for (long long c = 0; c < searched[0] * searched[1] * searched[2]; c++) {
        const long long step[3] = {c / (searched[1] * searched[2]), c / searched[2] % searched[1], c % searched[2]};
        long long image[3], other = 0;
        bool inside = true;
        for (int a = 0; a < 3; a++) {
            const long long b = at[a] + step[a] - grid[3 + a];
            image[a] = (b >= 0 ? b : b - grid[a] + 1) / grid[a];
            inside = inside && (grid[6 + a] || image[a] == 0);
            other = other * grid[a] + b - image[a] * grid[a];
        }
        if (!inside) continue;
        for (long long q = starts[other]; q < starts[other + 1]; q++) {
            double d[3] = {points[3 * q] - x, points[3 * q + 1] - y, points[3 * q + 2] - z};
            bool same = q == t;
            for (int a = 0; a < 3; a++) {
                const long long n = image[a] - shifts[3 * q + a] + shifts[3 * t + a];
                same = same && n == 0;
                for (int b = 0; b < 3; b++) d[b] = fma((double)n, cell[3 * a + b], d[b]);
            }
            // Written out, so that every kernel rounds alike: a pair at the cutoff is in both lists or in none.
            if (!same && fma(d[2], d[2], fma(d[0], d[0], d[1] * d[1])) < square) visit(q, d[0], d[1], d[2]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(128) count_pairs(long long n_atoms, const double* __restrict__ points, const long long* bins,
    const long long* shifts, const long long* starts, const double* __restrict__ cell, const long long* grid, double square, const long long* order,
    long long* counts) {
    const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (t >= n_atoms) return;
    long long count = 0;
    search(t, points, bins, shifts, starts, cell, grid, square, [&](long long, double, double, double) { count++; });
    counts[order[t]] = count;
}

extern "C" __global__ void __launch_bounds__(128) fill_pairs(long long n_atoms, const double* __restrict__ points, const long long* bins,
    const long long* shifts, const long long* starts, const double* __restrict__ cell, const long long* grid, double square, const long long* order,
    const long long* offsets, long long* j, double* vectors) {
    const long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (t >= n_atoms) return;
    long long p = offsets[order[t]];
    search(t, points, bins, shifts, starts, cell, grid, square, [&](long long q, double x, double y, double z) {
        j[p] = order[q];
        vectors[3 * p] = x, vectors[3 * p + 1] = y, vectors[3 * p + 2] = z;
        p++;
    });
}
