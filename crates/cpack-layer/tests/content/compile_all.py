mode, root = sys.argv[1:]
work = list(sources())
if mode == "rich":
    # What a process has interned and shares changes the bytes that marshal writes.
    import argparse, asyncio, ctypes, decimal, email.message, json, logging.config, unittest, xml.dom.minidom

    names = [sys.intern(chr(i)) for i in range(256)] + [sys.intern("C.D.f.<locals>.<lambda>")]
    work.reverse()
codes = {}
for name, source in work:
    try:
        codes[name] = marshal.dumps(compile(source, os.path.join(root, name), "exec", dont_inherit=True))
    except SyntaxError:
        pass  # the standard library's tests hold some on purpose
for name in sorted(codes):
    write(codes[name])
