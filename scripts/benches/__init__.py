"""The lines of `make bench`, by what they measure."""
