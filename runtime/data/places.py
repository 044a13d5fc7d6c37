"""Finds the files and folders that data layers name, and locates what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from schemas.errors import SourceError, near
from schemas.params import Feed
from schemas.span import Span


def find(feed: Feed, name: str, fits: Callable[[Path], bool] = Path.is_file) -> Path:
    """Returns what a layer names: relative to the net's folder, else to the working one.

    Raises SourceError, with a near name of the same folder, if there is none.
    """
    folders = (Path(feed.span.file).parent, Path())
    for folder in folders:
        if fits(folder / name):  # an absolute name replaces the folder
            return folder / name
    what = "file" if fits is Path.is_file else "file or folder"
    message = f"there is no {what} '{name}'"
    for folder in folders:
        place = (folder / name).parent
        names = sorted(p.name for p in place.iterdir() if fits(p)) if place.is_dir() else []
        if match := near(Path(name).name, names):
            raise wrong(feed, message, f"did you mean '{Path(name).parent / match}'?")
    raise wrong(feed, message, "paths are relative to the net's file, or to the working folder")


def wrong(
    feed: Feed, message: str, hint: str | None = None, span: Span | None = None
) -> SourceError:
    """Returns an error about the data of a layer; `span` is a place in a file other than the net's.

    There the message names the layer's place too.
    """
    if span is None:
        return SourceError(f"layer '{feed.layer}' ({feed.type}): {message}", feed.span, hint)
    return SourceError(f"{message} (read by layer '{feed.layer}', {feed.span})", span, hint)


def line_span(path: Path, number: int, text: str, column: int = 1) -> Span:
    """Returns the place of a line of a list file."""
    return Span(str(path), number, column, text=text)


def read_lines(feed: Feed, path: Path) -> list[tuple[int, str]]:
    """Returns the lines of a text file that are not blank, with their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise wrong(feed, f"cannot read '{path}': {error}") from None
    if "\0" in text:
        raise wrong(feed, f"'{path}' is no text file", "it has to be a list, one item a line")
    lines = enumerate(text.split("\n"), 1)
    found = [(number, line.rstrip("\r")) for number, line in lines if line.strip()]
    if not found:
        raise wrong(feed, f"'{path}' is empty")
    return found
