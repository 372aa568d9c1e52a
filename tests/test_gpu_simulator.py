"""The simulated GPU is as strict as the real one: what would fail or be wrong there must not pass here."""

from __future__ import annotations

import numpy as np
import pytest
from device import MODULES

cupy = MODULES["cupy"]
EMPTY = (1,), (64,)


def launched(code, grid, block, args, **options):
    cupy.RawModule(code=code).get_function("f")(grid, block, args, **options)


def test_arrays_of_host_and_device_do_not_mix(cuda):
    x, y = cuda.arange(3.0), np.arange(3.0)
    for mixed in (lambda: x + y, lambda: y + x, lambda: cuda.dot(x, y), lambda: np.einsum("i,i->", x, y), lambda: cuda.sqrt(y)):
        with pytest.raises(TypeError):
            mixed()
    with pytest.raises(TypeError, match="conversion"):
        np.asarray(x)
    with pytest.raises((TypeError, ValueError)):
        x[1:] = [1.0, 2.0]


def test_array_functions_of_numpy_stay_on_the_device(cuda):
    x = cuda.asarray([[1.0, 2.0], [3.0, 5.0]])
    for result in (np.sqrt(x), np.einsum("ab,bc->ac", x, x), np.linalg.norm(x), x.sum(), x[1, 1], 2.0 * x, np.float64(2) * x, x[0] @ x):
        assert isinstance(result, cuda.ndarray)
    np.testing.assert_allclose(np.einsum("ab,cb->ac", x, x).get(), x.get() @ x.get().T)
    assert float(x[1, 0]) == 3.0 and int(x.argmax()) == 3 and bool((x > 0).all())
    x[cuda.asarray([1, 0])] -= cuda.ones(2)
    np.testing.assert_array_equal(x.get(), [[0.0, 1.0], [2.0, 4.0]])


def test_device_memory_is_never_shared_with_the_host(cuda):
    y = np.zeros(3)
    x = cuda.asarray(y)
    x[:] = 1.0
    assert not y.any() and x.get().all()


def test_options_that_only_numpy_has_are_refused(cuda):
    with pytest.raises(TypeError):
        cuda.sum(cuda.ones(3), where=cuda.ones(3, dtype=bool))
    with pytest.raises(AttributeError):
        _ = cuda.nested_iters


def test_memory_is_counted_and_limited(monkeypatch):
    pool = cupy.get_default_memory_pool()
    before = pool.used_bytes()
    x = cupy.zeros(1000)
    view = x[10:]
    assert pool.used_bytes() == before + 8000
    del x, view
    assert pool.used_bytes() == before
    monkeypatch.setattr(pool, "limit", before + 100)
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
        cupy.zeros(1000)


REVERSE = """
extern "C" __global__ void f(const double* x, double* y) {
    extern __shared__ double s[];
    int t = threadIdx.x;
    s[t] = x[blockIdx.x * blockDim.x + t];
    BARRIER
    y[blockIdx.x * blockDim.x + t] = s[blockDim.x - 1 - t];
}
"""


def test_barriers_are_real(cuda):
    x = cuda.arange(192.0)
    y = cuda.empty(192)
    cuda.RawModule(code=REVERSE.replace("BARRIER", "__syncthreads();")).get_function("f")((3,), (64,), (x, y), shared_mem=512)
    np.testing.assert_array_equal(y.get(), x.get().reshape(3, 64)[:, ::-1].ravel())


def test_missing_barrier_shows():
    x, y = cupy.arange(128.0), cupy.empty(128)
    launched(REVERSE.replace("BARRIER", ""), (2,), (64,), (x, y), shared_mem=512)
    assert not np.isfinite(y.get()).all()


@pytest.mark.parametrize(
    "body, message",
    [
        ("if (threadIdx.x < 5) return; __syncthreads();", "only 59 of the 64 threads of a block"),
        ("if (threadIdx.x < 5) __syncthreads();", "only 5 of the 64 threads of a block"),
        ("if (threadIdx.x < 5) {__syncthreads();\n} else __syncthreads();", "different barriers"),
        ("if (threadIdx.x < 5) __syncwarp();", "threads of a warp"),
        ("extern __shared__ double s[];\n s[threadIdx.x] = 1.0;", "past the end"),
    ],
)
def test_broken_kernels_stop(body, message):
    with pytest.raises(RuntimeError, match=message):
        launched(f'extern "C" __global__ void f() {{ {body} }}', *EMPTY, (), shared_mem=63 * 8)


def test_shuffles_sum_a_warp(cuda):
    code = """extern "C" __global__ void f(double* x) {
        double v = threadIdx.x;
        for (int d = 16; d; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
        double w = __shfl_down_sync(0xffffffffu, (double)threadIdx.x, 1);
        x[threadIdx.x] = v + 1000 * w;
    }"""
    x = cuda.empty(64)
    cuda.RawModule(code=code).get_function("f")((1,), (64,), (x,))
    t = np.arange(64)
    np.testing.assert_array_equal(x.get(), np.where(t < 32, 496, 1520) + 1000 * np.where(t % 32 == 31, t, t + 1))


def test_arguments_must_have_the_type_of_the_kernel():
    code = 'extern "C" __global__ void f(const double* x, long long n, int m, double e) {}'
    x = cupy.zeros((4, 4))
    good = (x, 3, np.int32(2), 1.0)
    launched(code, *EMPTY, good)
    for k, bad in enumerate([cupy.zeros(3, dtype=cupy.int64), np.int32(3), 2, np.float32(1.0)]):
        with pytest.raises(TypeError, match=f"argument {k} "):
            launched(code, *EMPTY, (*good[:k], bad, *good[k + 1 :]))
    with pytest.raises(TypeError, match="contiguous"):
        launched(code, *EMPTY, (x[:, 1:], *good[1:]))
    with pytest.raises(TypeError, match="array of the device"):
        launched(code, *EMPTY, (np.zeros(3), *good[1:]))


def test_writes_outside_of_arrays_stop():
    code = 'extern "C" __global__ void f(double* x, int n) { x[n + (int)threadIdx.x] = 1.0; }'
    x = cupy.zeros(64)
    launched(code, *EMPTY, (x, np.int32(0)))
    assert x.get().all()
    for n in (-1, 1):
        with pytest.raises(RuntimeError, match="outside of its argument 0"):
            launched(code, *EMPTY, (x, np.int32(n)))


def test_impossible_launches_are_refused():
    code = 'extern "C" __global__ void f() {}'
    for grid, block, shared in [((0,), (32,), 0), ((1,), (1025,), 0), ((1, 65536), (32,), 0), ((1,), (32,), 50_000)]:
        with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
            launched(code, grid, block, (), shared_mem=shared)


def test_indefinite_matrix_raises_only_when_asked(cuda):
    from cupyx import errstate

    matrix = cuda.asarray([[1.0, 2.0], [2.0, 1.0]])
    cuda.linalg.cholesky(matrix)
    with pytest.raises(np.linalg.LinAlgError), errstate(linalg="raise"):
        cuda.linalg.cholesky(matrix)
