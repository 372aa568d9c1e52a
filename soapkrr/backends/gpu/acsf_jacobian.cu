// Jacobians of the symmetry functions by displaced atom and by strain: one block of threads for each centre that an atom moves, which
// visits the triplets it needs anew, so that every number is written once, by one block, in a fixed order of summation.
#include "acsf_features.cuh"

// The pair (i, a) that is pair p = (a, i) seen from the other end, at -r_ai; -1 where there is none. By all threads
// of the block.
__device__ long long reverse(long long a, long long p, const Pairs& pairs) {
    __shared__ long long found;
    if (threadIdx.x == 0) found = -1;
    __syncthreads();
    long long i = pairs.neighbours[p];
    const double* x = pairs.vectors + 3 * p;
    for (long long q = pairs.offsets[i] + threadIdx.x; q < pairs.offsets[i + 1]; q += blockDim.x) {
        const double* y = pairs.vectors + 3 * q;
        double dx = x[0] + y[0], dy = x[1] + y[1], dz = x[2] + y[2];
        if (pairs.neighbours[q] == a && dx * dx + dy * dy + dz * dz < 1e-8) found = q;
    }
    __syncthreads();
    return found;
}

// Row of a displaced atom's own environment.
extern "C" __global__ void moved_centre(
    const long long* offsets, const long long* neighbours, const double* vectors, const long long* kinds, const double* g2,
    const double* g3, const double* eta, const double* zeta, const double* lam, const long long* u, const long long* v,
    const long long* radial_start, const long long* angular_start, const double* weight, const double* table, int n2, int n3, int n_u,
    int n_v, int n4, int n_f, int n_kinds, int n_slots, int n_knots, double r_cut, int tile, int chunk, long long n_features,
    long long start, const long long* rows, double* out) {
    Functions fun{g2, g3, eta, zeta, lam, u, v, n2, n3, n_u, n_v, n4, n_f, radial_start, angular_start, weight, table,
                  n_kinds, n_slots, n_knots, r_cut};
    Pairs pairs{offsets, neighbours, vectors, kinds};
    long long i = start + blockIdx.x;
    features<Centre>(offsets[i], offsets[i + 1], -1, pairs, fun, tile, chunk, n_features, out + rows[blockIdx.x] * 3 * n_features);
}

// Row of pair p = (a, i): what displacing atom a does to centre i.
extern "C" __global__ void moved_neighbour(
    const long long* offsets, const long long* neighbours, const double* vectors, const long long* kinds, const double* g2,
    const double* g3, const double* eta, const double* zeta, const double* lam, const long long* u, const long long* v,
    const long long* radial_start, const long long* angular_start, const double* weight, const double* table, int n2, int n3, int n_u,
    int n_v, int n4, int n_f, int n_kinds, int n_slots, int n_knots, double r_cut, int tile, int chunk, long long n_features,
    long long start, long long stop, const long long* rows, double* out) {
    Functions fun{g2, g3, eta, zeta, lam, u, v, n2, n3, n_u, n_v, n4, n_f, radial_start, angular_start, weight, table,
                  n_kinds, n_slots, n_knots, r_cut};
    Pairs pairs{offsets, neighbours, vectors, kinds};
    long long p = offsets[start] + blockIdx.x, a = centre_of(p, start, stop, offsets), i = neighbours[p];
    features<Neighbour>(offsets[i], offsets[i + 1], reverse(a, p, pairs), pairs, fun, tile, chunk, n_features,
                        out + rows[blockIdx.x] * 3 * n_features);
}

extern "C" __global__ void strained(
    const long long* offsets, const long long* neighbours, const double* vectors, const long long* kinds, const double* g2,
    const double* g3, const double* eta, const double* zeta, const double* lam, const long long* u, const long long* v,
    const long long* radial_start, const long long* angular_start, const double* weight, const double* table, int n2, int n3, int n_u,
    int n_v, int n4, int n_f, int n_kinds, int n_slots, int n_knots, double r_cut, int tile, int chunk, long long n_features,
    long long start, double* out) {
    Functions fun{g2, g3, eta, zeta, lam, u, v, n2, n3, n_u, n_v, n4, n_f, radial_start, angular_start, weight, table,
                  n_kinds, n_slots, n_knots, r_cut};
    Pairs pairs{offsets, neighbours, vectors, kinds};
    long long i = start + blockIdx.x;
    features<Strain>(offsets[i], offsets[i + 1], -1, pairs, fun, tile, chunk, n_features, out + 6 * n_features * blockIdx.x);
}
