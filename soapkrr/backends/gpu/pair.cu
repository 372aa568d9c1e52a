// Two-body features: functions of distance from a table of quintics (n_knots, 6, n_b) over [0, r_cut], n_b features per neighbour species.
#include "sums.cuh"

struct Table {
    const double* knots;
    int n_knots, n_b;
    double r_cut;

    // Function b, or its slope, at place t after knot k.
    __device__ double value(int k, double t, int b) const {
        const double* q = knots + (long long)k * 6 * n_b + b;
        return q[0] + t * (q[n_b] + t * (q[2 * n_b] + t * (q[3 * n_b] + t * (q[4 * n_b] + t * q[5 * n_b]))));
    }
    __device__ double slope(int k, double t, int b) const {
        const double* q = knots + (long long)k * 6 * n_b + b;
        double s = q[n_b] + t * (2 * q[2 * n_b] + t * (3 * q[3 * n_b] + t * (4 * q[4 * n_b] + t * 5 * q[5 * n_b])));
        return n_knots / r_cut * s;
    }
    __device__ int knot(double r, double& t) const {
        double x = r / r_cut * n_knots;
        int k = min((int)x, n_knots - 1);
        t = x - k;
        return k;
    }
};

// Some neighbours of the centre in shared memory.
struct Tile {
    double *x, *r, *t;
    int *knot, *kind, n;

    __device__ Tile(Shared& shared, int size) {
        x = shared.doubles(3 * size);
        r = shared.doubles(size);
        t = shared.doubles(size);
        knot = shared.ints(size);
        kind = shared.ints(size);
        n = 0;
    }

    // Load pairs first:first + count; by all threads of the block.
    __device__ void load(long long first, int count, const long long* neighbours, const double* vectors, const long long* kinds,
                         const Table& table) {
        for (int m = threadIdx.x; m < count; m += blockDim.x) {
            const double* d = vectors + 3 * (first + m);
            for (int a = 0; a < 3; a++) x[3 * m + a] = d[a];
            r[m] = sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
            knot[m] = table.knot(r[m], t[m]);
            kind[m] = (int)kinds[neighbours[first + m]];
        }
        __syncthreads();
        n = count;
    }
};

// Values or derivatives of the features of the centre with pairs first:last into out[b * n_features + f].
template <class Move>
__device__ void features(long long first, long long last, const long long* neighbours, const double* vectors, const long long* kinds,
                         const Table& table, int n_kinds, int tile, double* out) {
    const int N = Move::n > 0 ? Move::n : 1;
    int n_features = n_kinds * table.n_b;
    Shared shared;
    double* part = shared.doubles(N * blockDim.x);
    Tile J(shared, tile);
    for (int f = threadIdx.x; f < N * n_features; f += blockDim.x) out[f] = 0.0;
    auto add = [&](int f, int slice, int n_slices, double* total) {
        int kind = f / table.n_b, b = f % table.n_b;
        for (int j = slice; j < J.n; j += n_slices) {
            if (J.kind[j] != kind) continue;
            if (Move::n == 0) {
                total[0] += table.value(J.knot[j], J.t[j], b);
                continue;
            }
            double slope = table.slope(J.knot[j], J.t[j], b) / J.r[j];
            for (int a = 0; a < Move::n; a++) {
                double xx, yy, xy;
                Move::along(a, J.x + 3 * j, J.x + 3 * j, xx, yy, xy);
                total[a] += slope * xx;
            }
        }
    };
    auto put = [&](int f, const double* total) {
        for (int a = 0; a < N; a++) out[a * n_features + f] += total[a];
    };
    for (long long j0 = first; j0 < last; j0 += tile) {
        J.load(j0, (int)min((long long)tile, last - j0), neighbours, vectors, kinds, table);
        sums<N>(n_features, part, add, put);
    }
}

extern "C" __global__ void values(const long long* offsets, const long long* neighbours, const double* vectors, const long long* kinds,
                                  const double* knots, int n_knots, int n_b, double r_cut, int n_kinds, int tile, long long start,
                                  double* X) {
    long long i = start + blockIdx.x;
    Table table{knots, n_knots, n_b, r_cut};
    features<Values>(offsets[i], offsets[i + 1], neighbours, vectors, kinds, table, n_kinds, tile,
                     X + (long long)blockIdx.x * n_kinds * n_b);
}

extern "C" __global__ void pullback(const long long* offsets, const long long* neighbours, const double* vectors, const long long* kinds,
                                    const double* knots, int n_knots, int n_b, double r_cut, int n_kinds, int tile, long long start,
                                    const double* G, double* out) {
    long long i = start + blockIdx.x, last = offsets[i + 1];
    const double* g = G + (long long)blockIdx.x * n_kinds * n_b;
    Table table{knots, n_knots, n_b, r_cut};
    Shared shared;
    double* part = shared.doubles(blockDim.x);
    Tile J(shared, tile);
    for (long long j0 = offsets[i]; j0 < last; j0 += tile) {
        J.load(j0, (int)min((long long)tile, last - j0), neighbours, vectors, kinds, table);
        auto add = [&](int j, int slice, int n_slices, double* total) {
            for (int b = slice; b < n_b; b += n_slices) total[0] += g[J.kind[j] * n_b + b] * table.slope(J.knot[j], J.t[j], b);
        };
        auto put = [&](int j, const double* total) {
            for (int a = 0; a < 3; a++) out[3 * (j0 + j) + a] = total[0] * J.x[3 * j + a] / J.r[j];
        };
        sums<1>(J.n, part, add, put);
    }
}

// Row of a displaced atom's own environment.
extern "C" __global__ void moved_centre(const long long* offsets, const long long* neighbours, const double* vectors,
                                        const long long* kinds, const double* knots, int n_knots, int n_b, double r_cut, int n_kinds,
                                        int tile, long long start, const long long* rows, double* out) {
    long long i = start + blockIdx.x;
    Table table{knots, n_knots, n_b, r_cut};
    features<Centre>(offsets[i], offsets[i + 1], neighbours, vectors, kinds, table, n_kinds, tile,
                     out + rows[blockIdx.x] * 3 * n_kinds * n_b);
}

// Row of pair p = (a, i): what displacing atom a does to centre i, which sees a at -r_ai.
extern "C" __global__ void moved_neighbour(const long long* offsets, const double* vectors, const long long* kinds, const double* knots,
                                           int n_knots, int n_b, double r_cut, int n_kinds, long long start, long long stop,
                                           const long long* rows, double* out) {
    long long p = offsets[start] + blockIdx.x, kind = kinds[centre_of(p, start, stop, offsets)];
    int n_features = n_kinds * n_b;
    const double* d = vectors + 3 * p;
    double* row = out + rows[blockIdx.x] * 3 * n_features;
    Table table{knots, n_knots, n_b, r_cut};
    double t, r = sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
    int k = table.knot(r, t);
    for (int f = threadIdx.x; f < n_features; f += blockDim.x) {
        double slope = f / n_b == kind ? table.slope(k, t, f % n_b) / r : 0.0;
        for (int a = 0; a < 3; a++) row[a * n_features + f] = -slope * d[a];
    }
}

extern "C" __global__ void strained(const long long* offsets, const long long* neighbours, const double* vectors, const long long* kinds,
                                    const double* knots, int n_knots, int n_b, double r_cut, int n_kinds, int tile, long long start,
                                    double* out) {
    long long i = start + blockIdx.x;
    Table table{knots, n_knots, n_b, r_cut};
    features<Strain>(offsets[i], offsets[i + 1], neighbours, vectors, kinds, table, n_kinds, tile,
                     out + (long long)blockIdx.x * 6 * n_kinds * n_b);
}
