// Radial functions and solid harmonics of one neighbour. Distances in units of r_cut.

// Rows of tables are padded to eight numbers.
__device__ __forceinline__ int padded(int n_e) { return (n_e + 7) / 8 * 8; }

// Function e of a table of quintics (n_knots, 6, padded n_e) over [0, 1], and its slope.
__device__ __forceinline__ void quintic(double r, const double* __restrict__ table, int n_knots, int n_e, int e, double& value, double& slope) {
    double u = r * n_knots;
    int k = min((int)u, n_knots - 1);
    double t = u - k;
    const int row = padded(n_e);
    const double* q = table + 6ll * k * row + e;
    double q1 = q[row], q2 = q[2 * row], q3 = q[3 * row], q4 = q[4 * row], q5 = q[5 * row];
    value = q[0] + t * (q1 + t * (q2 + t * (q3 + t * (q4 + t * q5))));
    slope = n_knots * (q1 + t * (2 * q2 + t * (3 * q3 + t * (4 * q4 + t * 5 * q5))));
}

// Table of the neighbours of a species: of all, or its own.
__device__ __forceinline__ const double* table_of(const double* tables, int species, int n_tables, int n_knots, int n_e) {
    return tables + (n_tables > 1 ? 6ll * species * n_knots * padded(n_e) : 0);
}

__device__ const double RECIPROCAL[22] = {0, 1, 1. / 2, 1. / 3, 1. / 4, 1. / 5, 1. / 6, 1. / 7, 1. / 8, 1. / 9, 1. / 10,
    1. / 11, 1. / 12, 1. / 13, 1. / 14, 1. / 15, 1. / 16, 1. / 17, 1. / 18, 1. / 19, 1. / 20, 1. / 21};
const double SQRT2 = 1.4142135623730951;

__device__ __forceinline__ int degree(int k) { return (int)sqrtf(k + 0.5f); }  // l of k = l^2 + l + m

struct Point {
    double x, y, z, r;
};

// Real solid harmonics of order +-m and every degree: store(k, Y, dY/dx, dY/dy, dY/dz) for k = l^2 + l +- m.
// Q_l^m, its neighbours Q_{l-1}^m and Q_{l-1}^{m+1} follow from their recursions in l.
template <class Store>
__device__ __forceinline__ void harmonics(Point v, int m, int l_max, const double* __restrict__ norm, Store store) {
    double c = 1, s = 0, c0 = 0, s0 = 0, start = 1, r2 = v.x * v.x + v.y * v.y + v.z * v.z;
    for (int j = 0; j < m; j++) {
        c0 = c, s0 = s;
        c = v.x * c0 - v.y * s0, s = v.x * s0 + v.y * c0;
        start *= 2 * j + 1;
    }
    double q = 0, q1 = 0, up = 0, up1 = 0;  // Q_l^m, Q_{l-1}^m; Q_{l-1}^{m+1}, Q_{l-2}^{m+1}
    for (int l = m; l <= l_max; l++) {
        double next = l == m ? start : ((2 * l - 1) * v.z * q - (l + m - 1) * r2 * q1) * RECIPROCAL[l - m];
        double next_up = l < m + 2 ? 0 : l == m + 2 ? start * (2 * m + 1) : ((2 * l - 3) * v.z * up - (l + m - 1) * r2 * up1) * RECIPROCAL[l - m - 2];
        q1 = q, q = next, up1 = up, up = next_up;
        double f = norm[l * (l + 1) / 2 + m], z = (l + m) * q1;
        store(l * l + l + m, f * q * c, f * (m * c0 * q - v.x * c * up), f * (-m * s0 * q - v.y * c * up), f * c * z);
        if (m) store(l * l + l - m, f * q * s, f * (m * s0 * q - v.x * s * up), f * (m * c0 * q - v.y * s * up), f * s * z);
    }
}

__device__ __forceinline__ Point scaled(const double* __restrict__ vectors, long long p, double scale) {
    Point v = {vectors[3 * p] * scale, vectors[3 * p + 1] * scale, vectors[3 * p + 2] * scale, 0};
    v.r = sqrt(v.x * v.x + v.y * v.y + v.z * v.z);
    return v;
}
