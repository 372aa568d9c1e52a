// Rows of the Jacobian of normalised power spectra; one block per pair or per row.
#include "sums.cuh"
#include "soap.cuh"

// Five blocks a multiprocessor leave 96 registers each, with which nothing is spilled.
// One block per pair (a, i) of the atoms start:stop, pairs counted from the first: the three rows of dX_i/dr_a.
// The neighbour's density is, for each l, a product of a radial and an angular part, so that with P_b[q] = sum_m dY_lm/db c[lm, q] and
// P_r[q] = sum_m Y_lm c[lm, q] the derivative is w (R_q P_q' + R_q' P_q): `tile` degrees at a time stand in shared memory.
// Radial parts are contracted, R_q = sum_n S_n C[l, n, q], where `contracted`, and zero outside the species of a where not.
extern "C" __global__ void __launch_bounds__(128, 5) pair_rows(long long start, long long stop, const long long* offsets, const long long* neighbours,
    const double* __restrict__ vectors, const long long* kinds, const double* __restrict__ table, int n_knots, int n_tables, const long long* windows,
    const double* __restrict__ norm,
    const double* __restrict__ weight, double inv_r_cut, int l_max, int n_max, int n_channels, const double* __restrict__ contraction, int contracted,
    int n_mixed, const int* __restrict__ side_a, const int* __restrict__ side_b, const int* __restrict__ side_l, const int* __restrict__ starts, int n_f,
    int tile, const double* __restrict__ all,
    const double* __restrict__ X, const double* __restrict__ norms, const long long* rows, double* out) {
    double* shared = shared_doubles();
    const int t = threadIdx.x, n_t = blockDim.x, n_y = min((l_max + 1) * (l_max + 1), (2 * l_max + 1) * tile);
    double *Y = shared, *S = Y + 4 * n_y, *dS = S + tile * n_max, *R = dS + tile * n_max, *dR = R + tile * n_mixed, *P = dR + tile * n_mixed;
    const long long p = offsets[start] + blockIdx.x, i = neighbours[p];
    const int species = (int)kinds[centre_of(p, start, stop, offsets)];
    table = table_of(table, species, n_tables, n_knots, (l_max + 1) * n_max);
    windows += 2 * species * (l_max + 1);
    const Point v = scaled(vectors, p, -inv_r_cut);
    const double u[3] = {v.x / v.r, v.y / v.r, v.z / v.r}, length = norms[i];
    const double *c = all + i * (l_max + 1) * (l_max + 1) * n_mixed, *x = X + i * n_f;
    double *row = out + rows[blockIdx.x] * 3 * n_f, along[3] = {0, 0, 0};
    if (!(length > 0)) {
        for (long long o = t; o < 3ll * n_f; o += n_t) row[o] = 0;
        return;
    }
    for (int pass = 0; pass < 2; pass++) {
        for (int l0 = 0; l0 <= l_max; l0 += tile) {
            const int l1 = min(l0 + tile, l_max + 1), k0 = l0 * l0, n_l = l1 - l0;
            if (pass == 0 || tile <= l_max) {
                for (int m = t; m <= l_max; m += n_t)
                    harmonics(v, m, l1 - 1, norm, [&](int k, double value, double dx, double dy, double dz) {
                        if (k >= k0) Y[k - k0] = dx, Y[n_y + k - k0] = dy, Y[2 * n_y + k - k0] = dz, Y[3 * n_y + k - k0] = value;
                    });
                for (int o = t; o < n_l * n_max; o += n_t) quintic(v.r, table, n_knots, (l_max + 1) * n_max, l0 * n_max + o, S[o], dS[o]);
                __syncthreads();
                for (int o = t; o < n_l * n_mixed; o += n_t) {
                    const int l = l0 + o / n_mixed, q = o % n_mixed, n0 = (l - l0) * n_max, own = q - (int)windows[2 * l];
                    double value = 0, slope = 0;
                    if (contracted) {
                        const double* C = contraction + ((long long)l * n_channels + species * n_max) * n_mixed + q;
                        for (int n = 0; n < n_max; n++) value += S[n0 + n] * C[n * n_mixed], slope += dS[n0 + n] * C[n * n_mixed];
                    } else if (own >= 0 && q < windows[2 * l + 1]) {
                        value = S[n0 + own], slope = dS[n0 + own];
                    }
                    R[o] = value * inv_r_cut, dR[o] = slope * inv_r_cut;
                    double s[4] = {0, 0, 0, 0};
                    for (int k = l * l; k < (l + 1) * (l + 1); k++) {
                        const double value = c[k * n_mixed + q];
                        for (int b = 0; b < 4; b++) s[b] += Y[b * n_y + k - k0] * value;
                    }
                    for (int b = 0; b < 4; b++) P[4 * o + b] = s[b];
                }
                __syncthreads();
            }
            for (int f = starts[l0] + t; f < starts[l1]; f += n_t) {
                const int l = side_l[f], a = side_a[f], b = side_b[f], oa = (l - l0) * n_mixed + a, ob = (l - l0) * n_mixed + b;
                const double w = weight[l] * (a == b ? 1 : SQRT2), radial = dR[oa] * P[4 * ob + 3] + dR[ob] * P[4 * oa + 3];
                for (int d = 0; d < 3; d++) {
                    const double value = w * (R[oa] * P[4 * ob + d] + R[ob] * P[4 * oa + d] + u[d] * radial);
                    if (pass == 0) along[d] += x[f] * value;
                    else row[(long long)d * n_f + f] = (value - along[d] * x[f]) / length;
                }
            }
        }
        if (pass == 0)
            for (int d = 0; d < 3; d++) along[d] = block_sum(along[d]);
    }
}

// One block per row: derivative of X_i along dc, for the directions of each atom start + e; row rows[e] * n_dir + direction of out.
extern "C" __global__ void __launch_bounds__(128) moved_rows(long long start, int n_dir, const double* __restrict__ moved, const double* __restrict__ all,
    const double* __restrict__ X, const double* __restrict__ norms, const double* __restrict__ weight, int l_max, int n_mixed,
    const int* __restrict__ side_a, const int* __restrict__ side_b, const int* __restrict__ side_l, int n_f, const long long* rows, double* out) {
    const int n_lm = (l_max + 1) * (l_max + 1);
    const long long e = blockIdx.x / n_dir, i = start + e;
    const double *c = all + i * n_lm * n_mixed, *dc = moved + (long long)blockIdx.x * n_lm * n_mixed, *x = X + i * n_f, length = norms[i];
    double *row = out + (rows[e] * n_dir + blockIdx.x % n_dir) * n_f, along = 0;
    for (int f = threadIdx.x; f < n_f; f += blockDim.x) {
        const int l = side_l[f], a = side_a[f], b = side_b[f];
        double sum = 0;
        for (int k = l * l; k < (l + 1) * (l + 1); k++) sum += dc[k * n_mixed + a] * c[k * n_mixed + b] + c[k * n_mixed + a] * dc[k * n_mixed + b];
        row[f] = sum * weight[l] * (a == b ? 1 : SQRT2);
        along += x[f] * row[f];
    }
    along = block_sum(along);
    for (int f = threadIdx.x; f < n_f; f += blockDim.x) row[f] = length > 0 ? (row[f] - along * x[f]) / length : 0;
}
