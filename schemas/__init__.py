"""Plain data that crosses rooms: specs, spans, errors, programs."""
