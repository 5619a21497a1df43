"""Documents, and the program that regenerates parts of them."""
