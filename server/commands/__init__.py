"""What the `trivium` commands do, one module each."""
