"""Our protocols inside other people's systems: they carry the messages, the machines are the same as everywhere."""
