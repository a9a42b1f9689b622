#!/usr/bin/env python3
"""Compresses data files by gzip, the same bytes on every machine with the same zlib: no name and no date inside.

    python3 data/pack.py data/mbpp/mbpp_matched.jsonl ...     writes mbpp_matched.jsonl.gz next to each, prints SHA-256

The READMEs name the SHA-256 of the unpacked file, which does not depend on the compressor.
"""
import gzip
import hashlib
import sys
from pathlib import Path

for name in sys.argv[1:]:
    plain = Path(name).read_bytes()
    packed = gzip.compress(plain, compresslevel=9, mtime=0)
    Path(name + ".gz").write_bytes(packed)
    print(f"{name}: {len(plain)} -> {len(packed)} bytes, unpacked SHA-256 {hashlib.sha256(plain).hexdigest()}")
