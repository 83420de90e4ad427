"""DEFLATE (RFC 1951) for noise: Huffman codes without a search for repeats, packed by columns.

zlib spends a millisecond on the bytes of a 224 x 224 image even where it is told to search for
nothing, one byte after the other. Here four bytes at a time are looked up, joined and put into
place by NumPy, in 0.4 ms. Any inflater reads the result.

One code serves many images: to make it takes as long as to use it. It is a few percent longer
than a code of each image's own.
"""

from __future__ import annotations

import heapq
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.draws import U64

Bytes = npt.NDArray[np.uint8]

_END = 256  # the symbol after the last byte
_MAX_BITS = 15  # of a code, by the format; so four codes fit into a word
_LENGTH_BITS = 6  # of a table's entry: the number of bits; above them the bits
_LENGTH_MASK = np.uint64((1 << _LENGTH_BITS) - 1)


@dataclass(frozen=True)
class LiteralCode:
    """A Huffman code of bytes.

    Attributes:
        pairs: for each two bytes, as a little-endian number: bits of both, and how many, (65536,).
        single: the same for each byte and, last, for the end, (257,).
        header: what tells the code to an inflater, as one number.
        header_bits: its length.
    """

    pairs: U64
    single: U64
    header: int
    header_bits: int

    @classmethod
    def of(cls, sample: Bytes) -> LiteralCode:
        """Return a code that suits bytes like those of a sample, and can express any."""
        counts = np.bincount(sample.reshape(-1), minlength=256) + 1
        lengths = code_lengths([*counts.tolist(), 1])
        codes = _reversed_codes(lengths)
        bits = np.array(codes, np.uint64)
        count = np.array(lengths, np.uint64)
        first, second = np.s_[None, :256], np.s_[:256, None]
        both = bits[first] | bits[second] << count[first]
        pairs = both << np.uint64(_LENGTH_BITS) | count[first] + count[second]
        header, header_bits = _header(lengths)
        single = bits << np.uint64(_LENGTH_BITS) | count
        return cls(pairs.reshape(-1), single, header, header_bits)


def compress(data: Bytes, code: LiteralCode) -> bytes:
    """Return bytes (n,) as a zlib stream."""
    quads = data.size // 4
    numbers = data[: 4 * quads].view("<u2")
    first, second = (code.pairs.take(numbers[half::2], mode="wrap") for half in (0, 1))
    length = first & _LENGTH_MASK
    value = first >> np.uint64(_LENGTH_BITS) | second >> np.uint64(_LENGTH_BITS) << length
    length += second & _LENGTH_MASK
    stop = np.cumsum(length) + np.uint64(code.header_bits)
    start = stop - length
    word, shift = (start >> np.uint64(6)).astype(np.intp), start & np.uint64(63)

    tail, tail_bits = 0, 0
    for symbol in (*data[4 * quads :].tolist(), _END):
        entry = int(code.single[symbol])
        tail |= entry >> _LENGTH_BITS << tail_bits
        tail_bits += entry & int(_LENGTH_MASK)
    at = int(stop[-1]) if quads else code.header_bits
    bits = at + tail_bits

    words = np.zeros(bits // 64 + 3, "<u8")
    # No two codes share a bit, so adding is joining. The upper part goes into the next word; the
    # shift is done in two steps, as one of 64 bits is undefined.
    np.add.at(words, word, value << shift)
    np.add.at(words, word + 1, value >> np.uint64(1) >> (np.uint64(63) - shift))
    for part, place in ((code.header, 0), (tail, at)):
        whole = part << (place % 64)
        for i in range(-(-whole.bit_length() // 64)):
            words[place // 64 + i] += np.uint64(whole >> (64 * i) & 0xFFFF_FFFF_FFFF_FFFF)
    body = words.view(np.uint8)[: -(-bits // 8)].tobytes()
    return b"".join((b"\x78\x01", body, struct.pack(">I", zlib.adler32(data.data))))


def code_lengths(counts: Sequence[int]) -> list[int]:
    """Return the bits of each symbol in a Huffman code, at most 15.

    Args:
        counts: of each symbol, above 0; at least two of them.
    """
    while True:
        heap = [(count, node) for node, count in enumerate(counts)]
        heapq.heapify(heap)
        parent = [0] * (2 * len(counts) - 1)
        for node in range(len(counts), len(parent)):
            (a, left), (b, right) = heapq.heappop(heap), heap[0]
            parent[left] = parent[right] = node
            heapq.heapreplace(heap, (a + b, node))
        depth = [0] * len(parent)
        for node in range(len(parent) - 2, -1, -1):  # a parent comes after its children
            depth[node] = depth[parent[node]] + 1
        lengths = depth[: len(counts)]
        if max(lengths) <= _MAX_BITS:
            return lengths
        counts = [count // 2 + 1 for count in counts]  # flatter, until no code is too long


def _reversed_codes(lengths: Sequence[int]) -> list[int]:
    """Return the canonical code of each symbol, first bit lowest."""
    codes = [0] * len(lengths)
    code, before = 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths)):
        code <<= length - before
        codes[symbol] = int(f"{code:0{length}b}"[::-1], 2)
        code, before = code + 1, length
    return codes


def _header(lengths: Sequence[int]) -> tuple[int, int]:
    """Return the header of one last block with these codes of 256 bytes and the end."""
    fields = [(1, 1), (2, 2)]  # the last block; with codes of its own
    fields += [(0, 5), (1, 5), (15, 4)]  # 257 literals, 2 distances, 19 lengths of lengths
    # Lengths 0 to 15 are written in 4 bits each, so all 16 are given a code of 4 bits. The first
    # three places, of 19, are those of repeats, which are not used.
    fields += [(0, 3)] * 3 + [(4, 3)] * 16
    # No distance is ever used; two codes of one bit, since some inflaters reject fewer.
    for length in (*lengths, 1, 1):
        fields.append((int(f"{length:04b}"[::-1], 2), 4))
    number, bits = 0, 0
    for value, width in fields:
        number |= value << bits
        bits += width
    return number, bits
