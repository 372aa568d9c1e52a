// Density expansion c[i, lm, a] and power spectrum p[i, f]; layouts as in backends/cpu/soap.py. Distances in units of r_cut.
#include "soap.cuh"

// Voigt order xx, yy, zz, yz, xz, xy.
__device__ const int VOIGT_A[6] = {0, 1, 2, 1, 0, 0};
__device__ const int VOIGT_B[6] = {0, 1, 2, 2, 2, 1};

// One block: sum over the pairs of an atom of A_lm S_nl (values), or of A_lm S_nl + B_lm S'_nl (derivatives), by species.
// Derivatives by the position of the atom (3 directions) or by strain (6), per Angstrom, or along `turns` (n_pairs, 3), Angstrom, with n_dir 1;
// values include the central atom.
template <bool MOVED>
__device__ __forceinline__ void density(long long start, const long long* offsets, const long long* neighbours, const double* __restrict__ vectors,
    const long long* kinds, const double* __restrict__ table, int n_knots, int n_tables, const long long* windows,
    const double* __restrict__ norm, double inv_r_cut, int l_max, int n_max, int n_channels, int n_dir, int chunk, double* all, const double* __restrict__ turns = nullptr) {
    double* shared = shared_doubles();
    const int n_lm = (l_max + 1) * (l_max + 1), n_e = (l_max + 1) * n_max, t = threadIdx.x, n_t = blockDim.x;
    double *S = shared, *A = S + chunk * n_e, *dS = A + chunk * n_lm, *B = dS + (MOVED ? chunk * n_e : 0);
    Point* place = (Point*)(B + (MOVED ? chunk * n_lm : 0));
    int *kind = (int*)(place + chunk), *unsorted = kind + chunk;
    Point* turn = (Point*)(unsorted + chunk);  // only with `turns`
    const long long i = start + blockIdx.x / n_dir, last = offsets[i + 1];
    const int direction = blockIdx.x % n_dir;
    const int axis = n_dir == 6 ? VOIGT_B[direction] : direction;
    double* c = all + (long long)blockIdx.x * n_lm * n_channels;
    for (int o = t; o < n_lm * n_channels; o += n_t) c[o] = 0;
    __syncthreads();
    if (!MOVED)
        for (int n = t; n < n_max; n += n_t) {
            const long long* window = windows + 2 * kinds[i] * (l_max + 1);
            if (n < window[1] - window[0]) c[window[0] + n] = norm[0] * table_of(table, (int)kinds[i], n_tables, n_knots, n_e)[n];
        }
    for (long long first = offsets[i]; first < last; first += chunk) {
        const int count = (int)min((long long)chunk, last - first);
        for (int p = t; p < count; p += n_t) unsorted[p] = (int)kinds[neighbours[first + p]];
        __syncthreads();
        for (int p = t; p < count; p += n_t) {  // by species, in their order
            int at = 0;
            for (int q = 0; q < count; q++) at += unsorted[q] < unsorted[p] || (unsorted[q] == unsorted[p] && q < p);
            kind[at] = unsorted[p];
            place[at] = scaled(vectors, first + p, inv_r_cut);
            if (MOVED && turns) turn[at] = scaled(turns, first + p, inv_r_cut);
        }
        __syncthreads();
        for (int o = t; o < count * n_e; o += n_t) {
            double value, slope;
            quintic(place[o / n_e].r, table_of(table, kind[o / n_e], n_tables, n_knots, n_e), n_knots, n_e, o % n_e, value, slope);
            S[o] = value;
            if (MOVED) dS[o] = slope;
        }
        for (int o = t; o < count * (l_max + 1); o += n_t) {
            const int p = o / (l_max + 1);
            const Point v = place[p];
            if (MOVED && turns) {
                const Point d = turn[p];
                const double stretch = (v.x * d.x + v.y * d.y + v.z * d.z) / v.r;
                harmonics(v, o % (l_max + 1), l_max, norm, [&](int k, double y, double dx, double dy, double dz) {
                    A[p * n_lm + k] = d.x * dx + d.y * dy + d.z * dz;
                    B[p * n_lm + k] = stretch * y;
                });
                continue;
            }
            const double along = axis == 0 ? v.x : axis == 1 ? v.y : v.z;
            const int lever = VOIGT_A[direction];
            const double factor = n_dir == 6 ? (lever == 0 ? v.x : lever == 1 ? v.y : v.z) : -inv_r_cut;
            harmonics(v, o % (l_max + 1), l_max, norm, [&](int k, double y, double dx, double dy, double dz) {
                A[p * n_lm + k] = MOVED ? factor * (axis == 0 ? dx : axis == 1 ? dy : dz) : y;
                if (MOVED) B[p * n_lm + k] = factor * along / v.r * y;
            });
        }
        __syncthreads();
        for (int o = t; o < n_lm * n_max; o += n_t) {
            const int k = o / n_max, n = o % n_max, e = degree(k) * n_max + n;
            int p = 0;
            while (p < count) {
                const int species = kind[p];
                double sum = 0;
                for (; p < count && kind[p] == species; p++) {
                    sum += A[p * n_lm + k] * S[p * n_e + e];
                    if (MOVED) sum += B[p * n_lm + k] * dS[p * n_e + e];
                }
                const long long* window = windows + 2 * (species * (l_max + 1) + degree(k));
                if (n < window[1] - window[0]) c[k * n_channels + window[0] + n] += sum;
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(128) expand(long long start, const long long* offsets, const long long* neighbours,
    const double* __restrict__ vectors, const long long* kinds, const double* __restrict__ table, int n_knots, int n_tables,
    const long long* windows, const double* __restrict__ norm, double inv_r_cut, int l_max, int n_max, int n_channels, int chunk, double* out) {
    density<false>(start, offsets, neighbours, vectors, kinds, table, n_knots, n_tables, windows, norm, inv_r_cut, l_max, n_max, n_channels, 1, chunk, out);
}

// n_dir 3: derivative of c_i by r_i; 6: by strain. out[(i - start) * n_dir + direction, lm, a].
extern "C" __global__ void __launch_bounds__(128) expand_moved(long long start, const long long* offsets, const long long* neighbours,
    const double* __restrict__ vectors, const long long* kinds, const double* __restrict__ table, int n_knots, int n_tables,
    const long long* windows, const double* __restrict__ norm, double inv_r_cut, int l_max, int n_max, int n_channels, int n_dir, int chunk, double* out) {
    density<true>(start, offsets, neighbours, vectors, kinds, table, n_knots, n_tables, windows, norm, inv_r_cut, l_max, n_max, n_channels, n_dir, chunk, out);
}

// Derivative of c_i along a direction of the pair vectors.
extern "C" __global__ void __launch_bounds__(128) expand_along(long long start, const long long* offsets, const long long* neighbours,
    const double* __restrict__ vectors, const long long* kinds, const double* __restrict__ table, int n_knots, int n_tables,
    const long long* windows, const double* __restrict__ norm, double inv_r_cut, int l_max, int n_max, int n_channels, int chunk, const double* __restrict__ turns, double* out) {
    density<true>(
        start, offsets, neighbours, vectors, kinds, table, n_knots, n_tables, windows, norm, inv_r_cut, l_max, n_max, n_channels, 1, chunk, out, turns);
}

// Derivative of normalised spectra X along `moves` of the expansions; arguments as of power_spectrum. One block per atom.
extern "C" __global__ void __launch_bounds__(256) power_spectrum_along(const double* __restrict__ all, const double* __restrict__ moves,
    const double* __restrict__ X, const double* __restrict__ norms, const int* __restrict__ side_a, const int* __restrict__ side_b,
    const int* __restrict__ side_l, const double* __restrict__ weight, int l_max, int n_channels, int n_f, double* out) {
    const long long at = (long long)blockIdx.x * (l_max + 1) * (l_max + 1) * n_channels;
    const double *c = all + at, *d = moves + at, *x = X + (long long)blockIdx.x * n_f, length = norms[blockIdx.x];
    const double inverse = length > 0 ? 1 / length : 0;
    double *row = out + (long long)blockIdx.x * n_f, along = 0;
    for (int f = threadIdx.x; f < n_f; f += blockDim.x) {
        const int l = side_l[f], a = side_a[f], b = side_b[f];
        double sum = 0;
        for (int k = l * l; k < (l + 1) * (l + 1); k++) sum += c[k * n_channels + a] * d[k * n_channels + b] + d[k * n_channels + a] * c[k * n_channels + b];
        row[f] = sum * weight[l] * (a == b ? 1 : SQRT2);
        along += row[f] * x[f];
    }
    along = block_sum(along);
    for (int f = threadIdx.x; f < n_f; f += blockDim.x) row[f] = (row[f] - along * x[f]) * inverse;
}

// Feature f multiplies channels side_a[f] and side_b[f] of degree side_l[f]. One block per atom.
extern "C" __global__ void __launch_bounds__(256) power_spectrum(const double* __restrict__ all, const int* __restrict__ side_a,
    const int* __restrict__ side_b, const int* __restrict__ side_l, const double* __restrict__ weight, int l_max, int n_channels, int n_f, double* X,
    double* norms) {
    const double* c = all + (long long)blockIdx.x * (l_max + 1) * (l_max + 1) * n_channels;
    double *x = X + (long long)blockIdx.x * n_f, square = 0;
    for (int f = threadIdx.x; f < n_f; f += blockDim.x) {
        const int l = side_l[f], a = side_a[f], b = side_b[f];
        double sum = 0;
        for (int k = l * l; k < (l + 1) * (l + 1); k++) sum += c[k * n_channels + a] * c[k * n_channels + b];
        x[f] = sum * weight[l] * (a == b ? 1 : SQRT2);
        square += x[f] * x[f];
    }
    const double length = sqrt(block_sum(square));
    if (threadIdx.x == 0) norms[blockIdx.x] = length;
    if (length > 0)
        for (int f = threadIdx.x; f < n_f; f += blockDim.x) x[f] /= length;
}

// H[lm, a] = sum_b U_l[a, b] c[lm, b] with U of `tile` rows (l, a) at a time in shared memory; place[l, a, b] is a feature or -1.
extern "C" __global__ void __launch_bounds__(256) power_spectrum_pullback(const double* __restrict__ G, const double* __restrict__ X,
    const double* __restrict__ norms, const double* __restrict__ all, const int* __restrict__ place, const double* __restrict__ weight, int l_max,
    int n_channels, int n_f, int tile, double* H) {
    double* U = shared_doubles();
    const int n_lm = (l_max + 1) * (l_max + 1), t = threadIdx.x, n_t = blockDim.x;
    const double *g = G + (long long)blockIdx.x * n_f, *x = X + (long long)blockIdx.x * n_f, length = norms[blockIdx.x];
    const double* c = all + (long long)blockIdx.x * n_lm * n_channels;
    double *h = H + (long long)blockIdx.x * n_lm * n_channels, along = 0;
    for (int f = t; f < n_f; f += n_t) along += g[f] * x[f];
    along = block_sum(along);
    const double inverse = length > 0 ? 1 / length : 0;
    for (int first = 0; first < (l_max + 1) * n_channels; first += tile) {
        const int rows = min(tile, (l_max + 1) * n_channels - first);
        __syncthreads();
        for (int o = t; o < rows * n_channels; o += n_t) {
            const int b = o / rows, l = (first + o % rows) / n_channels, a = (first + o % rows) % n_channels;
            const int f = place[(l * n_channels + b) * n_channels + a];
            U[o] = f < 0 ? 0 : weight[l] * inverse * (a == b ? 2 : SQRT2) * (g[f] - along * x[f]);
        }
        __syncthreads();
        const int l0 = first / n_channels, l1 = (first + rows - 1) / n_channels + 1;
        for (int o = l0 * l0 * n_channels + t; o < l1 * l1 * n_channels; o += n_t) {
            const int k = o / n_channels, row = degree(k) * n_channels + o % n_channels - first;
            if (row < 0 || row >= rows) continue;
            double sum = 0;
            for (int b = 0; b < n_channels; b++) sum += U[b * rows + row] * c[k * n_channels + b];
            h[o] = sum;
        }
    }
}

// One warp per pair; a lane owns one n (of `width`, a power of two) and every (32 / width)-th m.
extern "C" __global__ void __launch_bounds__(128) expansion_pullback(long long start, const long long* offsets, const long long* neighbours,
    const double* __restrict__ vectors, const long long* kinds, const double* __restrict__ table, int n_knots, int n_tables,
    const long long* windows, const double* __restrict__ norm, double inv_r_cut, int l_max, int n_max, int n_channels, int chunk, const double* __restrict__ H, double* out) {
    double* shared = shared_doubles();
    const int n_lm = (l_max + 1) * (l_max + 1), n_e = (l_max + 1) * n_max, t = threadIdx.x, n_t = blockDim.x;
    double *S = shared, *dS = S + chunk * n_e, *Y = dS + chunk * n_e;  // Y and its gradient: 4 * n_lm of each pair
    Point* place = (Point*)(Y + 4 * chunk * n_lm);
    const long long i = start + blockIdx.x, last = offsets[i + 1];
    const double* h = H + (long long)blockIdx.x * n_lm * n_channels;
    int width = 1;
    while (width < n_max) width *= 2;
    const int n = t % width, m0 = t % 32 / width, step = 32 / width;
    for (long long first = offsets[i]; first < last; first += chunk) {
        const int count = (int)min((long long)chunk, last - first);
        __syncthreads();
        for (int p = t; p < count; p += n_t) place[p] = scaled(vectors, first + p, inv_r_cut);
        __syncthreads();
        for (int o = t; o < count * n_e; o += n_t) {
            const int species = (int)kinds[neighbours[first + o / n_e]];
            quintic(place[o / n_e].r, table_of(table, species, n_tables, n_knots, n_e), n_knots, n_e, o % n_e, S[o], dS[o]);
        }
        for (int o = t; o < count * (l_max + 1); o += n_t) {
            double* y = Y + 4 * n_lm * (o / (l_max + 1));
            harmonics(place[o / (l_max + 1)], o % (l_max + 1), l_max, norm, [&](int k, double value, double dx, double dy, double dz) {
                y[k] = value, y[n_lm + k] = dx, y[2 * n_lm + k] = dy, y[3 * n_lm + k] = dz;
            });
        }
        __syncthreads();
        for (int p = t / 32; p < count; p += n_t / 32) {
            const double* y = Y + 4 * n_lm * p;
            const long long* window = windows + 2 * kinds[neighbours[first + p]] * (l_max + 1);
            double gr = 0, gx = 0, gy = 0, gz = 0;
            for (int l = 0; l <= l_max; l++) {
                if (n >= window[2 * l + 1] - window[2 * l]) continue;
                const double* column = h + window[2 * l] + n;
                double v = 0, x = 0, yy = 0, z = 0;
                for (int k = l * l + m0; k < (l + 1) * (l + 1); k += step) {
                    const double value = column[(long long)k * n_channels];
                    v += y[k] * value, x += y[n_lm + k] * value, yy += y[2 * n_lm + k] * value, z += y[3 * n_lm + k] * value;
                }
                const int e = p * n_e + l * n_max + n;
                gr += dS[e] * v, gx += S[e] * x, gy += S[e] * yy, gz += S[e] * z;
            }
            const Point r = place[p];
            gr = warp_sum(gr) / r.r, gx = warp_sum(gx), gy = warp_sum(gy), gz = warp_sum(gz);
            if (t % 32 < 3) out[3 * (first + p) + t % 32] = inv_r_cut * (t % 32 == 0 ? gx + gr * r.x : t % 32 == 1 ? gy + gr * r.y : gz + gr * r.z);
        }
    }
}
