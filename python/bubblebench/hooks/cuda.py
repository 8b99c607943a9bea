"""Waits that only order a GPU's streams, as NCCL's do: the host's call returns at once, and the stream waits later.

So a wait's length is that between two events of the stream, and the gate is opened and closed by writes to its device line
(docs/gate.md) that the stream makes as it comes to them: `cuStreamWriteValue32` on the page, which the driver has
registered. The host never waits for either.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import time
from typing import Any, Callable, Dict, List, Protocol, Tuple

from .errors import HookError

_PAGE_BYTES = 4096
#: Where the device line lies in the page.
_LINE = 1024
#: Its words of 4 bytes: open 0/1, generation, expected length in µs, bubble id.
_OPEN, _GENERATION, _EXPECTED, _BUBBLE = 0, 1, 2, 4
_MOST = 2**32 - 1
#: Usable from every context, and mapped into the device's addresses.
_PORTABLE_AND_MAPPED = 3

#: What each entry of the driver is called, the newest first, and its parameters.
_ENTRIES: Dict[str, Tuple[Tuple[str, ...], Tuple[Any, ...]]] = {
    "register": (("cuMemHostRegister_v2",), (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)),
    "pointer": (
        ("cuMemHostGetDevicePointer_v2",),
        (ctypes.POINTER(ctypes.c_uint64), ctypes.c_void_p, ctypes.c_uint),
    ),
    "unregister": (("cuMemHostUnregister",), (ctypes.c_void_p,)),
    "write": (
        ("cuStreamWriteValue32_v2", "cuStreamWriteValue32"),
        (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint),
    ),
    "name": (("cuGetErrorName",), (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p))),
}
_CURE = "use a driver with stream memory operations (11.7 or later), or leave gate= out: the hook then records only"


class Stream(Protocol):
    """What the hook asks of a framework's stream."""

    def mark(self) -> Any:
        """A mark behind all that the stream has been given."""

    def is_over(self, mark: Any) -> bool:
        """Whether the stream has passed the mark; does not wait."""

    def between_ns(self, first: Any, second: Any) -> int:
        """Nanoseconds between two marks that the stream has passed; negative where the second came first."""

    def synchronize(self) -> None:
        """Waits for all that the stream has been given."""

    def handle(self) -> int:
        """The driver's handle."""

    def is_recorded(self) -> bool:
        """Whether what it is given goes into a graph, and is not run now."""


class CurrentStream:
    """torch's current stream of the current CUDA device."""

    def __init__(self) -> None:
        self._cuda: Any = importlib.import_module("torch").cuda

    def mark(self) -> Any:
        """An event."""
        event = self._cuda.Event(enable_timing=True)
        event.record()
        return event

    def is_over(self, mark: Any) -> bool:
        """Asks the event."""
        return bool(mark.query())

    def between_ns(self, first: Any, second: Any) -> int:
        """Of two events; the driver tells it in milliseconds, to half a microsecond."""
        return int(1e6 * first.elapsed_time(second))

    def synchronize(self) -> None:
        """Of the stream, not of the device."""
        self._cuda.current_stream().synchronize()

    def handle(self) -> int:
        """0 is the default stream."""
        return int(self._cuda.current_stream().cuda_stream)

    def is_recorded(self) -> bool:
        """CUDA graphs."""
        return bool(self._cuda.is_current_stream_capturing())


class Clock:
    """Marks of a stream as times of the host's ``time.monotonic_ns()``.

    The two are held against each other once; from then on the device's clock counts.

    :param stream: The stream, which is waited for once.
    :param now_ns: The host's clock.
    """

    def __init__(self, stream: Stream, now_ns: Callable[[], int]) -> None:
        self._stream = stream
        self._mark = stream.mark()
        stream.synchronize()
        self._ns = now_ns()

    def ns(self, mark: Any) -> int:
        """When the stream passed the mark."""
        return self._ns + self._stream.between_ns(self._mark, mark)

    def move(self, mark: Any) -> None:
        """Counts from this mark on: the driver's distances are 32-bit floats, and lose their digits as they grow."""
        self._ns, self._mark = self.ns(mark), mark


class Driver(Protocol):
    """What the device line asks of a driver."""

    def register(self, address: int, size: int) -> int:
        """Makes memory of the host's writable for streams; its address for them."""

    def unregister(self, address: int) -> None:
        """Takes that back."""

    def write(self, stream: int, pointer: int, value: int) -> None:
        """Writes a word of 32 bits when the stream comes to it, behind all writes before."""


class CudaDriver:
    """The CUDA driver's library, as far as the device line needs it.

    :param library: Its name.
    """

    def __init__(self, library: str = "libcuda.so.1") -> None:
        try:
            loaded = ctypes.CDLL(library)
        except OSError as error:
            raise HookError(f"the CUDA driver cannot be loaded: {error}", _CURE) from None
        self._entries = {}
        for use, (names, parameters) in _ENTRIES.items():
            found = next((getattr(loaded, name) for name in names if hasattr(loaded, name)), None)
            if found is None:
                raise HookError(f"the CUDA driver {library} has no {names[0]}", _CURE)
            found.argtypes, found.restype = parameters, ctypes.c_int
            self._entries[use] = (names[0], found)

    def _call(self, use: str, *arguments: Any) -> None:
        name, entry = self._entries[use]
        result = int(entry(*arguments))
        if result:
            text = ctypes.c_char_p()
            self._entries["name"][1](result, ctypes.byref(text))
            raise HookError(f"{name} said {(text.value or b'?').decode()} ({result})", _CURE)

    def register(self, address: int, size: int) -> int:
        """Registers pages of the host's."""
        pointer = ctypes.c_uint64()
        self._call("register", address, size, _PORTABLE_AND_MAPPED)
        try:
            self._call("pointer", ctypes.byref(pointer), address, 0)
        except HookError:
            self.unregister(address)
            raise
        return pointer.value

    def unregister(self, address: int) -> None:
        """Takes that back."""
        self._call("unregister", address)

    def write(self, stream: int, pointer: int, value: int) -> None:
        """Behind a barrier, as the driver does by default: data written before is there first."""
        self._call("write", stream, pointer, value, 0)


class DeviceLine:
    """A gate that streams open and close.

    :param gate: The main's end, which is handed to the device here: ``hand_to_device`` tells where its line is.
    :param driver: The driver.
    :param stream: The stream to write in.
    """

    def __init__(self, gate: Any, driver: Driver, stream: Stream) -> None:
        self._driver, self._stream, self._gate = driver, stream, gate
        self._page = int(gate.hand_to_device()) - _LINE
        self._pointer = driver.register(self._page, _PAGE_BYTES) + _LINE
        self._generation = 0
        #: Behind the last writes in each stream.
        self._behind: Dict[int, Any] = {}

    def open(self, expected_ns: int) -> None:
        """Opens once the stream comes to it: data first, ``open`` last."""
        self._generation = self._generation % _MOST + 1
        self._write(_GENERATION, self._generation)
        self._write(_EXPECTED, min(expected_ns // 1000, _MOST))
        self._write(_BUBBLE, self._generation)
        self._write(_OPEN, 1)

    def close(self) -> None:
        """Closes once the stream comes to it."""
        self._write(_OPEN, 0)
        self._behind[self._stream.handle()] = self._stream.mark()

    def release(self, limit_s: float = 2.0) -> None:
        """Closes, waits until no stream is left that would write to the page, and gives it back.

        A stream that waits for a peer which is gone comes to no end. It is left alone after ``limit_s`` seconds, and the page is kept.
        """
        with contextlib.suppress(Exception):
            self.close()
        # Until it is known that nothing writes to it any more.
        _kept.append(self)
        end = time.monotonic() + limit_s
        while not all(self._stream.is_over(mark) for mark in self._behind.values()):
            if time.monotonic() > end:
                return
            time.sleep(0.0005)
        self._driver.unregister(self._page)
        _kept.remove(self)

    def _write(self, word: int, value: int) -> None:
        self._driver.write(self._stream.handle(), self._pointer + 4 * word, value)


#: Lines whose pages a stream may still write to: with them the pages live as long as the process.
_kept: List[DeviceLine] = []


def drives_streams(distributed: Any) -> bool:
    """Whether the messages of ``torch.distributed``'s default group are NCCL's; not before there is one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return False
    # A group of several backends, as one that was given none, uses NCCL where there is a GPU.
    backends = getattr(distributed, "get_backend_config", distributed.get_backend)()
    return "nccl" in str(backends).lower() and bool(importlib.import_module("torch").cuda.is_available())
