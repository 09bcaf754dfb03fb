SKIPPED = {"co_filename", "co_lnotab", "co_lines", "co_positions", "co_branches"}
FIELDS = [name for name in dir(types.CodeType) if name.startswith("co_") and name not in SKIPPED]


def compare(old, new, path):
    assert type(old) is type(new), (path, old, new)
    if isinstance(old, types.CodeType):
        assert new.co_filename == sys.argv[1], (path, new.co_filename)
        for field in FIELDS:
            compare(getattr(old, field), getattr(new, field), path + [field])
        assert list(old.co_lines()) == list(new.co_lines()) if hasattr(old, "co_lines") else True
    elif isinstance(old, tuple):
        assert len(old) == len(new), path
        for index, (a, b) in enumerate(zip(old, new)):
            compare(a, b, path + [index])
    elif isinstance(old, frozenset):
        order = lambda item: (str(type(item)), repr(item))
        compare(tuple(sorted(old, key=order)), tuple(sorted(new, key=order)), path + ["set"])
    elif isinstance(old, slice):
        compare((old.start, old.stop, old.step), (new.start, new.stop, new.step), path + ["slice"])
    else:
        assert repr(old) == repr(new), (path, old, new)


codes = [marshal.loads(chunk) for chunk in read()]
half = len(codes) // 2
for index, (old, new) in enumerate(zip(codes[:half], codes[half:])):
    compare(old, new, [index])
print(half, "equal")
