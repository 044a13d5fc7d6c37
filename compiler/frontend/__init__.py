"""NetSpec -> Graph: fields read, blobs wired, layers built."""
