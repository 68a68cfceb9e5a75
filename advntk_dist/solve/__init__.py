"""Matrix functions of the Gram matrix, known only through products with blocks of vectors."""
