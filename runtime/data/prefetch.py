"""Prefetcher: makes batches ahead of their use, in a thread, a few at most."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from runtime.data.records import Array
from runtime.data.sources import Source

Batch = dict[str, Array]


class Prefetcher:
    """Hands out the batches of a source in order, starting at `position`.

    `position` is the number of the batch that `next` will return: all that a snapshot needs. What
    the thread has made ahead does not count. An error of the source is raised by the `next` that
    would have returned its batch. `depth` 0: nothing is made ahead, and there is no thread.
    """

    def __init__(self, source: Source, position: int = 0, depth: int = 4) -> None:
        self.source = source
        self.position = position
        self.depth = depth
        self._run: _Run | None = None

    def next(self) -> Batch:
        """Returns the batch at `position`, and advances by one."""
        if not self.depth:
            batch = self.source.batch(self.position)
            self.position += 1
            return batch
        if self._run is None:
            self._run = _Run(self.source, self.position, self.depth)
        item = self._run.take()
        if isinstance(item, BaseException):
            self.close()  # a later call tries the same batch again
            raise item
        self.position += 1
        return item

    def seek(self, position: int) -> None:
        """Makes `position` the next batch to be handed out."""
        if position != self.position:
            self.close()
            self.position = position

    def close(self) -> None:
        """Stops the thread and waits for it; `next` would start it again."""
        if self._run is not None:
            self._run.stop()
            self._run = None


class _Run:
    """One thread and the two queues that join it to its reader.

    The reader says how many batches may be made: at first `depth`, then half as many whenever it
    has taken those, as it costs the reader more to wake the thread than to take a batch.
    SimpleQueue is one C call each way, where Queue wakes both threads up often.
    """

    def __init__(self, source: Source, position: int, depth: int) -> None:
        self.ready: SimpleQueue[Batch | BaseException] = SimpleQueue()
        self.wanted: SimpleQueue[int] = SimpleQueue()
        self.stopped = False
        self.wanted.put(depth)
        self.share = max(1, depth // 2)
        self.taken = 0  # since the thread was last told
        self.thread = threading.Thread(
            target=self.work,
            args=(source, position),
            name="netdef-prefetch",
            daemon=True,  # one that nobody stopped must not keep the program alive
        )
        self.thread.start()

    def take(self) -> Batch | BaseException:
        item = self.ready.get()
        self.taken += 1
        if self.taken == self.share:
            self.wanted.put(self.share)
            self.taken = 0
        return item

    def stop(self) -> None:
        self.stopped = True
        self.wanted.put(0)
        self.thread.join()

    def work(self, source: Source, index: int) -> None:
        while count := self.wanted.get():
            for _ in range(count):
                if self.stopped:
                    return
                try:
                    self.ready.put(source.batch(index))
                except BaseException as error:
                    self.ready.put(error)
                    return
                index += 1
