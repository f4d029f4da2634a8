"""Getting datasets: over http, resumed and verified, and unpacked into place in one piece."""
