"""Eight float64 at once for the compiled loops: a numba type on which + and * act lane by lane, never left to a guess of the compiler.

LLVM writes it in the widest registers there are: one of AVX-512, two of AVX, four of SSE or NEON. Arrays are C-ordered float64 of any shape
and addressed by their flat index; nothing is checked.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

#: Lanes of a vector.
WIDTH = 8

_double, _lanes = ir.DoubleType(), ir.VectorType(ir.DoubleType(), WIDTH)


class Vector(types.Type):
    """Numba's type of `WIDTH` lanes of float64."""

    def __init__(self):
        super().__init__(name="Vector")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _lanes)


vector = Vector()


def _arithmetic(symbol, instruction: str) -> None:
    """Let ``symbol`` act on two vectors, or on a vector and a number, as LLVM's ``instruction``."""

    @type_callable(symbol)
    def typed(context):
        def result(a, b):
            if vector in (a, b) and all(x == vector or x == types.float64 for x in (a, b)):
                return vector

        return result

    def lowered(context, builder, signature, arguments):
        a, b = (v if t == vector else _spread(builder, v) for t, v in zip(signature.args, arguments, strict=True))
        return getattr(builder, instruction)(a, b)

    for left, right in ((Vector, Vector), (Vector, types.Float), (types.Float, Vector)):
        lower_builtin(symbol, left, right)(lowered)


def _spread(builder, number):
    lanes = builder.insert_element(ir.Constant(_lanes, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(lanes, lanes, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH))


for _symbol, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _arithmetic(_symbol, _instruction)
    _arithmetic(getattr(operator, f"i{_symbol.__name__}"), _instruction)


def _address(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _lanes.as_pointer())


def _mask(builder, count):
    """Lanes below ``count``."""
    lanes = ir.VectorType(ir.IntType(64), WIDTH)
    first = builder.insert_element(ir.Constant(lanes, ir.Undefined), count, ir.Constant(ir.IntType(32), 0))
    counts = builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH))
    return builder.icmp_signed("<", ir.Constant(lanes, list(range(WIDTH))), counts)


def _require_c_order(array) -> None:
    if not (isinstance(array, types.Array) and array.dtype == types.float64 and array.layout == "C"):
        raise TypingError(f"expected a C-ordered array of float64, received {array}")


@intrinsic
def broadcast(typingctx, number):
    """The same number in every lane."""

    def codegen(context, builder, signature, arguments):
        return _spread(builder, arguments[0])

    return vector(types.float64), codegen


@intrinsic
def load(typingctx, array, index):
    """Lanes array[index : index + WIDTH]."""
    _require_c_order(array)

    def codegen(context, builder, signature, arguments):
        return builder.load(_address(context, builder, signature.args[0], *arguments), align=8)

    return vector(array, types.intp), codegen


@intrinsic
def store(typingctx, array, index, value):
    """array[index : index + WIDTH] = lanes."""
    _require_c_order(array)

    def codegen(context, builder, signature, arguments):
        array, index, value = arguments
        builder.store(value, _address(context, builder, signature.args[0], array, index), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


@intrinsic
def load_part(typingctx, array, index, count):
    """Lanes array[index : index + count]; zero from ``count`` on, where memory is not read."""
    _require_c_order(array)

    def codegen(context, builder, signature, arguments):
        array, index, count = arguments
        pointer, mask = _address(context, builder, signature.args[0], array, index), _mask(builder, count)
        kind = ir.FunctionType(_lanes, [pointer.type, ir.IntType(32), mask.type, _lanes])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.load.v{WIDTH}f64.p0")
        return builder.call(function, [pointer, ir.Constant(ir.IntType(32), 8), mask, ir.Constant(_lanes, [0.0] * WIDTH)])

    return vector(array, types.intp, types.intp), codegen


@intrinsic
def store_part(typingctx, array, index, value, count):
    """array[index : index + count] = the first ``count`` lanes."""
    _require_c_order(array)

    def codegen(context, builder, signature, arguments):
        array, index, value, count = arguments
        pointer, mask = _address(context, builder, signature.args[0], array, index), _mask(builder, count)
        kind = ir.FunctionType(ir.VoidType(), [_lanes, pointer.type, ir.IntType(32), mask.type])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.store.v{WIDTH}f64.p0")
        builder.call(function, [value, pointer, ir.Constant(ir.IntType(32), 8), mask])
        return context.get_dummy_value()

    return types.void(array, types.intp, vector, types.intp), codegen


@intrinsic
def store_transposed(typingctx, array, index, stride, out, place):
    """out[place + WIDTH·e + v] = array[index + stride·v + e] for all v, e below WIDTH: what lies in rows goes side by side."""
    _require_c_order(array)
    _require_c_order(out)

    def codegen(context, builder, signature, arguments):
        array, index, stride, out, place = arguments
        rows = []
        for v in range(WIDTH):
            at = builder.add(index, builder.mul(stride, ir.Constant(stride.type, v)))
            rows.append(builder.load(_address(context, builder, signature.args[0], array, at), align=8))
        half = WIDTH // 2
        while half:
            # Blocks of half × half lanes of rows v and v + half change places.
            low = [(e // half % 2) * (WIDTH - half) + e for e in range(WIDTH)]
            masks = [ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), mask) for mask in (low, [e + half for e in low])]
            for v in (v for v in range(WIDTH) if not v & half):
                rows[v], rows[v + half] = (builder.shuffle_vector(rows[v], rows[v + half], mask) for mask in masks)
            half //= 2
        for e, lanes in enumerate(rows):
            at = builder.add(place, ir.Constant(place.type, WIDTH * e))
            builder.store(lanes, _address(context, builder, signature.args[3], out, at), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, out, types.intp), codegen


@intrinsic
def total(typingctx, value):
    """Sum of the lanes."""

    def codegen(context, builder, signature, arguments):
        (lanes,) = arguments
        for width in (4, 2, 1):
            halves = [ir.Constant(ir.VectorType(ir.IntType(32), width), [k + s for k in range(width)]) for s in (0, width)]
            low, high = (builder.shuffle_vector(lanes, lanes, half) for half in halves)
            lanes = builder.fadd(low, high)
        return builder.extract_element(lanes, ir.Constant(ir.IntType(32), 0))

    return types.float64(vector), codegen
