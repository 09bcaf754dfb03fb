# Runs in the environment's own interpreter: sources come in, marshalled code goes out. See compile.rs for the protocol.
import gc
import marshal
import sys
from _frozen_importlib_external import MAGIC_NUMBER


def main(read, write, flush):
    write(MAGIC_NUMBER)
    flush()
    while True:
        head = read(4)
        if len(head) < 4:
            return
        source = read(int.from_bytes(head, "little"))
        try:
            answer = b"\0" + marshal.dumps(compile(source, "<source>", "exec", dont_inherit=True))
        except SyntaxError as error:
            answer = b"\1" + f"{error.msg} (line {error.lineno})".encode("utf-8", "backslashreplace")
        except Exception as error:
            answer = b"\1" + f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace")
        write(len(answer).to_bytes(4, "little") + answer)
        flush()


gc.disable()  # compiling leaves no cycles behind
main(sys.stdin.buffer.read, sys.stdout.buffer.write, sys.stdout.buffer.flush)
