"""Side-by-side measurements of netdef and its peers: `python -m bench`."""
