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

    The reader gives a token for each batch it has taken: the queue of batches is bounded by the
    number of tokens. SimpleQueue is one C call each way, where Queue wakes both threads up often.
    """

    def __init__(self, source: Source, position: int, depth: int) -> None:
        self.ready: SimpleQueue[Batch | BaseException] = SimpleQueue()
        self.tokens: SimpleQueue[bool] = SimpleQueue()  # False: stop
        self.stopped = False
        for _ in range(depth):
            self.tokens.put(True)
        self.thread = threading.Thread(
            target=self.work,
            args=(source, position),
            name="netdef-prefetch",
            daemon=True,  # one that nobody stopped must not keep the program alive
        )
        self.thread.start()

    def take(self) -> Batch | BaseException:
        item = self.ready.get()
        self.tokens.put(True)
        return item

    def stop(self) -> None:
        self.stopped = True
        self.tokens.put(False)
        self.thread.join()

    def work(self, source: Source, index: int) -> None:
        while self.tokens.get() and not self.stopped:
            try:
                self.ready.put(source.batch(index))
            except BaseException as error:
                self.ready.put(error)
                return
            index += 1
