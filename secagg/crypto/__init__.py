"""The cryptography: pure functions and small values, without protocol state and without input or output."""
