"""Data sources: embedded digits, arrays, databases, pictures, made-up data; with prefetch."""

from runtime.data.digits import ITEM_SHAPES as EMBEDDED
from runtime.data.memory import Arrays, MemorySource, given_items, ungiven
from runtime.data.prefetch import Prefetcher
from runtime.data.record_source import RecordSource
from runtime.data.records import Records
from runtime.data.sources import FED_BY_API, DummySource, Source, open_source, probe

__all__ = [
    "EMBEDDED",
    "FED_BY_API",
    "Arrays",
    "DummySource",
    "MemorySource",
    "Prefetcher",
    "RecordSource",
    "Records",
    "Source",
    "given_items",
    "open_source",
    "probe",
    "ungiven",
]
