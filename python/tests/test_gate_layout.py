"""The page is laid out as the program lays it out: neither may move alone."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import struct
import time
from typing import Dict, List, Tuple

from bubblebench import gate
from bubblebench.gate import page
from bubblebench.gate.page import Words
from bubblebench.gate.process import ProcessId, time_namespace

from . import program
from .gates import GateCase, told

SOURCE = program.ROOT / "src/corun/gate/page.rs"


def fields() -> Dict[str, Tuple[int, int]]:
    """Offset and size of each of Python's fields."""
    named = [field[0] for field in Words._fields_ if not field[0].startswith("_")]
    return {name: (getattr(Words, name).offset, getattr(Words, name).size) for name in named}


def table(text: str) -> List[str]:
    """The rows of the layout's table."""
    return [line for line in text.splitlines() if line.startswith("|")]


class Layout(GateCase):
    """Every word, in both directions."""

    def setUp(self) -> None:
        super().setUp()
        if not SOURCE.exists():
            self.skipTest(f"{SOURCE} is not there: set BUBBLEBENCH_ROOT")
        self.source = SOURCE.read_text(encoding="utf-8")

    def test_the_table_in_python_is_the_one_in_rust(self) -> None:
        ours = table(page.__doc__ or "")
        self.assertEqual(ours, table(self.source.replace("//! ", "")))
        # Each row begins where a field does, and the fields up to the next row lie one behind the other.
        starts = [int(row.split("|")[1]) for row in ours[2:]]
        self.assertGreater(len(starts), 10)
        ours_at = dict(fields().values())
        for start, end in zip(starts, starts[1:] + [page.PAGE_BYTES]):
            inside = sorted(at for at in ours_at if start <= at < end)
            self.assertEqual(inside[:1], [start])
            for one, other in zip(inside, inside[1:]):
                self.assertEqual(one + ours_at[one], other)

    def test_the_words_of_rust_stand_where_pythons_do(self) -> None:
        # The list by which the program's own test holds its layout against the bytes on disk.
        listed = re.findall(r"\((\d+), Word::(\w+)\)", self.source)
        self.assertEqual(len(listed), 29)
        for at, name in listed:
            snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
            with self.subTest(word=name):
                self.assertEqual(getattr(Words, snake).offset, int(at))
                self.assertEqual(getattr(Words, snake).size, 4 if name == "Futex" or name.startswith("Device") else 8)
        ours = {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for _, name in listed}
        header = {"magic", "version", "bytes", "main_pid", "main_started", "main_namespace", "time_namespace"}
        rest = {"side_started", "side_namespace", "device_memory_mib", "device_bubble"}
        self.assertEqual(set(fields()), ours | header | rest)

    def test_every_word_that_python_writes_lies_at_its_bytes(self) -> None:
        main = gate.Main(self.path)
        own = ProcessId.own()
        before = (self.folder / "gate").read_bytes()
        self.assertEqual((self.folder / "gate").stat().st_mode & 0o777, 0o600)
        self.assertEqual(before[:16], b"BBGATE01" + struct.pack("<II", 2, 4096))
        self.assertEqual(
            struct.unpack_from("<QQQQ", before, 16), (own.pid, own.started, own.namespace, time_namespace())
        )
        self.assertEqual(struct.unpack_from("<Q", before, 200)[0], gate.MARGIN_NS)
        written = {}
        for name, (at, size) in fields().items():
            if at >= 48:
                written[name] = at + 0x0102_0304 * (2**32 if size == 8 else 1)
                setattr(main._words, name, written[name])
        bytes_now = bytearray((self.folder / "gate").read_bytes())
        for name, value in written.items():
            at, size = fields()[name]
            self.assertEqual(int.from_bytes(bytes_now[at : at + size], "little"), value, name)
            bytes_now[at : at + size] = bytes(size)
        self.assertEqual(bytes(bytes_now[48:]), bytes(4096 - 48), "nothing but words is written")

    def test_every_word_that_others_write_is_read(self) -> None:
        main = gate.Main(self.path)
        with open(self.path, "r+b") as file, mmap.mmap(file.fileno(), 4096) as live:
            for number, (name, (at, size)) in enumerate(fields().items()):
                value = (number + 1) * 0x0101_0101 * (0x1_0000_0001 if size == 8 else 1)
                live[at : at + size] = value.to_bytes(size, "little")
                self.assertEqual(getattr(main._words, name), value, name)
            live[:16] = b"BBGATE01" + struct.pack("<II", 2, 4096)
            seen, fd = page.look_on(self.path)
            os.close(fd)
            self.assertEqual(bytes(seen.words), bytes(main._words))
            self.assertEqual(ctypes.sizeof(seen.words), 4096)

    def test_the_program_reads_what_python_wrote(self) -> None:
        if not program.program().exists():
            self.skipTest(f"{program.program()} is not there: build it with cargo, or set BUBBLEBENCH")
        main = gate.Main(self.path)
        words, own = main._words, ProcessId.own()
        names = ["bubble", "openings", "closings", "operations", "self_stops", "open_ns", "work_ns", "side_generation"]
        for number, name in enumerate(names, 1001):
            setattr(words, name, number)
        words.side_pid, words.side_started, words.side_namespace = own.pid, own.started, own.namespace
        words.state, words.closed_at, words.stopped_at, words.started = 41 << 2, 500_000, 507_000, 40
        words.stopped = (1008 & 0xFFFF) << 48 | 41
        seen = json.loads(told(program.program(), self.path).stdout)
        expected = dict(zip(names, range(1001, 1009)))
        expected["sides"] = expected.pop("side_generation")
        self.assertEqual({name: seen[name] for name in expected}, expected)
        self.assertEqual((seen["state"], seen["stop_latency_ns"]), ("stopped", 7_000))
        self.assertEqual((seen["main_pid"], seen["side_pid"]), (os.getpid(), os.getpid()))
        self.assertEqual(gate.status(self.path), seen)
        # A device's gate has its numbers elsewhere.
        main.hand_to_device()
        words.device_open, words.device_generation, words.device_bubble = 1, 2001, 2002
        seen = json.loads(told(program.program(), self.path).stdout)
        self.assertEqual((seen["by_device"], seen["open"], seen["openings"], seen["bubble"]), (True, True, 2001, 2002))
        self.assertEqual(gate.status(self.path), seen)
        # Times of an opening, which go on.
        words.driver, words.state = 0, 42 << 2 | 1
        words.opened_at = time.monotonic_ns()
        words.expected_close = words.opened_at + 10**15
        ours, theirs = gate.status(self.path), json.loads(told(program.program(), self.path).stdout)
        self.assertLess(0, ours["left_ns"] - theirs["left_ns"])
        self.assertLess(ours["open_ns"], theirs["open_ns"])
        self.assertLess(theirs["left_ns"], 10**15)
        for record in (ours, theirs):
            del record["left_ns"], record["open_ns"]
        self.assertEqual(ours, theirs)
