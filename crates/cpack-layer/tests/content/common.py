import marshal, os, struct, sys, types

AWKWARD = [
    b"",
    b"x = 1\n",
    b"'doc'\n",
    "été = 'é'; ß = 'ÿ'; z = '\\ud800 lone'; 数 = '数' * 3\n".encode(),
    "# -*- coding: latin-1 -*-\ns = 'é'\n".encode("latin-1"),
    b"a = (1, -1, 2**31, -2**31, 2**70, -2**70, 0.0, -0.0, 1e400, 1j, -0j, b'', b'x', '', ' ', 'x', ..., None)\n",
    b"s = '" + b"long " * 100 + b"'\nt = ' " + b"x" * 300 + b"'\n",
    b"def f(x): return x in {'a', 'b', 1, 1.5, (1, 'a'), b'z', None}\ndef g(x): return x in {'b', 'a', ('a', 2)}\n",
    b"def f(x): return x in {('a', frozenset), 'q'} or x in {True, 0, 'zz', 'yy'}\n",
    b"c = '/home/a/m.py'\nd = 'lib/python3/site-packages/pkg/mod.py'\n",
    b"class C:\n    class D:\n        def f(self): return 'C.D.f', 'C.D', 'C'\n    n = 'C.D.f.<locals>.<lambda>'\n",
    b"def f(a, b=1, *c, d, e=2, **g):\n    def h(): return a, lambda: (b, [a for a in c], {d: e for _ in g})\n    return h\n",
    b"async def f():\n    async with a as b:\n        return [x async for x in b if await x]\n",
    b"x = y[1:2], y[::], y[1:None:3], y[1:2, ...]\n",
    b"try:\n    import a.b.c as d\nexcept (ImportError, OSError) as e:\n    raise RuntimeError(f'{e!r:>10} {d=}') from e\n",
    b"".join(b"v%d = %d\n" % (i, i) for i in range(1000)) + b"t = (" + b"1, " * 300 + b")\n",
    b"def deep(): return " + b"(" * 80 + b"1," + b")" * 80 + b"\n",
    b"f = " + b"lambda: " * 60 + b"0\n",
]


def sources():
    library = os.path.dirname(os.__file__)
    # Debian packs the standard library's own tests apart.
    grammar = [name for name in ["test/test_grammar.py"] if os.path.exists(os.path.join(library, name))]
    names = sorted(os.listdir(library))[::5] + grammar
    for name in [name for name in names if name.endswith(".py")]:
        with open(os.path.join(library, name), "rb") as file:
            yield name, file.read()
    yield from ((f"awkward_{i}.py", source) for i, source in enumerate(AWKWARD))


def write(chunk):
    sys.stdout.buffer.write(struct.pack("<I", len(chunk)) + chunk)


def read():
    data = sys.stdin.buffer.read()
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        yield data[at + 4 : at + 4 + length]
        at += 4 + length
