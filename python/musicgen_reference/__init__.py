"""Plain Python and numpy twins of the native kernels: slow on purpose, read them to know what is meant."""
