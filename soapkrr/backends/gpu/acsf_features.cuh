// Values or derivatives of the symmetry functions of one centre into out[b * n_features + f], b = 0 or what they are differentiated by.
#include "acsf.cuh"

// Add what the neighbours of a tile give to the radial features.
template <class Move>
__device__ void add_radial(const Tile& tile, const Functions& fun, double* part, long long n_features, double* out) {
    const int N = Move::n > 0 ? Move::n : 1;
    int n_radial = fun.n_radial();
    auto add = [&](int item, int slice, int n_slices, double* total) {
        int s = item / n_radial, h = item % n_radial;
        for (int j = tile.segment[s] + slice; j < tile.segment[s + 1]; j += n_slices) {
            double value = radial<(Move::n > 0)>(h, tile, j, fun);
            if (Move::n == 0) total[0] += value;
            for (int b = 0; b < Move::n; b++) {
                double xx, yy, xy;
                const double* x = tile.x + 3 * j;
                Move::along(b, x, x, xx, yy, xy);
                total[b] += value / tile.r[j] * xx;
            }
        }
    };
    auto put = [&](int item, const double* total) {
        long long f = fun.radial_start[item / n_radial] + item % n_radial;
        for (int b = 0; b < N; b++) out[b * n_features + f] += total[b];
    };
    sums<N>(fun.n_slots * n_radial, part, add, put);
}

// Add what the triplets of a chunk, first:first + s.n, give to the angular features.
template <class Move>
__device__ void add_angular(int first, int type, const Triplets& all, const Functions& fun, const Chunk& s, double* part,
                            long long n_features, double* out) {
    const int N = Move::n > 0 ? Move::n : 1;
    int n_f = fun.n_f, n_types = all.type(first + s.n - 1, type) - type + 1;
    auto add = [&](int item, int slice, int n_slices, double* total) {
        int t = type + item / n_f, f = item % n_f, v = (int)fun.v[f], p = fun.exponential(f);
        int begin = max(all.base[t] - first, 0), end = min(all.base[t + 1] - first, s.n);
        double lam = fun.lam[v], slope = fun.zeta[v] * lam;
        const double *powers = s.powers + v * s.stride, *P = s.P + p * s.stride, *dP = s.dP + p * Move::n * s.stride;
        for (int m = begin + slice; m < end; m += n_slices) {
            double A = 2.0 * half_angle(s.c[m], lam) * powers[m], by_c = slope * powers[m] * P[m];
            if (Move::n == 0) total[0] += A * P[m];
            for (int b = 0; b < Move::n; b++) total[b] += by_c * s.dc[b * s.stride + m] + A * dP[b * s.stride + m];
        }
    };
    auto put = [&](int item, const double* total) {
        int a, b;
        Triplets::slots(type + item / n_f, a, b);
        long long f = fun.angular_start[a * fun.n_kinds + b] + item % n_f;
        for (int b = 0; b < N; b++) out[b * n_features + f] += total[b];
    };
    sums<N>(n_types * n_f, part, add, put);
}

// All features of the centre with pairs first:last; `moved` is the neighbour that moves, where one does, or -1 for none at all.
template <class Move>
__device__ void features(long long first, long long last, long long moved, const Pairs& pairs, const Functions& fun, int tile,
                         int chunk, long long n_features, double* out) {
    const int N = Move::n > 0 ? Move::n : 1;
    Shared shared;
    double* part = shared.doubles(N * blockDim.x);
    Chunk s(shared, chunk, Move::n, fun);
    Tile J(shared, tile, fun.n_slots), K(shared, tile, fun.n_slots);
    int* base = shared.ints(fun.n_types() + 1);
    for (long long f = threadIdx.x; f < N * n_features; f += blockDim.x) out[f] = 0.0;
    long long first_j = Move::one ? moved : first, last_j = Move::one ? (moved < 0 ? moved : moved + 1) : last;
    for (long long j0 = first_j; j0 < last_j; j0 += tile) {
        J.load(j0, (int)min((long long)tile, last_j - j0), -1, pairs, fun);
        add_radial<Move>(J, fun, part, n_features, out);
        if (fun.n_f == 0) continue;
        for (long long k0 = Move::one ? first : j0; k0 < last; k0 += tile) {
            bool same = !Move::one && k0 == j0;
            if (!same) K.load(k0, (int)min((long long)tile, last - k0), moved, pairs, fun);
            Triplets all{J, same ? J : K, same, fun.n_types(), base};
            all.count();
            for (int t0 = 0, type = 0; t0 < all.total(); t0 += s.size) {
                s.n = min(s.size, all.total() - t0);
                type = all.type(t0, type);
                geometry<Move>(t0, all, type, fun, s);
                factors<Move, false>(all, fun, s);
                add_angular<Move>(t0, type, all, fun, s, part, n_features, out);
            }
        }
    }
}
