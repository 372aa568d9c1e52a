// What all kernels share. Blocks are whole warps; sums have a fixed order, so that results repeat to the last bit.

const unsigned FULL = 0xffffffffu;

// Sum over the lanes of a warp, known to all of them.
__device__ __forceinline__ double warp_sum(double v) {
    for (int d = 16; d; d /= 2) v += __shfl_xor_sync(FULL, v, d);
    return v;
}

// Sum over the threads of a block, known to all of them; all must call.
__device__ double block_sum(double v) {
    __shared__ double part[32];
    v = warp_sum(v);
    __syncthreads();  // the last sum has been read
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    double total = 0.0;
    for (int w = 0; w < blockDim.x / 32; w++) total += part[w];
    return total;
}

// Dynamic shared memory of the block.
__device__ __forceinline__ double* shared_doubles() {
    extern __shared__ double shared_memory[];
    return shared_memory;
}

