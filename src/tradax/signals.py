"""Ctrl-C and SIGTERM: the first ends training in order, the second ends the program at once."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Which signal asked to stop; 0 while none has."""

    def __init__(self):
        self.signal = 0


@contextlib.contextmanager
def heard() -> Iterator[Stop]:
    """The first signal is noted, so that the chunk ends; the second is for whoever had it before.

    Outside the main thread Python hears no signals, and nothing is noted.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {}

    def on_signal(number, frame):
        stop.signal = number
        restore()

    def restore():
        for number, handler in previous.items():
            signal.signal(number, handler)

    for number in _STOPPING:
        previous[number] = signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        restore()


@contextlib.contextmanager
def later() -> Iterator[None]:
    """Ctrl-C is heard when the block is over, by whoever had it before.

    Outside the main thread Python hears no signals, and nothing changes.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    came = []
    signal.signal(signal.SIGINT, lambda *given: came.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if came:
        previous(*came[-1])


@contextlib.contextmanager
def interrupts() -> Iterator[None]:
    """Both raise KeyboardInterrupt, also where the shell's `&` has left Ctrl-C ignored.

    Outside the main thread Python hears no signals, and nothing changes.
    """
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in _STOPPING:
            previous[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def second_ends_the_process() -> Iterator[None]:
    """The second signal ends the process, whatever the main thread waits for.

    Python runs handlers between two of its own instructions, so never while a program is compiled
    or a chunk computed. The system's part of it writes a byte for each signal; a thread reads them.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def listen():
        count = 0
        while number := reader.recv(1):
            count += number[0] in _STOPPING
            if count == 2:
                # No handlers, no waiting: files are complete or have temporary names.
                os.write(2, b"ended at once; the last complete checkpoint is kept\n")
                os._exit(128 + number[0])

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        writer.close()
        listener.join()
        reader.close()
