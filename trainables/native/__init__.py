"""C and CUDA sources, and the code that compiles and loads them."""
