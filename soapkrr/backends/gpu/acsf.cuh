// Atom-centred symmetry functions of one centre by one block of threads; formulae as in cpu/acsf.py.
//
// Neighbours are taken in tiles, triplets of two tiles in chunks: first the geometry of every triplet of a chunk, then the powers
// ((1 + lambda cos theta) / 2)^(zeta - 1) of every distinct (zeta, lambda) and the exponentials of every distinct eta, then sums over the
// chunk for every feature.
// Whatever all threads of the block do together leaves them in step.
//
// With P = exp(-eta s) C, where s = r_ij^2 + r_ik^2 + r_jk^2 and C = f_c(r_ij) f_c(r_ik) f_c(r_jk) for G4, both without r_jk for G5, and
// A = 2^(1 - zeta) (1 + lambda cos theta)^zeta, a function is the sum of A P over its triplets.
#include "sums.cuh"

struct Pairs {
    const long long *offsets, *neighbours;
    const double* vectors;
    const long long* kinds;
};

// backends.arrays.Functions and sizes; n_slots: sets of radial features, one per species, or one where species are weighted.
struct Functions {
    const double *g2, *g3, *eta, *zeta, *lam;
    const long long *u, *v;
    int n2, n3, n_u, n_v, n4, n_f;
    const long long *radial_start, *angular_start;
    const double *weight, *table;
    int n_kinds, n_slots, n_knots;
    double r_cut;

    // Distinct exponentials: those of G4, then those of G5.
    __device__ int n_p() const { return n_u * ((n4 > 0) + (n4 < n_f)); }
    __device__ bool is_g5(int p) const { return n4 == 0 || p >= n_u; }
    __device__ int exponential(int f) const { return (int)u[f] + (n4 > 0 && f >= n4 ? n_u : 0); }
    __device__ int n_radial() const { return 1 + n2 + n3; }
    __device__ int n_types() const { return n_slots * (n_slots + 1) / 2; }
};

// f_c and its slope at distance r < r_cut.
__device__ inline double cutoff(double r, const Functions& fun, double& slope) {
    double scale = fun.n_knots / fun.r_cut, x = r * scale;
    int k = min((int)x, fun.n_knots - 1);
    double t = x - k;
    const double* q = fun.table + 6 * k;
    slope = scale * (q[1] + t * (2 * q[2] + t * (3 * q[3] + t * (4 * q[4] + t * 5 * q[5]))));
    return q[0] + t * (q[1] + t * (q[2] + t * (q[3] + t * (q[4] + t * q[5]))));
}

// Some neighbours of the centre, sorted by slot: those of slot s are segment[s]:segment[s + 1]. f and df are w f_c and its slope.
struct Tile {
    double *x, *r, *f, *df;
    int *kind, *slot, *segment, n;

    __device__ Tile(Shared& shared, int size, int n_slots) {
        x = shared.doubles(3 * size);
        r = shared.doubles(size);
        f = shared.doubles(size);
        df = shared.doubles(size);
        kind = shared.ints(size);
        slot = shared.ints(size);
        segment = shared.ints(n_slots + 1);
        n = 0;
    }

    // Load pairs first:first + count but the pair `skip`; by all threads of the block.
    __device__ void load(long long first, int count, long long skip, const Pairs& pairs, const Functions& fun) {
        for (int m = threadIdx.x; m < count; m += blockDim.x)
            slot[m] = first + m == skip ? -1 : fun.n_slots == 1 ? 0 : (int)pairs.kinds[pairs.neighbours[first + m]];
        __syncthreads();
        for (int m = threadIdx.x; m < count; m += blockDim.x) {
            if (slot[m] < 0) continue;
            int rank = 0;
            for (int o = 0; o < count; o++) rank += slot[o] >= 0 && (slot[o] < slot[m] || (slot[o] == slot[m] && o < m));
            const double* d = pairs.vectors + 3 * (first + m);
            for (int a = 0; a < 3; a++) x[3 * rank + a] = d[a];
            r[rank] = sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
            kind[rank] = (int)pairs.kinds[pairs.neighbours[first + m]];
            double slope, w = fun.weight[kind[rank]];
            f[rank] = w * cutoff(r[rank], fun, slope);
            df[rank] = w * slope;
        }
        for (int s = threadIdx.x; s <= fun.n_slots; s += blockDim.x) {
            int below = 0;
            for (int o = 0; o < count; o++) below += slot[o] >= 0 && slot[o] < s;
            segment[s] = below;
        }
        __syncthreads();
        n = segment[fun.n_slots];
    }

    __device__ int size(int s) const { return segment[s + 1] - segment[s]; }
};

// Radial function h of one neighbour, or its slope.
template <bool SLOPE>
__device__ inline double radial(int h, const Tile& tile, int j, const Functions& fun) {
    double r = tile.r[j], f = tile.f[j], df = tile.df[j];
    if (h == 0) return SLOPE ? df : f;
    if (h <= fun.n2) {
        double eta = fun.g2[2 * (h - 1)], x = r - fun.g2[2 * (h - 1) + 1];
        return exp(-eta * x * x) * (SLOPE ? df - 2.0 * eta * x * f : f);
    }
    double k = fun.g3[h - 1 - fun.n2], sine, cosine;
    sincospi(k * r * 0.31830988618379067, &sine, &cosine);  // unlike cos, it keeps nothing in memory to reduce large arguments
    return SLOPE ? df * cosine - k * f * sine : f * cosine;
}

// base^(zeta - 1).
__device__ inline double power(double base, double zeta) {
    int n = (int)zeta;
    if (n != zeta) return exp((zeta - 1.0) * log(base));
    double result = 1.0, square = base;
    for (n -= 1; n > 0; n >>= 1) {
        if (n & 1) result *= square;
        square *= square;
    }
    return result;
}

__device__ inline double half_angle(double c, double lam) { return max(0.5 * (1.0 + lam * c), 0.0); }

// Triplets of neighbours j of one tile and k of another, or of one and the same tile, ordered by type: the unordered pair of slots.
struct Triplets {
    Tile J, K;
    bool same;
    int n_types, *base;  // triplets of type t are base[t]:base[t + 1]

    // Count; by all threads of the block.
    __device__ void count() {
        if (threadIdx.x == 0) {
            base[0] = 0;
            for (int t = 0, b = 0, a = 0; t < n_types; t++) {
                int n = same ? J.size(a) * J.size(b) : J.size(a) * K.size(b) + J.size(b) * K.size(a);
                if (a == b) n = same ? J.size(a) * (J.size(a) - 1) / 2 : J.size(a) * K.size(a);
                base[t + 1] = base[t] + n;
                if (a++ == b) a = 0, b++;
            }
        }
        __syncthreads();
    }

    __device__ int total() const { return base[n_types]; }

    __device__ int type(int t, int from) const {
        while (t >= base[from + 1]) from++;
        return from;
    }

    // Slots a <= b of a type.
    __device__ static void slots(int type, int& a, int& b) {
        for (b = 0; (b + 1) * (b + 2) / 2 <= type;) b++;
        a = type - b * (b + 1) / 2;
    }

    // Neighbours of triplet t. Within one slot of one tile, j is joined with the one d places on, around a circle: every pair comes once.
    __device__ void decode(int t, int type, int& j, int& k) const {
        int a, b;
        slots(type, a, b);
        t -= base[type];
        if (same && a == b) {
            int n = J.size(a), d = t / n + 1;
            j = t % n, k = j + d < n ? j + d : j + d - n;
            j += J.segment[a], k += J.segment[a];
            return;
        }
        int first = J.size(a) * K.size(b);
        if (t >= first) {
            t -= first;
            int swap = a;
            a = b, b = swap;
        }
        j = J.segment[a] + t / K.size(b), k = K.segment[b] + t % K.size(b);
    }
};

// A chunk of at most `size` triplets in shared memory, one column each: j, k, cos theta, r_jk^2, f_c(r_jk) and f_c'(r_jk)/r_jk; derivatives
// of cos theta; powers; P; derivatives of P at fixed cos theta. Columns are an odd number apart, for the sake of the memory's banks.
struct Chunk {
    int size, stride, n, *j, *k;
    double *c, *d2, *f, *df, *dc, *powers, *P, *dP;

    __device__ Chunk(Shared& shared, int size, int n_along, const Functions& fun) : size(size), stride(size | 1), n(0) {
        c = shared.doubles(stride);
        d2 = shared.doubles(stride);
        f = shared.doubles(stride);
        df = shared.doubles(stride);
        dc = shared.doubles(n_along * stride);
        powers = shared.doubles(fun.n_v * stride);
        P = shared.doubles(fun.n_p() * stride);
        dP = shared.doubles(n_along * fun.n_p() * stride);
        j = shared.ints(size);
        k = shared.ints(size);
    }
};

// Geometry of triplets first:first + s.n.
template <class Move>
__device__ void geometry(int first, const Triplets& all, int type, const Functions& fun, Chunk& s) {
    for (int m = threadIdx.x; m < s.n; m += blockDim.x) {
        int j, k;
        all.decode(first + m, all.type(first + m, type), j, k);
        const double *x = all.J.x + 3 * j, *y = all.K.x + 3 * k;
        double rj = all.J.r[j], rk = all.K.r[k], slope = 0.0;
        double dx = y[0] - x[0], dy = y[1] - x[1], dz = y[2] - x[2], d2 = dx * dx + dy * dy + dz * dz;
        double c = min(max((x[0] * y[0] + x[1] * y[1] + x[2] * y[2]) / (rj * rk), -1.0), 1.0);
        bool inside = d2 < fun.r_cut * fun.r_cut;
        s.j[m] = j, s.k[m] = k, s.c[m] = c, s.d2[m] = d2;
        s.f[m] = inside ? cutoff(sqrt(d2), fun, slope) : 0.0;
        s.df[m] = slope / sqrt(d2);
        for (int b = 0; b < Move::n; b++) {
            double xx, yy, xy;
            Move::along(b, x, y, xx, yy, xy);
            s.dc[b * s.stride + m] = xy / (rj * rk) - c * (xx / (rj * rj) + yy / (rk * rk));
        }
    }
    __syncthreads();
}

// Powers, P and its derivatives; P without C where BARE.
template <class Move, bool BARE>
__device__ void factors(const Triplets& all, const Functions& fun, Chunk& s) {
    for (int item = threadIdx.x; item < s.n * (fun.n_v + fun.n_p()); item += blockDim.x) {
        int m = item % s.n, row = item / s.n, p = row - fun.n_v;
        if (p < 0) {
            s.powers[row * s.stride + m] = power(half_angle(s.c[m], fun.lam[row]), fun.zeta[row]);
            continue;
        }
        int j = s.j[m], k = s.k[m];
        bool g5 = fun.is_g5(p);
        double rj = all.J.r[j], rk = all.K.r[k], fj = all.J.f[j], fk = all.K.f[k], fd = g5 ? 1.0 : s.f[m];
        double eta = fun.eta[p % fun.n_u], e = exp(-eta * (rj * rj + rk * rk + (g5 ? 0.0 : s.d2[m]))), C = fj * fk * fd;
        s.P[p * s.stride + m] = BARE ? e : e * C;
        for (int b = 0; b < Move::n; b++) {
            double xx, yy, xy;
            Move::along(b, all.J.x + 3 * j, all.K.x + 3 * k, xx, yy, xy);
            double dC = fd * (all.J.df[j] / rj * xx * fk + fj * all.K.df[k] / rk * yy), ds = 2.0 * (xx + yy);
            if (!g5) {
                dC += fj * fk * s.df[m] * (xx + yy - xy);
                ds += 2.0 * (xx + yy - xy);
            }
            s.dP[(p * Move::n + b) * s.stride + m] = e * (dC - eta * C * ds);
        }
    }
    __syncthreads();
}
