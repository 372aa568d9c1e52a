// Work shared out over one block of threads, added in an order that depends on sizes only: the same input gives the same bits.

// Hands out dynamic shared memory in whole doubles.
struct Shared {
    double* next;
    __device__ Shared() {
        extern __shared__ double shared_memory[];
        next = shared_memory;
    }
    __device__ double* doubles(int n) {
        double* taken = next;
        next += n;
        return taken;
    }
    __device__ int* ints(int n) { return (int*)doubles((n + 1) / 2); }
};

// N sums for each of n_items: add(item, slice, n_slices, total) adds every n_slices-th part, put(item, total) takes the sums.
// Items get several threads where there are more threads than items. `part` holds max(N, 1) doubles per thread. Every thread of the
// block must come here; all are in step again at the end.
template <int N, class Add, class Put>
__device__ void sums(int n_items, double* part, Add add, Put put) {
    if (n_items < 1) return;
    int threads = blockDim.x, me = threadIdx.x;
    int n_slices = n_items < threads ? min(threads / n_items, 16) : 1;
    int at_once = threads / n_slices;
    for (int first = 0; first < n_items; first += at_once) {
        int item = first + me / n_slices, slice = me % n_slices;
        bool busy = me / n_slices < at_once && item < n_items;
        double total[N];
        for (int b = 0; b < N; b++) total[b] = 0.0;
        if (busy) add(item, slice, n_slices, total);
        if (n_slices > 1) {
            for (int b = 0; b < N; b++) part[b * threads + me] = total[b];
            __syncthreads();
            if (busy && slice == 0)
                for (int s = 1; s < n_slices; s++)
                    for (int b = 0; b < N; b++) total[b] += part[b * threads + me + s];
        }
        if (busy && slice == 0) put(item, total);
        __syncthreads();
    }
}

// The atom whose pairs hold pair p, among atoms start:stop.
__device__ inline long long centre_of(long long p, long long start, long long stop, const long long* offsets) {
    while (stop - start > 1) {
        long long middle = (start + stop) / 2;
        if (offsets[middle] <= p)
            start = middle;
        else
            stop = middle;
    }
    return start;
}

// What is differentiated by: d/db of |x|^2/2, |y|^2/2 and x.y, where x and y are the vectors from a centre to two neighbours.
struct Values {
    static const int n = 0;
    static const bool one = false;
    __device__ static void along(int, const double*, const double*, double&, double&, double&) {}
};

// The neighbour at x is displaced.
struct Neighbour {
    static const int n = 3;
    static const bool one = true;
    __device__ static void along(int b, const double* x, const double* y, double& xx, double& yy, double& xy) {
        xx = x[b], yy = 0.0, xy = y[b];
    }
};

// The centre is displaced.
struct Centre {
    static const int n = 3;
    static const bool one = false;
    __device__ static void along(int b, const double* x, const double* y, double& xx, double& yy, double& xy) {
        xx = -x[b], yy = -y[b], xy = -(x[b] + y[b]);
    }
};

// All is strained; Voigt order xx, yy, zz, yz, xz, xy.
struct Strain {
    static const int n = 6;
    static const bool one = false;
    __device__ static void along(int v, const double* x, const double* y, double& xx, double& yy, double& xy) {
        int a = v < 3 ? v : v == 3, b = v < 3 ? v : v < 5 ? 2 : 1;
        xx = x[a] * x[b], yy = y[a] * y[b], xy = x[a] * y[b] + y[a] * x[b];
    }
};
