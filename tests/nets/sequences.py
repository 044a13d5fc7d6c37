"""The recurrent and time-delay nets that are shipped: parameters, work of one sequence."""

from __future__ import annotations

# Net: parameters, multiply-accumulates of a batch for tests, and what it counts: sequences or
# characters.
SEQUENCES = {
    "char_rnn": (229_794, 225_536, 32 * 50),
    "adding_problem": (17_217, 1_689_664, 50),
    "copy_memory": (31_982, 944_640, 64),
    "seq_digits": (24_458, 660_096, 359),
    "tdnn_siamese": (9_440, 165_632, 500),
}
