"""Kernels of every kind, built by hand: what fusion would make of small layers."""

from __future__ import annotations

from dataclasses import replace

from compiler.kernels.index import Axis, index, linear, row_major
from compiler.kernels.kernel import (
    Acc,
    Const,
    Expr,
    Guard,
    Guarded,
    Kernel,
    Load,
    Op,
    Parts,
    Position,
    Random,
    Reduce,
    Store,
    rebuild,
)

LEAST = -3.4028234663852886e38


def op(name: str, *args: Expr, dtype="f32", **attrs) -> Op:
    return Op(name, args, dtype, tuple(sorted(attrs.items())))


def axes(text: str, *sizes: int) -> list[Axis]:
    return [Axis(name, size) for name, size in zip(text.split(), sizes, strict=True)]


def at(*position, shape):
    return linear([index(i) for i in position], row_major(shape))


def inside(i, size: int) -> Guard:
    return Guard(index(i), 0, size)


def guards(*all_: Guard) -> tuple[Guard, ...]:
    return tuple(g for g in all_ if not g.always())


def conv_forward(n, h, w, ci, co, kernel, stride=1, pad=0, groups=1, bias=True) -> Kernel:
    """Channels last: data (n, h, w, ci), weight (kernel, kernel, ci / groups, co)."""
    oh, ow = ((s + 2 * pad - kernel) // stride + 1 for s in (h, w))
    cg, og = ci // groups, co // groups
    i, y, x, g, o = axes("n oh ow g co", n, oh, ow, groups, og)
    ky, kx, c = axes("kh kw ci", kernel, kernel, cg)
    iy, ix = (index(a) * stride + index(k) - pad for a, k in ((y, ky), (x, kx)))
    channel = index(g) * cg + index(c)
    data = Load(
        "data",
        at(i, iy, ix, channel, shape=(n, h, w, ci)),
        "f32",
        guards(inside(iy, h), inside(ix, w)),
    )
    out = index(g) * og + index(o)
    weight = Load("conv/weight", at(ky, kx, c, out, shape=(kernel, kernel, cg, co)), "f32")
    value: Expr = Acc(0, "f32")
    if bias:
        value = op("relu", op("add", value, Load("conv/bias", out, "f32")), slope=0.0)
    return Kernel(
        "conv",
        (i, y, x, g, o),
        (
            Reduce(0, "sum", (ky, kx, c), op("mul", data, weight), "f32"),
            Store("conv", at(i, y, x, out, shape=(n, oh, ow, co)), value, "f32"),
        ),
        ("conv", "relu"),
    )


def conv_data_gradient(n, h, w, ci, co, kernel, stride=1, pad=0) -> Kernel:
    oh, ow = ((s + 2 * pad - kernel) // stride + 1 for s in (h, w))
    i, y, x, c = axes("n h w ci", n, h, w, ci)
    ky, kx, o = axes("kh kw co", kernel, kernel, co)
    ups = [index(a) + pad - index(k) for a, k in ((y, ky), (x, kx))]
    places = [u // stride for u in ups]
    even = [Guard(u % stride, 0, 1) for u in ups] if stride > 1 else []
    load = Load(
        "conv.grad",
        at(i, *places, o, shape=(n, oh, ow, co)),
        "f32",
        guards(*even, inside(places[0], oh), inside(places[1], ow)),
    )
    weight = Load("conv/weight", at(ky, kx, c, o, shape=(kernel, kernel, ci, co)), "f32")
    return Kernel(
        "conv.data_gradient",
        (i, y, x, c),
        (
            Reduce(0, "sum", (ky, kx, o), op("mul", load, weight), "f32"),
            Store("data.grad", at(i, y, x, c, shape=(n, h, w, ci)), Acc(0, "f32"), "f32"),
        ),
        ("conv",),
    )


def conv_weight_gradient(n, h, w, ci, co, kernel, stride=1, pad=0) -> Kernel:
    oh, ow = ((s + 2 * pad - kernel) // stride + 1 for s in (h, w))
    ky, kx, c, o = axes("kh kw ci co", kernel, kernel, ci, co)
    i, y, x = axes("n oh ow", n, oh, ow)
    iy, ix = (index(a) * stride + index(k) - pad for a, k in ((y, ky), (x, kx)))
    data = Load(
        "data", at(i, iy, ix, c, shape=(n, h, w, ci)), "f32", guards(inside(iy, h), inside(ix, w))
    )
    gradient = Load("conv.grad", at(i, y, x, o, shape=(n, oh, ow, co)), "f32")
    place = at(ky, kx, c, o, shape=(kernel, kernel, ci, co))
    return Kernel(
        "conv.weight_gradient",
        (ky, kx, c, o),
        (
            Reduce(0, "sum", (i, y, x), op("mul", data, gradient), "f32"),
            Store("conv/weight.grad", place, Acc(0, "f32"), "f32"),
        ),
        ("conv",),
    )


def inner_product(m, n, k, transposed=False, batch=1) -> Kernel:
    b, i, j, c = axes("b i j k", batch, m, n, k)
    weight = at(b, j, c, shape=(batch, n, k)) if transposed else at(b, c, j, shape=(batch, k, n))
    x = Load("x", at(b, i, c, shape=(batch, m, k)), "f32")
    value = op("sigmoid", op("add", Acc(0, "f32"), Load("bias", index(j), "f32")))
    return Kernel(
        "ip",
        (b, i, j),
        (
            Reduce(0, "sum", (c,), op("mul", x, Load("w", weight, "f32")), "f32"),
            Store("ip", at(b, i, j, shape=(batch, m, n)), value, "f32"),
        ),
        ("ip",),
    )


def spread(kernel: Kernel, height, width) -> Kernel:
    """Returns a product with the gradient of a max pooling of the last two axes of its result."""
    y, x = axes("wh ww", height, width)
    (store,) = kernel.stores
    *outer, i, j = kernel.space
    shape = (*(a.size for a in outer), i.size * height, j.size * width)
    place = at(*outer, index(i) * height + index(y), index(j) * width + index(x), shape=shape)
    winner = op("equal", Load("where", store.offset, "u8"),
                Position(index(y) * width + index(x)), dtype="bool")  # fmt: skip
    value = op("select", winner, store.value, Const(0.0))
    return replace(
        kernel, body=(*kernel.reduces, store, Store("full", place, value, "f32", (y, x)))
    )


def _window(n, h, w, c, kernel, stride, pad):
    oh, ow = (-(-(s + 2 * pad - kernel) // stride) + 1 for s in (h, w))
    i, y, x, k = axes("n oh ow c", n, oh, ow, c)
    ky, kx = axes("kh kw", kernel, kernel)
    iy, ix = (index(a) * stride + index(b) - pad for a, b in ((y, ky), (x, kx)))
    place = at(i, iy, ix, k, shape=(n, h, w, c))
    out = at(i, y, x, k, shape=(n, oh, ow, c))
    return (i, y, x, k), (ky, kx), place, guards(inside(iy, h), inside(ix, w)), out


def max_pool(n, h, w, c, kernel, stride, pad=0) -> Kernel:
    space, window, place, inner, out = _window(n, h, w, c, kernel, stride, pad)
    load = Load("data", place, "f32", inner, LEAST)
    tap = at(*window, shape=(kernel, kernel))
    return Kernel(
        "pool",
        space,
        (
            Reduce(0, "max", window, load, "f32"),
            Reduce(1, "argmax", window, load, "i32", Position(tap)),
            Store("pool", out, Acc(0, "f32"), "f32"),
            Store("pool.at", out, Acc(1, "i32"), "u8"),
        ),
        ("pool",),
    )


def average_pool(n, h, w, c, kernel, stride, pad=0) -> Kernel:
    space, window, place, inner, out = _window(n, h, w, c, kernel, stride, pad)
    mean = op("mul", Acc(0, "f32"), Const(1 / kernel**2))
    return Kernel(
        "pool",
        space,
        (
            Reduce(0, "sum", window, Load("data", place, "f32", inner), "f32"),
            Store("pool", out, mean, "f32"),
        ),
        ("pool",),
    )


def unpool(n, h, w, c, kernel, stride, pad=0) -> Kernel:
    """The gradient of max_pool: every element gathers from the windows that it won."""
    oh, ow = (-(-(s + 2 * pad - kernel) // stride) + 1 for s in (h, w))
    i, y, x, k = axes("n h w c", n, h, w, c)
    ky, kx = axes("kh kw", kernel, kernel)
    ups = [index(a) + pad - index(b) for a, b in ((y, ky), (x, kx))]
    places = [u // stride for u in ups]
    even = [Guard(u % stride, 0, 1) for u in ups] if stride > 1 else []
    ok = guards(*even, inside(places[0], oh), inside(places[1], ow))
    place = at(i, *places, k, shape=(n, oh, ow, c))
    own = at(i, y, x, k, shape=(n, h, w, c))
    tap = Position(at(ky, kx, shape=(kernel, kernel)))
    won = op("equal", Load("pool.at", place, "u8", ok), tap, dtype="bool")
    value = op("select", won, Load("pool.grad", place, "f32", ok), Const(0.0))
    return Kernel(
        "pool.gradient",
        (i, y, x, k),
        (
            Reduce(0, "sum", (ky, kx), value, "f32"),
            Store("data.grad", own, Acc(0, "f32"), "f32"),
        ),
        ("pool",),
    )


def softmax(n, c) -> Kernel:
    """In place, and the index of the greatest."""
    i, k, k2, k3 = axes("n c c2 c3", n, c, c, c)
    load = Load("x", at(i, k, shape=(n, c)), "f32")
    load2 = Load("x", at(i, k2, shape=(n, c)), "f32")
    load3 = Load("x", at(i, k3, shape=(n, c)), "f32")
    top = Acc(0, "f32")
    return Kernel(
        "softmax",
        (i,),
        (
            Reduce(0, "max", (k,), load, "f32"),
            Reduce(2, "argmax", (k,), load, "i32", Position(index(k))),
            Reduce(1, "sum", (k2,), op("exp", op("sub", load2, top)), "f32"),
            Store("best", index(i), Acc(2, "i32"), "i32"),
            Store(
                "x",
                at(i, k3, shape=(n, c)),
                op("div", op("exp", op("sub", load3, top)), Acc(1, "f32")),
                "f32",
                (k3,),
            ),
        ),
        ("softmax",),
    )


def column_sums(n, c) -> Kernel:
    """A bias gradient and a sum of squares: points lie side by side, the sum does not."""
    k, i = axes("c n", c, n)
    x = Load("x", at(i, k, shape=(n, c)), "f32")
    return Kernel(
        "sums",
        (k,),
        (
            Reduce(0, "sum", (i,), x, "f32"),
            Reduce(1, "sum", (i,), op("mul", x, op("add", x, Const(1.0))), "f32"),
            Store("total", index(k), Acc(0, "f32"), "f32"),
            Store("squares", index(k), Acc(1, "f32"), "f32"),
        ),
    )


def total(n) -> Kernel:
    """One number of many: a loss."""
    (i,) = axes("i", n)
    x = Load("x", index(i), "f32")
    return Kernel(
        "loss",
        (),
        (
            Reduce(0, "sum", (i,), op("abs", x), "f32"),
            Reduce(1, "argmax", (i,), x, "i32", Position(index(i))),
            Store("loss", index(0), op("div", Acc(0, "f32"), Const(float(n))), "f32"),
            Store("best", index(0), Acc(1, "i32"), "i32"),
        ),
        ("loss",),
    )


def update(n) -> Kernel:
    """SGD with momentum over a flat arena, in place."""
    (i,) = axes("i", n)
    w, g, v = (Load(b, index(i), "f32") for b in ("params", "gradients", "momentum"))
    lr = Load("scalars", index(3), "f32")
    new = op("add", op("mul", Const(0.9), v), op("mul", lr, g))
    return Kernel(
        "update",
        (i,),
        (
            Store("params", index(i), op("sub", w, new), "f32"),
            Store("momentum", index(i), new, "f32"),
        ),
    )


def dropout(n) -> Kernel:
    (i,) = axes("i", n)
    keep = op("less", Random(0xDEADBEEF, index(i)), Const(0.5), dtype="bool")
    value = op("select", keep, op("mul", Load("x", index(i), "f32"), Const(2.0)), Const(0.0))
    return Kernel(
        "dropout",
        (i,),
        (Store("y", index(i), value, "f32"), Store("kept", index(i), keep, "bool")),
        ("drop",),
    )


def transposed_map(n, c, h) -> Kernel:
    """A map that reads another order, pads, and knows its position."""
    i, y, k = axes("n h c", n, h, c)
    x = Load("x", at(i, k, y, shape=(n, c, h)), "f32")
    shifted = Load(
        "x", at(i, k, index(y) - 1, shape=(n, c, h)), "f32", guards(inside(index(y) - 1, h))
    )
    value = op("sub", x, shifted)
    value = Guarded(guards(Guard(index(k), 1, c)), value, 7.0, "f32")
    step = op("cast", Position(index(y) * 2 + index(k)), dtype="f32")
    flag = op("cast", Load("mask", index(k), "bool"), dtype="f32")
    return Kernel(
        "map",
        (i, y, k),
        (Store("y", at(i, y, k, shape=(n, h, c)), op("add", op("mul", flag, value), step), "f32"),),
    )


def turn(n, rows, columns) -> Kernel:
    """A copy of matrices, transposed."""
    i, r, c = axes("n r c", n, rows, columns)
    x = Load("x", at(i, c, r, shape=(n, columns, rows)), "f32")
    return Kernel("turn", (i, r, c), (Store("y", at(i, r, c, shape=(n, rows, columns)), x, "f32"),))


def chain(n, name: str, **attrs) -> Kernel:
    """One scalar map of one source."""
    (i,) = axes("i", n)
    return Kernel(
        name, (i,), (Store("y", index(i), op(name, Load("x", index(i), "f32"), **attrs), "f32"),)
    )


def binary(n, name: str, constant: float | None = None, dtype="f32") -> Kernel:
    (i,) = axes("i", n)
    other = Load("z", index(i), "f32") if constant is None else Const(constant)
    value = op(name, Load("x", index(i), "f32"), other, dtype=dtype)
    return Kernel(name, (i,), (Store("y", index(i), value, dtype),))


def narrowed(kernel: Kernel) -> Kernel:
    """Returns the kernel with bf16 in place of f32 in all buffers, but for biases."""

    def visit(e: Expr) -> Expr | None:
        return replace(e, dtype="bf16") if isinstance(e, Load) and "bias" not in e.buffer else None

    def one(s):
        s = replace(s, value=rebuild(s.value, visit))
        return replace(s, dtype="bf16") if isinstance(s, Store) else s

    return replace(kernel, body=tuple(one(s) for s in kernel.body))


def in_parts(kernel: Kernel, count: int, cut: int = 0) -> Kernel:
    """Returns the kernel with its sums in so many parts of their axis of number `cut`."""
    return replace(kernel, parts=Parts(cut, count, f"{kernel.name}.parts"))


def every_kind() -> dict[str, Kernel]:
    """Returns a small kernel of each kind."""
    return {
        "conv": conv_forward(2, 7, 6, 3, 5, 3, 2, 1),
        "conv_grouped": conv_forward(1, 5, 5, 4, 6, 3, 1, 1, groups=2),
        "conv_depthwise": conv_forward(1, 5, 5, 4, 4, 3, 1, 1, groups=4, bias=False),
        "conv_deep": conv_forward(1, 4, 4, 32, 17, 3, 1, 1),
        "conv_data_gradient": conv_data_gradient(2, 7, 6, 3, 5, 3, 2, 1),
        "conv_weight_gradient": conv_weight_gradient(2, 6, 5, 3, 4, 3, 1, 1),
        "inner_product": inner_product(7, 10, 33),
        "inner_product_transposed": inner_product(7, 10, 64, transposed=True),
        "inner_product_batch": inner_product(3, 4, 5, batch=2),
        "vector_product": inner_product(1, 10, 70),
        "max_pool": max_pool(2, 7, 7, 3, 3, 2),
        "average_pool": average_pool(1, 6, 6, 3, 3, 2, 1),
        "unpool": unpool(1, 6, 6, 3, 3, 2),
        "softmax": softmax(5, 11),
        "softmax_wide": softmax(2, 9000),
        "column_sums": column_sums(150, 7),
        "total": total(20000),
        "update": update(1300),
        "dropout": dropout(300),
        "map": transposed_map(2, 5, 9),
    }
