// Values of the symmetry functions and the pull-back of a gradient to the pairs; one block of threads per centre.
#include "acsf_features.cuh"

extern "C" __global__ void values(
    const long long* offsets, const long long* neighbours, const double* vectors, const long long* kinds, const double* g2,
    const double* g3, const double* eta, const double* zeta, const double* lam, const long long* u, const long long* v,
    const long long* radial_start, const long long* angular_start, const double* weight, const double* table, int n2, int n3, int n_u,
    int n_v, int n4, int n_f, int n_kinds, int n_slots, int n_knots, double r_cut, int tile, int chunk, long long n_features,
    long long start, double* X) {
    Functions fun{g2, g3, eta, zeta, lam, u, v, n2, n3, n_u, n_v, n4, n_f, radial_start, angular_start, weight, table,
                  n_kinds, n_slots, n_knots, r_cut};
    Pairs pairs{offsets, neighbours, vectors, kinds};
    long long i = start + blockIdx.x;
    features<Values>(offsets[i], offsets[i + 1], -1, pairs, fun, tile, chunk, n_features, X + blockIdx.x * n_features);
}

// What the radial features of a tile's neighbours give to their gradients out[3 j + a].
__device__ void pull_radial(const Tile& tile, const Functions& fun, const double* g, double* part, double* out) {
    auto add = [&](int j, int slice, int n_slices, double* total) {
        const double* slot = g + fun.radial_start[tile.kind[j]];
        for (int h = slice; h < fun.n_radial(); h += n_slices) total[0] += slot[h] * radial<true>(h, tile, j, fun);
    };
    auto put = [&](int j, const double* total) {
        for (int a = 0; a < 3; a++) out[3 * j + a] = total[0] * tile.x[3 * j + a] / tile.r[j];
    };
    sums<1>(tile.n, part, add, put);
}

// Of each triplet alpha_j, alpha_k, beta: it gives alpha_j r_ij + beta r_ik to the gradient of j, alpha_k r_ik + beta r_ij to that of k.
struct Levers {
    double *j, *k, *both;
};

__device__ void pull_angles(const Triplets& all, const Functions& fun, const Chunk& s, const double* g, double* part, Levers levers) {
    auto add = [&](int m, int slice, int n_slices, double* total) {
        const double* slot = g + fun.angular_start[all.J.kind[s.j[m]] * fun.n_kinds + all.K.kind[s.k[m]]];
        for (int f = slice; f < fun.n_f; f += n_slices) {
            int v = (int)fun.v[f];
            double lam = fun.lam[v], p = s.powers[v * s.stride + m], h = slot[f] * s.P[fun.exponential(f) * s.stride + m];
            double hA = h * 2.0 * half_angle(s.c[m], lam) * p, with_eta = hA * fun.eta[fun.u[f]], by_c = h * fun.zeta[v] * lam * p;
            if (f < fun.n4) {
                total[0] += hA, total[1] += with_eta, total[2] += by_c;
            } else {
                total[3] += hA, total[4] += with_eta, total[5] += by_c;
            }
        }
    };
    auto put = [&](int m, const double* total) {
        int j = s.j[m], k = s.k[m];
        double rj = all.J.r[j], fj = all.J.f[j], rk = all.K.r[k], fk = all.K.f[k], c = s.c[m], fd = s.f[m];
        double S = fd * total[0] + total[3], S_eta = 2.0 * (fd * total[1] + total[4]), by_c = fj * fk * (fd * total[2] + total[5]);
        double by_j = fk * (all.J.df[j] * S - rj * fj * S_eta), by_k = fj * (all.K.df[k] * S - rk * fk * S_eta);
        double along = fj * fk * (s.df[m] * total[0] - 2.0 * fd * total[1]);
        levers.j[m] = (by_j - by_c * c / rj) / rj + along;
        levers.k[m] = (by_k - by_c * c / rk) / rk + along;
        levers.both[m] = by_c / (rj * rk) - along;
    };
    sums<6>(s.n, part, add, put);
}

// Add the triplets first:first + s.n of one tile, in the order of Triplets::decode, to out[3 j + a].
__device__ void gather_circle(int first, const Tile& J, const Chunk& s, Levers levers, double* out) {
    int n = J.n, last = first + s.n;
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
        double own = 0.0, total[3] = {0.0, 0.0, 0.0};
        for (int d = first / n + 1; (d - 1) * n < last; d++) {
            int k = (j + d) % n, before = (j - d + n) % n, ahead = (d - 1) * n + j, behind = (d - 1) * n + before;
            if (ahead >= first && ahead < last) {
                own += levers.j[ahead - first];
                for (int a = 0; a < 3; a++) total[a] += levers.both[ahead - first] * J.x[3 * k + a];
            }
            if (behind >= first && behind < last) {
                own += levers.k[behind - first];
                for (int a = 0; a < 3; a++) total[a] += levers.both[behind - first] * J.x[3 * before + a];
            }
        }
        for (int a = 0; a < 3; a++) out[3 * j + a] += own * J.x[3 * j + a] + total[a];
    }
    __syncthreads();
}

// The same for the triplets of two tiles.
__device__ void gather_rectangle(int first, const Tile& J, const Tile& K, const Chunk& s, Levers levers, double* out_j, double* out_k) {
    int last = first + s.n;
    for (int item = threadIdx.x; item < J.n + K.n; item += blockDim.x) {
        bool is_j = item < J.n;
        int me = is_j ? item : item - J.n, step = is_j ? 1 : K.n, end = is_j ? min((me + 1) * K.n, last) : last;
        int t = is_j ? max(me * K.n, first) : first + (me + K.n - first % K.n) % K.n;
        const double *x = is_j ? J.x + 3 * me : K.x + 3 * me, *lever = is_j ? levers.j : levers.k;
        double own = 0.0, total[3] = {0.0, 0.0, 0.0};
        for (; t < end; t += step) {
            const double* y = is_j ? K.x + 3 * (t % K.n) : J.x + 3 * (t / K.n);
            own += lever[t - first];
            for (int a = 0; a < 3; a++) total[a] += levers.both[t - first] * y[a];
        }
        double* out = is_j ? out_j + 3 * me : out_k + 3 * me;
        for (int a = 0; a < 3; a++) out[a] += own * x[a] + total[a];
    }
    __syncthreads();
}

extern "C" __global__ void pullback(
    const long long* offsets, const long long* neighbours, const double* vectors, const long long* kinds, const double* g2,
    const double* g3, const double* eta, const double* zeta, const double* lam, const long long* u, const long long* v,
    const long long* radial_start, const long long* angular_start, const double* weight, const double* table, int n2, int n3, int n_u,
    int n_v, int n4, int n_f, int n_kinds, int n_slots, int n_knots, double r_cut, int tile, int chunk, long long n_features,
    long long start, const double* G, double* out) {
    Functions fun{g2, g3, eta, zeta, lam, u, v, n2, n3, n_u, n_v, n4, n_f, radial_start, angular_start, weight, table,
                  n_kinds, n_slots, n_knots, r_cut};
    Pairs pairs{offsets, neighbours, vectors, kinds};
    fun.n_slots = 1;  // to the tiles all neighbours are of one slot: they stay in the order of their pairs
    long long i = start + blockIdx.x, first = offsets[i], last = offsets[i + 1];
    const double* g = G + blockIdx.x * n_features;
    Shared shared;
    double* part = shared.doubles(6 * blockDim.x);
    Chunk s(shared, chunk, 0, fun);
    Levers levers{shared.doubles(chunk), shared.doubles(chunk), shared.doubles(chunk)};
    Tile J(shared, tile, 1), K(shared, tile, 1);
    int* base = shared.ints(2);
    for (long long j0 = first; j0 < last; j0 += tile) {
        J.load(j0, (int)min((long long)tile, last - j0), -1, pairs, fun);
        pull_radial(J, fun, g, part, out + 3 * j0);
    }
    if (n_f == 0) return;
    for (long long j0 = first; j0 < last; j0 += tile) {
        if (last - first > tile) J.load(j0, (int)min((long long)tile, last - j0), -1, pairs, fun);
        for (long long k0 = j0; k0 < last; k0 += tile) {
            bool same = k0 == j0;
            if (!same) K.load(k0, (int)min((long long)tile, last - k0), -1, pairs, fun);
            Triplets all{J, same ? J : K, same, 1, base};
            all.count();
            for (int t0 = 0; t0 < all.total(); t0 += s.size) {
                s.n = min(s.size, all.total() - t0);
                geometry<Values>(t0, all, 0, fun, s);
                factors<Values, true>(all, fun, s);
                pull_angles(all, fun, s, g, part, levers);
                if (same)
                    gather_circle(t0, J, s, levers, out + 3 * j0);
                else
                    gather_rectangle(t0, J, K, s, levers, out + 3 * j0, out + 3 * k0);
            }
        }
    }
}
