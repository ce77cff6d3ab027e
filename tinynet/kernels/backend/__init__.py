"""How kernels are compiled, cached, threaded and replayed; matrix products, SIMD and float32 mathematics."""
