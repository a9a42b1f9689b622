# Standard streams of code whose calls are judged by what they return: what is written is dropped, and
# there is nothing to read.
import io


class Nowhere(io.TextIOBase):
    """Takes text and keeps none; reading from it is an error, as of a stream without a reader."""

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError("write() argument must be str")
        return len(text)

    def writable(self):
        return True

    def read(self, size=-1):
        raise OSError("there is no standard input")

    readline = readlines = __next__ = read


def quiet():
    sys.stdin = sys.stdout = sys.stderr = Nowhere()
